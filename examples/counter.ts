/**
 * Three events, one per second. http://localhost:3000 shows them as they arrive, and so does
 * `curl -N http://localhost:3000/events`.
 */
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"

import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect, Layer } from "effect"
import { EventStream } from "effect-realtime"

const router = HttpRouter.empty.pipe(
  HttpRouter.get("/", HttpServerResponse.file(fileURLToPath(new URL("counter.html", import.meta.url)))),
  HttpRouter.get(
    "/events",
    EventStream.respond((stream) =>
      Effect.forEach(
        [1, 2, 3],
        (n) =>
          EventStream.publish(stream, { event: "counter", id: String(n), data: { n } }).pipe(
            Effect.zipLeft(Effect.sleep("1 second"))
          )
      )
    )
  )
)

const port = Config.port("PORT").pipe(Config.withDefault(3000))

HttpServer.serve(router).pipe(
  Layer.tap(() => Effect.flatMap(port, (port) => Console.log(`Counting at http://localhost:${port}`))),
  Layer.provide(NodeHttpServer.layerConfig(createServer, { port })),
  Layer.launch,
  Effect.catchAll((error) =>
    Console.error(String(error._tag === "ServeError" ? error.cause : error)).pipe(
      Effect.zipRight(Effect.sync(() => process.exitCode = 1))
    )
  ),
  NodeRuntime.runMain
)
