/** Streams over HTTP/2, and at `/measure` what this process holds. */
import type * as Http from "node:http"
import * as Http2 from "node:http2"

import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Fiber, Layer, Predicate } from "effect"
import { EventStream } from "effect-realtime"

import { collectGarbage } from "../../support/garbage.js"

let opened = 0

const events = EventStream.respond(() =>
  Effect.zipRight(
    Effect.sync(() => {
      opened++
    }),
    Effect.never
  )
)

const countFibers = Effect.gen(function*() {
  const found = new Set<Fiber.RuntimeFiber<unknown, unknown>>(yield* Fiber.roots)
  for (const fiber of found) {
    for (const child of yield* Fiber.children(fiber)) found.add(child)
  }
  return found.size
})

const measure = Effect.gen(function*() {
  collectGarbage()
  const { external, heapUsed } = process.memoryUsage()
  return { bytes: heapUsed + external, fibers: yield* countFibers, opened }
})

const router = HttpRouter.empty.pipe(
  HttpRouter.get("/events", events),
  HttpRouter.get("/measure", Effect.flatMap(measure, HttpServerResponse.json))
)

/** Effect's server takes one of HTTP/2 too, though its types do not say so. */
const isHttpServer = (u: unknown): u is Http.Server => Predicate.hasProperty(u, "listen")

const makeServer = (): Http.Server => {
  const server: unknown = Http2.createServer()
  if (!isHttpServer(server)) throw new Error("no server")
  return server
}

HttpServer.serve(router).pipe(
  HttpServer.withLogAddress,
  Layer.provide(NodeHttpServer.layer(makeServer, { port: 0 })),
  Layer.launch,
  NodeRuntime.runMain
)
