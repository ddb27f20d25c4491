import { once } from "node:events"
import * as Http from "node:http"

import { HttpApp, HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import type { Scope } from "effect"
import { Effect, Layer } from "effect"

/** Serves an app on a free port for as long as the scope lasts, and gives its address. */
export type Serve = <E>(app: HttpApp.Default<E, Scope.Scope>) => Effect.Effect<string, never, Scope.Scope>

/** Effect's server on Node. */
export const serveNode: Serve = (app) =>
  Effect.gen(function*() {
    const server = NodeHttpServer.layer(Http.createServer, { port: 0, host: "127.0.0.1" })
    const context = yield* Layer.build(HttpServer.serve(app).pipe(Layer.provideMerge(server))).pipe(Effect.orDie)
    return yield* Effect.provide(HttpServer.addressFormattedWith(Effect.succeed), context)
  })

/** Serves as Deno, Bun and workers do, by a function from `Request` to `Response`, here behind a plain Node server. */
export const serveWeb: Serve = (app) =>
  Effect.gen(function*() {
    const handler = HttpApp.toWebHandlerRuntime(yield* Effect.runtime())(app)
    const server = Http.createServer(async (request, response) => {
      const abort = new AbortController()
      response.on("close", () => abort.abort())
      const answer = await handler(
        new Request(`http://localhost${request.url}`, {
          method: request.method ?? "GET",
          headers: Object.entries(request.headers).map(([name, value]): [string, string] => [name, String(value)]),
          signal: abort.signal
        })
      )
      response.writeHead(answer.status, Object.fromEntries(answer.headers))
      if (answer.body === null) return response.end()
      const reader = answer.body.getReader()
      // As the runtimes do, also for a client that was gone before there was anything to cancel.
      if (response.destroyed) void reader.cancel()
      response.on("close", () => reader.cancel())
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        if (!response.write(next.value)) await once(response, "drain", { signal: abort.signal }).catch(() => {})
      }
      response.end()
    })
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
      () =>
        Effect.async<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    )
    const address = server.address()
    return address !== null && typeof address === "object" ? `http://127.0.0.1:${address.port}` : ""
  })
