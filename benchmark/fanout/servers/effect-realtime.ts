import { createServer } from "node:http"

import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Stream } from "effect"
import { EventBroker, EventLog, EventStream } from "effect-realtime"

import { delay, event, heap, heartbeat, port } from "../server.js"

const router = HttpRouter.empty.pipe(
  HttpRouter.get("/events", EventBroker.respond("orders", { heartbeat })),
  HttpRouter.post("/publish", Effect.as(EventBroker.publish("orders", { data: event }), HttpServerResponse.empty())),
  HttpRouter.get(
    "/stream/publish",
    EventStream.respond((stream) =>
      Effect.gen(function*() {
        while (true) yield* EventStream.publish(stream, { data: event })
      }), { strategy: "suspend" })
  ),
  HttpRouter.get(
    "/stream/Stream",
    EventStream.respondStream(Stream.map(Stream.range(1, Number.MAX_SAFE_INTEGER), () => ({ data: event })))
  ),
  HttpRouter.get("/heap", Effect.sync(() => HttpServerResponse.text(String(heap())))),
  HttpRouter.get("/delay", Effect.sync(() => HttpServerResponse.text(String(delay()))))
)

HttpServer.serve(router).pipe(
  Layer.provide([
    EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory)),
    NodeHttpServer.layer(createServer, { port, host: "127.0.0.1" })
  ]),
  Layer.launch,
  NodeRuntime.runMain
)
