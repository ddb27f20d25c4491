/**
 * Two servers and a publisher on one Redis, in one command: `tsx examples/cluster.ts`. Both of
 * `curl -N http://localhost:3001/news` and `curl -N http://localhost:3002/news` receive every event, and resume with
 * `-H "Last-Event-ID: …"` at the other server too. It needs a Redis at REDIS_URL, redis://localhost:6379 by default.
 */
import { createServer } from "node:http"

import { HttpRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect, Layer, Schedule } from "effect"
import { EventBroker } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"

// Each node has its own broker and its own connections. Layer.fresh, because all three run in one process.
const node = Layer.fresh(
  EventBroker.layer.pipe(
    Layer.provide(RedisEventLog.layerConfig({
      url: Config.string("REDIS_URL").pipe(Config.withDefault("redis://localhost:6379"))
    }))
  )
)

const router = HttpRouter.empty.pipe(HttpRouter.get("/news", EventBroker.respond("news")))

// The server is provided first, so that it listens last: when its handler is ready.
const server = (port: number) =>
  HttpServer.serve(router).pipe(
    Layer.tap(() => Console.log(`Serving http://localhost:${port}/news`)),
    Layer.provide(NodeHttpServer.layer(createServer, { port })),
    Layer.provide(node)
  )

const run = crypto.randomUUID()

const publisher = Layer.scopedDiscard(
  Effect.iterate(1, {
    while: () => true,
    body: (n) =>
      EventBroker.publish("news", { event: "headline", data: { n } }, { key: `${run}-${n}` }).pipe(
        // Retries while Redis is unavailable. The key prevents that an event is appended twice after a timeout.
        Effect.retry({
          while: (error) => error._tag === "EventLogError" && error.isRetryable,
          schedule: Schedule.spaced("1 second")
        }),
        Effect.zipRight(EventBroker.subscriberCount("news")),
        Effect.tap((subscribers) => Console.log(`Published ${n} to ${subscribers} subscribers`)),
        Effect.delay("1 second"),
        Effect.as(n + 1)
      )
  }).pipe(Effect.forkScoped)
).pipe(Layer.provide(node))

Layer.mergeAll(server(3001), server(3002), publisher).pipe(Layer.launch, NodeRuntime.runMain)
