import * as Http2 from "node:http2"

import { NodeContext } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Array, Console, Effect, Schema } from "effect"

import { startServer } from "../support/processes.js"

const resets = 10_000

const Measure = Schema.parseJson(Schema.Struct({ bytes: Schema.Number, fibers: Schema.Number, opened: Schema.Number }))

const connect = (url: string) =>
  Effect.acquireRelease(
    Effect.async<Http2.ClientHttp2Session>((resume) => {
      const session = Http2.connect(url, () => resume(Effect.succeed(session)))
    }),
    (session) => Effect.sync(() => session.destroy())
  )

/** Asks for a stream and resets it: at once, or when its head has come. */
const reset = (session: Http2.ClientHttp2Session, isHeaded: boolean) =>
  Effect.async<void>((resume) => {
    const stream = session.request({ ":path": "/events" })
    const cancel = () => stream.close(Http2.constants.NGHTTP2_CANCEL)
    stream.on("error", () => {}).on("close", () => resume(Effect.void)).resume()
    if (isHeaded) stream.once("response", cancel)
    else cancel()
  })

const resetMany = (url: string, count: number, isHeaded: boolean) =>
  Effect.forEach(
    Array.range(1, count / 100),
    () =>
      Effect.scoped(Effect.flatMap(connect(url), (session) =>
        Effect.replicateEffect(reset(session, isHeaded), 100, { concurrency: 50, discard: true }))),
    { discard: true }
  )

const measure = (url: string) =>
  Effect.scoped(Effect.flatMap(connect(url), (session) =>
    Effect.async<string>((resume) => {
      let body = ""
      session.request({ ":path": "/measure" }).setEncoding("utf8")
        .on("data", (text: string) => body += text)
        .on("end", () => resume(Effect.succeed(body)))
    }))).pipe(Effect.flatMap(Schema.decode(Measure)))

for (const [when, isHeaded] of [["at once", false], ["after their heads", true]] as const) {
  it.scopedLive(
    `${resets} streams of HTTP/2 that are reset ${when} leave neither memory nor fibers`,
    () =>
      Effect.gen(function*() {
        const { url } = yield* startServer({ file: "test/processes/servers/http2.ts" })
        const idle = yield* measure(url)
        const settled = measure(url).pipe(
          Effect.delay("50 millis"),
          Effect.repeat({ until: ({ fibers }) => fibers <= idle.fibers })
        )
        // Compiled code and caches.
        yield* resetMany(url, 2_000, isHeaded)
        const before = yield* settled
        yield* resetMany(url, resets, isHeaded)
        const after = yield* settled
        const growth = after.bytes - before.bytes
        yield* Console.log(
          `${resets} resets ${when}: ${Math.round(growth / 1024)} KiB, ${
            after.opened - before.opened
          } streams were opened`
        )
        assert.isBelow(growth, 2 * 1024 * 1024)
      }).pipe(Effect.provide(NodeContext.layer)),
    300_000
  )
}
