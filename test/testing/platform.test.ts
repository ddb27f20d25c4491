import { createServer } from "node:http"

import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

class Hold extends Context.Tag("Hold")<Hold, { leak: boolean }>() {}
const state = { leak: false }
const app = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/events",
    Effect.gen(function*() {
      if (state.leak) yield* Effect.forkDaemon(Effect.withSpan(Effect.async<never>(() => {}), "leaky"))
      return HttpServerResponse.stream(
        Stream.concat(Stream.make("id: 1\ndata: a\n\n"), Stream.never).pipe(Stream.encodeText),
        { contentType: "text/event-stream" }
      )
    })
  )
)
const Live = HttpServer.serve(app).pipe(Layer.provideMerge(NodeHttpServer.layer(() => createServer(), { port: 0 })))
const url = HttpServer.addressWith((a) =>
  Effect.succeed(`http://127.0.0.1:${a._tag === "TcpAddress" ? a.port : 0}/events`)
)
const client = Effect.gen(function*() {
  const source = yield* TestEventSource.make(yield* url)
  assert.strictEqual((yield* TestEventSource.next(source)).data, "a")
})
describe("platform", () => {
  it.effect("inside", () => client.pipe(Effect.scoped, Effect.provide(Live), LeakCheck.run))
  layer(Live)("outside", (it) => {
    it.effect("clean", () => LeakCheck.run(client))
    it.effect("many", () =>
      LeakCheck.run(Effect.gen(function*() {
        const t = performance.now()
        yield* Effect.forEach(Array.from({ length: 1000 }), () => Effect.flatMap(Effect.fork(client), (f) => f.await), {
          concurrency: 100
        })
        process.stderr.write(`checked ${performance.now() - t}\n`)
      })))
    it.effect("many unchecked", () =>
      Effect.scoped(Effect.gen(function*() {
        const t = performance.now()
        yield* Effect.forEach(Array.from({ length: 1000 }), () => Effect.flatMap(Effect.fork(client), (f) => f.await), {
          concurrency: 100
        })
        process.stderr.write(`unchecked ${performance.now() - t}\n`)
      })))
    it.effect("leaky", () =>
      Effect.gen(function*() {
        state.leak = true
        const e = yield* Effect.flip(LeakCheck.run(client))
        process.stderr.write(e.message + "\n")
      }))
  })
})
