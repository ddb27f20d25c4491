import { createServer } from "node:http"

import { HttpServer } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { EventStream } from "effect-realtime"

HttpServer.serve(EventStream.respond(() => Effect.never)).pipe(
  HttpServer.withLogAddress,
  Layer.provide(NodeHttpServer.layer(createServer, { port: 0 })),
  Layer.launch,
  NodeRuntime.runMain
)
