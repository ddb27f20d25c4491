import * as Http from "node:http"
import * as Http2 from "node:http2"
import * as Https from "node:https"
import type { AddressInfo } from "node:net"
import type { Readable } from "node:stream"

import type { HttpApp } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Predicate, type Scope } from "effect"
import { EventStream } from "effect-realtime"

import * as TestCertificate from "../../src/testing/internal/testCertificate.js"
import { serveWeb } from "../support/servers.js"

const megabyte = 1_000_000

/** Reads at a rate, without a pause of more than 25 ms, and gives the bytes received once the stream has closed. */
const readAt = (body: Readable, bytesPerSecond: number) =>
  Effect.async<number>((resume) => {
    let received = 0
    let left = 0
    const onData = (chunk: Uint8Array) => {
      received += chunk.length
      left -= chunk.length
      if (left <= 0) body.pause()
    }
    const timer = setInterval(() => {
      left = Math.min(left, 0) + bytesPerSecond / 40
      if (left > 0) body.resume()
    }, 25)
    const onClose = () => {
      clearInterval(timer)
      resume(Effect.succeed(received))
    }
    body.on("data", onData).on("error", () => {}).on("close", onClose)
    return Effect.sync(() => {
      clearInterval(timer)
      body.off("data", onData).off("close", onClose).pause()
    })
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

const serveEvent = (bytes: number, options?: EventStream.Options) => {
  const data = "x".repeat(bytes)
  return EventStream.respond((stream) => EventStream.publish(stream, { data }), { ...options })
}

// The kind: a timer that counts time instead of progress.
for (const [name, connect] of Object.entries(clients)) {
  describe(`over ${name}`, () => {
    const app = serveEvent(24 * megabyte, { writeTimeout: "2 seconds" })

    it.scopedLive("a reader that never pauses gets an event that takes longer than writeTimeout", () =>
      Effect.gen(function*() {
        assert.isAbove(yield* readAt(yield* connect(app), 4 * megabyte), 24 * megabyte)
      }))

    it.scopedLive("a reader that stops in the middle is cut off", () =>
      Effect.gen(function*() {
        const body = yield* connect(app)
        yield* Effect.timeoutOption(readAt(body, 4 * megabyte), "1 second")
        yield* Effect.sleep("4 seconds")
        assert.isBelow(yield* readAt(body, 100 * megabyte), 24 * megabyte)
      }))
  })
}

describe.concurrent("at 128 KB/s, with the defaults,", () => {
  for (const [name, connect] of Object.entries(clients)) {
    it.scopedLive(`a reader gets an event of 10 MB over ${name}`, () =>
      Effect.gen(function*() {
        const body = yield* connect(serveEvent(10 * megabyte))
        assert.isAbove(yield* readAt(body, 0.128 * megabyte), 10 * megabyte)
      }))
  }
})
