import { createServer } from "node:http"

import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, PubSub, Schedule, Stream } from "effect"

import { event, heap, heartbeat, port } from "../server.js"

const encoder = new TextEncoder()
const comment = encoder.encode(":\n\n")
const encode = () => encoder.encode(`data: ${JSON.stringify(event)}\n\n`)

const respond = (events: Stream.Stream<Uint8Array>) =>
  // The head of a response is sent with its first bytes.
  HttpServerResponse.stream(Stream.concat(Stream.succeed(comment), events), {
    contentType: "text/event-stream",
    headers: { "cache-control": "no-cache" }
  })

const main = Effect.gen(function*() {
  const pubsub = yield* PubSub.bounded<Uint8Array>(1024)
  yield* Effect.forkScoped(Effect.schedule(PubSub.publish(pubsub, comment), Schedule.spaced(heartbeat)))
  return HttpServer.serve(HttpRouter.empty.pipe(
    HttpRouter.get("/events", respond(Stream.unwrapScoped(Effect.map(PubSub.subscribe(pubsub), Stream.fromQueue)))),
    // Encoded once for all subscribers, as by the other servers.
    HttpRouter.post(
      "/publish",
      Effect.as(Effect.suspend(() => PubSub.publish(pubsub, encode())), HttpServerResponse.empty())
    ),
    HttpRouter.get("/stream", respond(Stream.map(Stream.range(1, Number.MAX_SAFE_INTEGER), encode))),
    HttpRouter.get("/heap", Effect.sync(() => HttpServerResponse.text(String(heap()))))
  ))
})

Layer.unwrapScoped(main).pipe(
  Layer.provide(NodeHttpServer.layer(createServer, { port, host: "127.0.0.1" })),
  Layer.launch,
  NodeRuntime.runMain
)
