import { createServer } from "node:http"

import { HttpRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Runtime } from "effect"
import { EventBroker, EventLog } from "effect-realtime"

import { event, start } from "../server.js"

const router = HttpRouter.empty.pipe(HttpRouter.get("/events", EventBroker.respond("orders")))

const program = Effect.gen(function*() {
  yield* HttpServer.serveEffect(router)
  const runFork = Runtime.runFork(yield* Effect.runtime<EventBroker.EventBroker>())
  yield* HttpServer.addressWith((address) =>
    Effect.sync(() => {
      if (address._tag !== "TcpAddress") return
      start(address.port, () => void runFork(EventBroker.publish("orders", { data: event })))
    })
  )
  return yield* Effect.never
})

program.pipe(
  Effect.scoped,
  Effect.provide([
    EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory)),
    NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })
  ]),
  NodeRuntime.runMain
)
