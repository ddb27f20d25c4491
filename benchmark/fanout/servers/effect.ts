import { createServer } from "node:http"

import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, PubSub, Runtime, Stream } from "effect"

import { event, start } from "../server.js"

const encoder = new TextEncoder()

const program = Effect.gen(function*() {
  const pubsub = yield* PubSub.bounded<Uint8Array>(1024)
  const router = HttpRouter.empty.pipe(
    HttpRouter.get(
      "/events",
      HttpServerResponse.stream(
        Stream.unwrapScoped(Effect.map(PubSub.subscribe(pubsub), (events) =>
          // The head of a response is sent with its first bytes.
          Stream.concat(Stream.succeed(encoder.encode(":\n\n")), Stream.fromQueue(events)))),
        { contentType: "text/event-stream", headers: { "cache-control": "no-cache" } }
      )
    )
  )
  yield* HttpServer.serveEffect(router)
  const runFork = Runtime.runFork(yield* Effect.runtime())
  yield* HttpServer.addressWith((address) =>
    Effect.sync(() => {
      if (address._tag !== "TcpAddress") return
      // Encoded once for all subscribers, as the other servers do.
      start(address.port, () =>
        void runFork(Effect.suspend(() =>
          PubSub.publish(pubsub, encoder.encode(`data: ${JSON.stringify(event)}\n\n`))
        )))
    })
  )
  return yield* Effect.never
})

program.pipe(
  Effect.scoped,
  Effect.provide(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })),
  NodeRuntime.runMain
)
