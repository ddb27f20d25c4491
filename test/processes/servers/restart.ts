import { createServer } from "node:http"

import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { EventBroker, EventLog } from "effect-realtime"

/** When each connection was accepted, in milliseconds. */
const accepted: Array<number> = []

const router = HttpRouter.empty.pipe(
  // Longer than it takes to start again, so that all find the new process.
  HttpRouter.get("/events", EventBroker.respond("a", { retry: "12 seconds" })),
  HttpRouter.get("/accepted", Effect.suspend(() => HttpServerResponse.json(accepted)))
)

const server = () => createServer().on("connection", () => accepted.push(performance.now()))

HttpServer.serve(router).pipe(
  HttpServer.withLogAddress,
  Layer.provide(EventBroker.layer),
  Layer.provide(EventLog.layerMemory),
  Layer.provide(NodeHttpServer.layer(server, { port: Number(process.argv[2]) })),
  Layer.launch,
  NodeRuntime.runMain
)
