import { createServer } from "node:http"

import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { EventStream } from "effect-realtime"

import { collectGarbage } from "../../support/garbage.js"

const open = new Set<EventStream.EventStream>()

const events = EventStream.respond(
  (stream) =>
    Effect.acquireUseRelease(
      Effect.sync(() => open.add(stream)),
      () => Effect.never,
      () => Effect.sync(() => open.delete(stream))
    ),
  { writeTimeout: "3 seconds" }
)

const nextTurn = Effect.async<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

const data = "x".repeat(10_000)

/** Publishes a hundred events of 10 KB to every stream. */
const publish = Effect.forEach(open, (stream) => EventStream.publish(stream, { data })).pipe(
  Effect.zipRight(nextTurn),
  Effect.repeatN(99)
)

const measure = Effect.gen(function*() {
  collectGarbage()
  const { external, heapUsed } = process.memoryUsage()
  return { bytes: heapUsed + external, dropped: yield* Effect.forEach(open, EventStream.dropped) }
})

const router = HttpRouter.empty.pipe(
  HttpRouter.get("/events", events),
  HttpRouter.post("/publish", Effect.as(publish, HttpServerResponse.empty())),
  HttpRouter.get("/measure", Effect.flatMap(measure, HttpServerResponse.json))
)

HttpServer.serve(router).pipe(
  HttpServer.withLogAddress,
  Layer.provide(NodeHttpServer.layer(createServer, { port: 0 })),
  Layer.launch,
  NodeRuntime.runMain
)
