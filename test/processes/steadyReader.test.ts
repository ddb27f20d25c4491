import * as Http from "node:http"
import * as Http2 from "node:http2"
import * as Https from "node:https"
import type { AddressInfo } from "node:net"
import type { Readable } from "node:stream"

import { HttpApp } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Predicate, type Scope } from "effect"
import { EventStream } from "effect-realtime"

import * as TestCertificate from "../../src/internal/testCertificate.js"
import { serveWeb } from "../support/servers.js"

const megabyte = 1_000_000

/** Reads at a rate, every 25 ms, and gives the bytes received when the stream has ended, however it ended. */
const readAt = (body: Readable, bytesPerSecond: number) =>
  Effect.async<number>((resume) => {
    let received = 0
    const timer = setInterval(() => {
      for (let left = bytesPerSecond / 40; left > 0;) {
        const chunk: unknown = body.read(Math.min(left, body.readableLength)) ?? undefined
        if (!Buffer.isBuffer(chunk) || chunk.length === 0) break
        received += chunk.length
        left -= chunk.length
      }
    }, 25)
    const done = () => {
      clearInterval(timer)
      resume(Effect.succeed(received))
    }
    body.on("readable", () => {})
    body.on("error", () => {})
    body.on("close", done)
  })

const listen = (server: Http.Server | Http2.Http2Server) =>
  Effect.acquireRelease(
    Effect.async<number>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed((server.address() as AddressInfo).port)))
    }),
    () => Effect.sync(() => server.close())
  )

type App = HttpApp.Default<never, Scope.Scope>

const isHttpServer = (u: unknown): u is Http.Server => Predicate.hasProperty(u, "listen")

const serve = (app: App, make: () => unknown) =>
  Effect.gen(function*() {
    const server: unknown = make()
    if (!isHttpServer(server)) return yield* Effect.die("no server")
    server.on("request", yield* NodeHttpServer.makeHandler(app))
    return yield* listen(server)
  })

const get = (request: Http.ClientRequest) =>
  Effect.async<Readable>((resume) => {
    request.on("error", () => {}).on("response", (response) => resume(Effect.succeed(response)))
  })

const clients: Record<string, (app: App) => Effect.Effect<Readable, never, Scope.Scope>> = {
  "HTTP/1.1": (app) =>
    Effect.flatMap(serve(app, Http.createServer), (port) => get(Http.get({ port, host: "127.0.0.1", agent: false }))),
  "TLS": (app) =>
    Effect.flatMap(
      serve(app, () => Https.createServer(TestCertificate.make(["localhost"]))),
      (port) => get(Https.get({ port, host: "127.0.0.1", agent: false, rejectUnauthorized: false }))
    ),
  "HTTP/2": (app) =>
    Effect.gen(function*() {
      const port = yield* serve(app, Http2.createServer)
      const session = yield* Effect.acquireRelease(
        Effect.sync(() => Http2.connect(`http://127.0.0.1:${port}`)),
        (session) => Effect.sync(() => session.destroy())
      )
      return session.request({ ":path": "/" })
    }),
  "a web handler": (app) => Effect.flatMap(serveWeb(app), (url) => get(Http.get(url, { agent: false })))
}

// The kind: a timer that counts time instead of progress.
describe.concurrent("a reader that never pauses", () => {
  for (const [name, connect] of Object.entries(clients)) {
    it.scopedLive(`gets an event that takes longer than writeTimeout, over ${name}`, () =>
      Effect.gen(function*() {
        const body = yield* connect(
          EventStream.respond((stream) => EventStream.publish(stream, { data: "x".repeat(24 * megabyte) }), {
            writeTimeout: "2 seconds"
          })
        )
        assert.isAbove(yield* readAt(body, 4 * megabyte), 24 * megabyte)
      }))

    it.scopedLive(`gets an event at 128 KB/s with the defaults, over ${name}`, () =>
      Effect.gen(function*() {
        const body = yield* connect(
          EventStream.respond((stream) => EventStream.publish(stream, { data: "x".repeat(10 * megabyte) }))
        )
        assert.isAbove(yield* readAt(body, 0.128 * megabyte), 10 * megabyte)
      }))

    it.scopedLive(`is cut off when it stops in the middle, over ${name}`, () =>
      Effect.gen(function*() {
        const body = yield* connect(
          EventStream.respond((stream) => EventStream.publish(stream, { data: "x".repeat(24 * megabyte) }), {
            writeTimeout: "2 seconds"
          })
        )
        yield* Effect.timeoutOption(readAt(body, 4 * megabyte), "1 second")
        body.pause()
        yield* Effect.sleep("4 seconds")
        assert.isBelow(yield* readAt(body, 100 * megabyte), 24 * megabyte)
      }))
  }
})
