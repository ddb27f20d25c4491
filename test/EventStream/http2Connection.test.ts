import type * as Http from "node:http"
import * as Http2 from "node:http2"

import type { HttpApp } from "@effect/platform"
import { HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Layer, Predicate, Queue, Ref, Scope } from "effect"
import { EventStream } from "effect-realtime"
import { LeakCheck } from "effect-realtime/testing"

/** Effect's server takes one of HTTP/2 too, though its types do not say so. */
const isHttpServer = (u: unknown): u is Http.Server => Predicate.hasProperty(u, "listen")

/** Serves an app over HTTP/2, and gives what connects to it. */
const serve = (app: HttpApp.Default<never, Scope.Scope>, scope: Scope.Scope) =>
  Effect.gen(function*() {
    const http2: unknown = Http2.createServer()
    assert.isTrue(isHttpServer(http2))
    if (!isHttpServer(http2)) return yield* Effect.die("no server")
    const server = NodeHttpServer.layer(() => http2, { port: 0, host: "127.0.0.1" })
    const context = yield* Layer.build(HttpServer.serve(app).pipe(Layer.provideMerge(server))).pipe(
      Scope.extend(scope),
      Effect.orDie
    )
    const url = yield* Effect.provide(HttpServer.addressFormattedWith(Effect.succeed), context)
    return Effect.acquireRelease(
      Effect.sync(() => Http2.connect(url)),
      (session) => Effect.sync(() => session.destroy())
    )
  })

const open = (session: Http2.ClientHttp2Session) => session.request({ ":path": "/" }).setEncoding("utf8")

/** Returns the text that a stream has received when it has ended. */
const read = (stream: Http2.ClientHttp2Stream) =>
  Effect.async<string>((resume) => {
    let received = ""
    stream.on("data", (text: string) => received += text)
    stream.on("end", () => resume(Effect.succeed(received)))
  })

const until = (stream: Http2.ClientHttp2Stream, text: string) =>
  Effect.async<void>((resume) => {
    let received = ""
    const onData = (more: string) => {
      received += more
      if (!received.includes(text)) return
      stream.off("data", onData)
      resume(Effect.void)
    }
    stream.on("data", onData)
  })

describe("event streams over HTTP/2", () => {
  it.live("end when the client announces to close its connection", () =>
    Effect.gen(function*() {
      const gone = yield* Deferred.make<void>()
      const connect = yield* serve(
        EventStream.respond(
          () => Effect.ensuring(Effect.never, Deferred.succeed(gone, undefined)),
          { heartbeat: "off" }
        ),
        yield* Effect.scope
      )
      const session = yield* connect
      yield* until(open(session).on("error", () => {}), ":")
      session.on("error", () => {}).goaway(Http2.constants.NGHTTP2_NO_ERROR)
      yield* Deferred.await(gone)
    }).pipe(LeakCheck.run))

  // Kind: a request of HTTP/2 that waits for its turn while the client announces to close the connection.
  it.live("end when they open after the client has announced to close its connection", () =>
    Effect.gen(function*() {
      const connect = yield* serve(
        EventStream.respond(
          () => {
            // Only some begin before the announcement.
            for (const at = performance.now(); performance.now() - at < 2;);
            return Effect.never
          },
          { heartbeat: "off" }
        ),
        yield* Effect.scope
      )
      const session = (yield* connect).on("error", () => {})
      const reading = yield* Effect.forEach(
        Array.from({ length: 20 }, () => open(session)),
        (stream) => Effect.fork(read(stream))
      )
      session.goaway(Http2.constants.NGHTTP2_NO_ERROR)
      yield* Fiber.joinAll(reading)
    }).pipe(LeakCheck.run))

  it.live("leave no fiber of another response that is reset before it is sent", () =>
    Effect.gen(function*() {
      const connect = yield* serve(HttpServerResponse.text("x".repeat(1_000)), yield* Effect.scope)
      const session = yield* connect
      const isHeaded = (stream: Http2.ClientHttp2Stream) =>
        Effect.async<void>((resume) => void stream.once("response", () => resume(Effect.void)))
      yield* Effect.async<void>((resume) => session.settings({ initialWindowSize: 0 }, () => resume(Effect.void)))
      for (let n = 0; n < 20; n++) {
        const stream = open(session)
        stream.on("error", () => {})
        yield* isHeaded(stream)
        stream.close(Http2.constants.NGHTTP2_CANCEL)
      }
    }).pipe(LeakCheck.run))

  it.live("end with a client that resets its stream, and leave the others of the connection alone", () =>
    Effect.gen(function*() {
      const scope = yield* Effect.scope
      const streams = yield* Queue.unbounded<EventStream.EventStream>()
      const running = yield* Ref.make(0)
      const gone = yield* Deferred.make<void>()
      const connect = yield* serve(
        EventStream.respond((stream) =>
          Effect.acquireUseRelease(
            Effect.zipRight(Ref.update(running, (n) => n + 1), Queue.offer(streams, stream)),
            () => Effect.never,
            () => Effect.zipRight(Ref.update(running, (n) => n - 1), Deferred.succeed(gone, undefined))
          )
        ),
        scope
      )
      const session = yield* connect
      const reset = open(session)
      yield* until(reset, ":\n")
      yield* Queue.take(streams)
      const other = open(session)
      yield* until(other, ":\n")
      const stream = yield* Queue.take(streams)
      reset.close(Http2.constants.NGHTTP2_CANCEL)
      yield* Deferred.await(gone)
      assert.strictEqual(yield* Ref.get(running), 1)
      const hearing = yield* Effect.fork(until(other, "data: still here\n\n"))
      yield* Effect.yieldNow()
      assert.isTrue(yield* EventStream.publish(stream, { data: "still here" }))
      yield* hearing
    }).pipe(LeakCheck.run))

  it.live("end when the server shuts down, with a word on when to come back, though one of them is not read", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const flood = EventStream.respond(
        (stream) => Effect.forever(EventStream.publish(stream, { data: "x".repeat(10_000) })),
        { strategy: "suspend" }
      )
      const connect = yield* serve(flood, scope)
      // On a connection of its own, which it fills.
      const stalled = open(yield* connect)
      yield* until(stalled, "data: x")
      stalled.pause()
      const reading = open(yield* connect)
      const received = yield* Effect.fork(read(reading))
      yield* until(reading, "data: x")
      const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(duration), 2_000)
      assert.match(yield* received, /\n\nretry: \d+\n$/)
    }).pipe(LeakCheck.run))

  // Kind: work that one client orders in one packet, and that is done in one turn of the event loop.
  it.live("begin over several turns of the event loop when one packet opens many", () =>
    Effect.gen(function*() {
      let begun = 0
      let inTurn = 0
      let most = 0
      const connect = yield* serve(
        Effect.sync(() => {
          if (inTurn === 0) setImmediate(() => inTurn = 0)
          begun++
          most = Math.max(most, ++inTurn)
          for (const at = performance.now(); performance.now() - at < 2;);
          return HttpServerResponse.text("hello")
        }),
        yield* Effect.scope
      )
      const session = yield* connect
      yield* Effect.forEach(Array.from({ length: 100 }, () => open(session)), read, { concurrency: "unbounded" })
      assert.strictEqual(begun, 100)
      assert.isBelow(most, 10)
    }).pipe(LeakCheck.run))
})
