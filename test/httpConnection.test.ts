import type { Socket } from "node:net"
import { connect } from "node:net"

import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Ref, Scope } from "effect"
import { EventStream } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

import { serveNode } from "./support/servers.js"

const openSocket = (url: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { hostname, port } = new URL(url)
      return connect(Number(port), hostname).setEncoding("utf8")
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

const request = (method = "GET", headers = "") => `${method} / HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`

/** Sends the text, and waits until the predicate holds for what is received from then on. */
const exchange = (socket: Socket, text: string, isEnough: (received: string) => boolean) =>
  Effect.async<string>((resume) => {
    let received = ""
    const onData = (text: string) => {
      received += text
      if (isEnough(received)) {
        socket.off("data", onData)
        resume(Effect.succeed(received))
      }
    }
    socket.on("data", onData)
    socket.write(text)
  })

const endsOfBodies = (received: string) => received.split("\r\n0\r\n\r\n").length - 1

const greet = EventStream.respond((stream) => EventStream.publish(stream, { data: "hello" }))
const body = "\r\n:\ndata: hello\n\n\r\n"

/** Whatever chunks the bodies came in. */
const withoutChunks = (received: string) => received.replace(/\r\n[0-9a-f]+\r\n/g, "")

/** Never ends by itself; `started` is done when so many of its producers run. */
const endless = (count: number) =>
  Effect.gen(function*() {
    const running = yield* Ref.make(0)
    const started = yield* Deferred.make<void>()
    const app = EventStream.respond(() =>
      Effect.acquireUseRelease(
        Effect.tap(
          Ref.updateAndGet(running, (n) => n + 1),
          (n) => n === count ? Deferred.succeed(started, undefined) : Effect.void
        ),
        () => Effect.never,
        () => Ref.update(running, (n) => n - 1)
      )
    )
    return { app, started: Deferred.await(started) }
  })

describe("event streams on one connection of Node's server", () => {
  it.live("come one after the other", () =>
    Effect.gen(function*() {
      const socket = yield* openSocket(yield* serveNode(greet))
      for (const _ of [1, 2, 3]) {
        const response = yield* exchange(socket, request(), (received) => endsOfBodies(received) === 1)
        assert.isTrue(withoutChunks(response).endsWith(body))
      }
    }).pipe(LeakCheck.run))

  it.live("come in their order when the requests are pipelined", () =>
    Effect.gen(function*() {
      const socket = yield* openSocket(yield* serveNode(greet))
      const responses = yield* exchange(socket, request().repeat(3), (received) => endsOfBodies(received) === 3)
      assert.lengthOf(withoutChunks(responses).split(body), 4)
    }).pipe(LeakCheck.run))

  it.live("end with a client that vanishes, even those that wait for their turn", () =>
    Effect.gen(function*() {
      const { app, started } = yield* endless(2)
      const socket = yield* openSocket(yield* serveNode(app))
      socket.write(request().repeat(2))
      yield* started
      socket.destroy()
    }).pipe(LeakCheck.run))

  it.live("end when the server shuts down, even those that wait for their turn", () =>
    Effect.gen(function*() {
      const { app, started } = yield* endless(2)
      const scope = yield* Scope.make()
      const socket = yield* openSocket(yield* Scope.extend(serveNode(app), scope))
      const response = yield* Effect.fork(
        exchange(socket, request().repeat(2), (received) => endsOfBodies(received) === 1)
      )
      yield* started
      const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(duration), 2_000)
      assert.match(yield* response, /:\n\r\n\w+\r\nretry: \d+\n\r\n0\r\n\r\n/)
    }).pipe(LeakCheck.run))

  it.live("close it where the client asks for that", () =>
    Effect.gen(function*() {
      const socket = yield* openSocket(yield* serveNode(greet))
      const closed = Effect.async<void>((resume) => {
        socket.once("close", () => resume(Effect.void))
      })
      const closing = yield* Effect.fork(closed)
      const response = yield* exchange(
        socket,
        request("GET", "Connection: close\r\n"),
        (received) => endsOfBodies(received) === 1
      )
      assert.isTrue(withoutChunks(response).endsWith(body))
      yield* closing
    }).pipe(LeakCheck.run))

  it.live("have no body where the request is HEAD, and leave the connection usable", () =>
    Effect.gen(function*() {
      const socket = yield* openSocket(yield* serveNode(greet))
      const head = yield* exchange(socket, request("HEAD"), (received) => received.endsWith("\r\n\r\n"))
      assert.include(head, "content-type: text/event-stream")
      const response = yield* exchange(socket, request(), (received) => endsOfBodies(received) === 1)
      assert.isTrue(response.startsWith("HTTP/1.1 200") && withoutChunks(response).endsWith(body))
    }).pipe(LeakCheck.run))

  it.live("belong to their first reader, whom a second one does not disturb", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make()
      const url = yield* serveNode(Effect.succeed(EventStream.toResponse(stream)))
      const first = yield* TestEventSource.make(url)
      yield* TestEventSource.awaitText(first, (text) => text.length > 0)
      const second = yield* TestEventSource.make(url)
      assert.strictEqual(yield* TestEventSource.end(second), "clean")
      assert.isTrue(yield* EventStream.publish(stream, { data: "still here" }))
      assert.strictEqual((yield* TestEventSource.next(first)).data, "still here")
    }).pipe(LeakCheck.run))

  it.live("do not hold up a shutdown when their client has stopped reading", () =>
    Effect.gen(function*() {
      const { app, started } = yield* endless(1)
      const scope = yield* Scope.make()
      const source = yield* TestEventSource.make(yield* Scope.extend(serveNode(app), scope))
      yield* started
      yield* TestEventSource.stall(source)
      const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(duration), 2_000)
    }).pipe(LeakCheck.run))
})
