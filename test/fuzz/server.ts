/**
 * A server with streams, a broker and push routes, over HTTP/1.1 and HTTP/2, that reports its own state at `/state`.
 * Prints both addresses on one line.
 */
import * as Http from "node:http"
import * as Http2 from "node:http2"
import type * as Net from "node:net"

import { HttpClient, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Fiber, Layer, Option, Predicate, Ref, Schema } from "effect"
import {
  EventBroker,
  EventLog,
  EventStream,
  SubscriptionStore,
  Topic,
  VapidKeys,
  WebPush,
  WebPushApi,
  WebPushCrypto
} from "effect-realtime"

const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })

const streaming = { heartbeat: "100 millis", writeTimeout: "1 second" } as const

/** Measures the longest turn of the event loop in milliseconds: the lesser of its time and its CPU. */
const watchTurns = () => {
  let longest = 0
  let at = performance.now()
  let cpu = process.cpuUsage()
  setInterval(() => {
    const { system, user } = process.cpuUsage(cpu)
    longest = Math.max(longest, Math.min(performance.now() - at - 10, (system + user) / 1000))
    at = performance.now()
    cpu = process.cpuUsage()
  }, 10)
  return () => {
    const turn = longest
    longest = 0
    return turn
  }
}

const findFibers = Effect.gen(function*() {
  const found = new Set<Fiber.RuntimeFiber<unknown, unknown>>(yield* Fiber.roots)
  for (const fiber of found) {
    for (const child of yield* Fiber.children(fiber)) found.add(child)
  }
  return Array.from(found)
})

const requestOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>) =>
  Option.match(Context.getOption(fiber.currentContext, HttpServerRequest.HttpServerRequest), {
    onNone: () => [],
    onSome: ({ headers, method, url }) => [{ method, url, headers }]
  })

const countSockets = (server: Net.Server) =>
  Effect.async<number>((resume) => void server.getConnections((_, count) => resume(Effect.succeed(count))))

// A server that is built maps no stack of an error to its sources: each stream that a client leaves makes one.
process.setSourceMapsEnabled(false)

const servers = { http: Http.createServer(), http2: Http2.createServer() }
const takeLongestTurn = watchTurns()

const makeRouter = Effect.gen(function*() {
  const producing = new Set<Pick<HttpServerRequest.HttpServerRequest, "headers" | "method" | "url">>()
  const joined = yield* Ref.make(0)
  const counted = (stream: EventStream.EventStream) =>
    Effect.acquireUseRelease(
      Effect.tap(HttpServerRequest.HttpServerRequest, (request) => Effect.sync(() => producing.add(request))),
      () => Effect.zipRight(EventStream.publish(stream, { data: "hello" }), Effect.never),
      (request) => Effect.sync(() => producing.delete(request))
    )
  const param = (name: string) => Effect.map(HttpRouter.params, (params) => params[name] ?? "")
  const owner = Effect.map(HttpServerRequest.HttpServerRequest, ({ headers }) => Option.fromNullable(headers["x-user"]))
  const router = HttpRouter.empty.pipe(
    HttpRouter.all("/events", EventStream.respond(counted, streaming)),
    HttpRouter.all("/silent", EventStream.respond(counted, { ...streaming, heartbeat: "off" })),
    HttpRouter.all(
      "/flood",
      // More than the buffers of a socket hold.
      EventStream.respond(
        (stream) =>
          Effect.zipRight(
            Effect.replicateEffect(EventStream.publish(stream, { data: "x".repeat(20_000) }), 300, { discard: true }),
            Effect.never
          ),
        { ...streaming, strategy: "suspend" }
      )
    ),
    HttpRouter.get("/short", EventStream.respond((stream) => EventStream.publish(stream, { data: "bye" }), streaming)),
    HttpRouter.get(
      "/orders/:orderId",
      Effect.flatMap(param("orderId"), (orderId) => EventBroker.respond(Topic.channel(Orders, { orderId }), streaming))
    ),
    HttpRouter.get("/pattern", EventBroker.respond(Topic.pattern(Orders), streaming)),
    HttpRouter.get("/raw/:name", Effect.flatMap(param("name"), (name) => EventBroker.respond(name, streaming))),
    HttpRouter.get(
      "/many/:n",
      Effect.flatMap(param("n"), (n) =>
        EventBroker.respond(
          Array.from({ length: Math.min(1_000, Number(n) || 0) }, (_, i) => `many/${i}`),
          streaming
        ))
    ),
    HttpRouter.post(
      "/orders/:orderId",
      Effect.flatMap(param("orderId"), (orderId) =>
        Effect.as(
          EventBroker.publish(Topic.channel(Orders, { orderId }), "paid", { amount: 1 }),
          HttpServerResponse.empty()
        ))
    ),
    HttpRouter.mount("/push", WebPushApi.router(owner)),
    HttpRouter.get("/", HttpServerResponse.text("hello")),
    HttpRouter.get(
      "/state",
      Effect.gen(function*() {
        const fibers = yield* findFibers
        // This request is a connection of its own server.
        return yield* HttpServerResponse.json({
          fibers: fibers.length,
          requests: fibers.flatMap(requestOf),
          sockets: (yield* countSockets(servers.http)) + (yield* countSockets(servers.http2)) - 1,
          producers: Array.from(producing, ({ headers, method, url }) => ({ headers, method, url })),
          joined: yield* joined,
          subscribers: yield* EventBroker.subscriberCount("orders/1"),
          channels: (yield* EventBroker.channels).length,
          longestTurn: takeLongestTurn()
        })
      })
    )
  )
  const broker = EventBroker.layerWith({
    maxConnections: 5_000,
    onJoin: () => Ref.update(joined, (n) => n + 1),
    onLeave: () => Ref.update(joined, (n) => n - 1)
  })
  return { broker, router }
})

/** Effect's server takes one of HTTP/2 too, though its types do not say so. */
const isHttpServer = (u: unknown): u is Http.Server => Predicate.hasProperty(u, "listen")

const serverLayer = (server: unknown) =>
  NodeHttpServer.layer(() => isHttpServer(server) ? server : Http.createServer(), { port: 0, host: "127.0.0.1" })

const noPushService = Layer.succeed(
  HttpClient.HttpClient,
  HttpClient.make(() => Effect.dieMessage("No push is sent here"))
)

const program = Layer.unwrapEffect(Effect.gen(function*() {
  const { broker, router } = yield* makeRouter
  const keys = yield* VapidKeys.generate
  const serve = (server: unknown) => HttpServer.serve(router).pipe(Layer.provideMerge(serverLayer(server)))
  const listening = Layer.scopedDiscard(Effect.suspend(() => {
    const port = (server: Net.Server) => {
      const address = server.address()
      return address !== null && typeof address === "object" ? address.port : 0
    }
    return Console.log(`listening ${port(servers.http)} ${port(servers.http2)}`)
  }))
  return listening.pipe(
    Layer.provide(Layer.mergeAll(serve(servers.http), serve(servers.http2))),
    Layer.provide(Layer.mergeAll(
      broker.pipe(Layer.provide(EventLog.layerMemory)),
      SubscriptionStore.layerMemory,
      WebPush.layerWith({ vapid: keys, subject: "mailto:ops@example.com", ttl: "1 day" }).pipe(
        Layer.provide([noPushService, WebPushCrypto.layer])
      )
    ))
  )
}))

NodeRuntime.runMain(Layer.launch(program))
