import { createServer } from "node:http"

import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { EventBroker } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"

const router = HttpRouter.empty.pipe(
  HttpRouter.get("/events", EventBroker.respond("news", { retry: "1 second" })),
  HttpRouter.get(
    "/ready",
    Effect.map(EventBroker.isReady, (isReady) => HttpServerResponse.empty({ status: isReady ? 204 : 503 }))
  )
)

const Server = HttpServer.serve(router).pipe(
  HttpServer.withLogAddress,
  Layer.provide(NodeHttpServer.layer(createServer, { port: Number(process.argv[2]) }))
)

const Drain = Layer.scopedDiscard(
  Effect.flatMap(
    Config.duration("OVER"),
    (over) => Effect.addFinalizer(() => EventBroker.drain({ over }))
  )
)

Drain.pipe(
  Layer.provide(Server),
  Layer.provide(EventBroker.layer.pipe(Layer.provide(RedisEventLog.layerConfig({ url: Config.string("REDIS_URL") })))),
  Layer.launch,
  NodeRuntime.runMain
)
