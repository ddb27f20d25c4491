import * as Http from "node:http"
import * as Https from "node:https"
import type { Socket } from "node:net"
import { connect } from "node:net"

import type { HttpApp } from "@effect/platform"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Layer, Queue, Ref, Schedule, Scope } from "effect"
import { EventStream } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

import { serveNode } from "../support/servers.js"

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

const awaitCondition = (condition: Effect.Effect<boolean>) =>
  Effect.repeat(Effect.delay(condition, "5 millis"), { until: (holds) => holds })

const endsOfBodies = (received: string) => received.split("\r\n0\r\n\r\n").length - 1

const greet = EventStream.respond((stream) => EventStream.publish(stream, { data: "hello" }))
const body = "\r\n:\ndata: hello\n\n\r\n"

/** Removes the frames of the chunks of a body. */
const withoutChunks = (received: string) => received.replace(/\r\n[0-9a-f]+\r\n/g, "")

/** Never ends by itself; `started` is done when so many of its producers run. */
const endless = (count: number, options: EventStream.Options = {}) =>
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
      ), options)
    return { app, running, started: Deferred.await(started) }
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

  it.live("begin when it is their turn, one listener waits for the socket, and all end with a client that vanishes", () =>
    Effect.gen(function*() {
      const { app, running, started } = yield* endless(1)
      const warnings: Array<string> = []
      const warn = ({ message, name }: Error) => void warnings.push(`${name}: ${message}`)
      process.on("warning", warn)
      yield* Effect.addFinalizer(() => Effect.sync(() => process.off("warning", warn)))
      const { scope, server } = yield* serveOn(Http.createServer(), app)
      yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
      const sockets = yield* Queue.unbounded<Socket>()
      server.on("connection", (socket) => sockets.unsafeOffer(socket))
      const socket = yield* openSocket(yield* addressOf(server))
      const requests = request().repeat(2_000)
      socket.write(requests)
      yield* started
      const served = yield* Queue.take(sockets)
      yield* awaitCondition(Effect.sync(() => served.bytesRead === requests.length))
      assert.strictEqual(yield* Ref.get(running), 1)
      socket.destroy()
      yield* awaitCondition(Effect.map(Ref.get(running), (n) => n === 0))
      assert.deepStrictEqual(warnings, [])
    }).pipe(LeakCheck.run))

  // Kind: work that one client orders in one packet, and that Node does in one turn of the event loop.
  it.live("close a connection on which thousands of requests wait for a second, and read no more of it", () =>
    Effect.gen(function*() {
      const { app, running, started } = yield* endless(1)
      const { scope, server } = yield* serveOn(Http.createServer(), app)
      yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
      const sockets = yield* Queue.unbounded<Socket>()
      server.on("connection", (socket) => sockets.unsafeOffer(socket))
      const socket = yield* openSocket(yield* addressOf(server))
      const requests = request().repeat(30_000)
      const closed = Effect.async<void>((resume) => {
        socket.on("error", () => {}).once("close", () => resume(Effect.void)).resume()
      })
      socket.write(requests)
      yield* started
      const served = yield* Queue.take(sockets)
      yield* closed
      assert.isBelow(served.bytesRead, 200_000)
      yield* awaitCondition(Effect.map(Ref.get(running), (n) => n === 0))
    }).pipe(LeakCheck.run))

  it.live("do not keep thousands of pipelined requests from being answered", () =>
    Effect.gen(function*() {
      const app = Effect.map(
        HttpServerRequest.HttpServerRequest,
        ({ url }) => HttpServerResponse.text(url === "/last" ? "last" : "hello")
      )
      const socket = yield* openSocket(yield* serveNode(app))
      // More than wait before the connection is no longer read.
      const isDone = (received: string) => received.endsWith("last")
      yield* exchange(socket, `${request().repeat(3_000)}${request().replace("/", "/last")}`, isDone)
    }).pipe(LeakCheck.run), 120_000)

  // The version that a request names is its client's claim.
  for (const version of ["HTTP/1.1", "HTTP/1.0", "HTTP/2.0"]) {
    it.live(`do not let a request behind them reach the application (${version})`, () =>
      Effect.gen(function*() {
        const { app, started } = yield* endless(1)
        const requests = yield* Ref.make(0)
        const { scope, server } = yield* serveOn(
          Http.createServer(),
          Effect.zipRight(Ref.update(requests, (n) => n + 1), app)
        )
        const sockets = yield* Queue.unbounded<Socket>()
        server.on("connection", (socket) => sockets.unsafeOffer(socket))
        const socket = yield* openSocket(yield* addressOf(server))
        const text = request() + request().replace("HTTP/1.1", version).repeat(9)
        socket.write(text)
        yield* started
        const served = yield* Queue.take(sockets)
        yield* awaitCondition(Effect.sync(() => served.bytesRead === text.length))
        assert.strictEqual(yield* Ref.get(requests), 1)
        yield* Scope.close(scope, Exit.void)
      }).pipe(LeakCheck.run))
  }

  it.live("end when the server shuts down, and no other begins", () =>
    Effect.gen(function*() {
      const { app, started } = yield* endless(1)
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

const upgrade = (protocol: string) =>
  `Connection: Upgrade, HTTP2-Settings\r\nUpgrade: ${protocol}\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n`

const echo = Effect.flatMap(
  HttpServerRequest.HttpServerRequest,
  ({ text }) => Effect.map(text, HttpServerResponse.text)
)

/** Succeeds when the socket has closed. */
const closeOf = (socket: Socket) =>
  Effect.async<void>((resume) => {
    if (socket.closed) return resume(Effect.void)
    socket.once("close", () => resume(Effect.void))
  })

describe("a request that asks for another protocol", () => {
  it.live("h2c: streams one after the other on the connection, as without it", () =>
    Effect.gen(function*() {
      const socket = yield* openSocket(yield* serveNode(greet))
      for (let n = 0; n < 20; n++) {
        const response = yield* exchange(
          socket,
          request("GET", upgrade("h2c")),
          (received) => endsOfBodies(received) === 1
        )
        assert.isTrue(withoutChunks(response).endsWith(body))
      }
    }).pipe(LeakCheck.run))

  it.live("h2c: the application gets the body", () =>
    Effect.gen(function*() {
      const socket = yield* openSocket(yield* serveNode(echo))
      const text = "x".repeat(100_000)
      const response = yield* exchange(
        socket,
        `${request("POST", `${upgrade("h2c")}Content-Length: ${text.length}\r\n`)}${text}`,
        (received) => received.endsWith(text)
      )
      assert.isTrue(response.startsWith("HTTP/1.1 200"))
    }).pipe(LeakCheck.run))

  for (const protocol of ["h2c", "foo", "websocket"]) {
    for (const leave of ["end", "resetAndDestroy"] as const) {
      it.live(`${protocol}: the stream ends with its client (${leave}), without a heartbeat`, () =>
        Effect.gen(function*() {
          const { app, running, started } = yield* endless(1, { heartbeat: "off" })
          const socket = yield* openSocket(yield* serveNode(app))
          yield* exchange(socket, request("GET", upgrade(protocol)), (received) => received.includes("\r\n:\n"))
          yield* started
          // Bytes that nothing reads would hide the end that follows them.
          if (protocol !== "h2c") socket.write("more")
          socket[leave]()
          yield* awaitCondition(Effect.map(Ref.get(running), (n) => n === 0))
        }).pipe(LeakCheck.run))
    }

    it.live(`${protocol}: a client that vanishes while it is written to does not end the process`, () =>
      Effect.gen(function*() {
        const flood = EventStream.respond((stream) =>
          EventStream.publish(stream, { data: "x".repeat(1_000) }).pipe(
            Effect.repeat(Schedule.spaced("1 millis"))
          )
        )
        const url = yield* serveNode(flood)
        for (const leave of ["resetAndDestroy", "destroy"] as const) {
          const socket = yield* openSocket(url)
          yield* exchange(socket, request("GET", upgrade(protocol)), (received) => received.includes("data"))
          socket[leave]()
          yield* closeOf(socket)
        }
        yield* Effect.sleep("100 millis")
      }).pipe(LeakCheck.run))

    it.live(`${protocol}: what is not a stream leaves no socket, though its client does not close`, () =>
      Effect.gen(function*() {
        const sockets = yield* Queue.unbounded<Socket>()
        const { scope, server } = yield* serveOn(Http.createServer(), Effect.succeed(HttpServerResponse.text("hello")))
        server.on("connection", (socket) => sockets.unsafeOffer(socket))
        const socket = yield* openHalf(yield* addressOf(server))
        yield* exchange(
          socket,
          request("GET", `${upgrade(protocol)}Connection: close\r\n`),
          (received) => received.endsWith("hello")
        )
        yield* closeOf(yield* Queue.take(sockets))
        yield* Scope.close(scope, Exit.void)
      }).pipe(LeakCheck.run))

    it.live(`${protocol}: shutdown does not wait for a client that keeps its side open`, () =>
      Effect.gen(function*() {
        const { app, started } = yield* endless(1)
        const { scope, server } = yield* serveOn(Http.createServer(), app)
        const socket = yield* openHalf(yield* addressOf(server))
        yield* exchange(socket, request("GET", upgrade(protocol)), (received) => received.includes("\r\n:\n"))
        yield* started
        const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
        assert.isBelow(Duration.toMillis(duration), 2_000)
      }).pipe(LeakCheck.run))
  }

  for (const method of ["GET", "HEAD"]) {
    it.live(`leaves no fiber of a ${method} request whose client leaves before its response begins`, () =>
      Effect.gen(function*() {
        const started = yield* Deferred.make<void>()
        const app = Effect.zipRight(Deferred.succeed(started, undefined), Effect.interruptible(Effect.never))
        const { scope, server } = yield* serveOn(Http.createServer(), app)
        const sockets = yield* Queue.unbounded<Socket>()
        server.on("connection", (socket) => sockets.unsafeOffer(socket))
        const socket = yield* openSocket(yield* addressOf(server))
        socket.on("error", () => {}).write(request(method, ""))
        yield* Deferred.await(started)
        const served = yield* Queue.take(sockets)
        socket.resetAndDestroy()
        yield* closeOf(served)
        yield* Scope.close(scope, Exit.void)
      }).pipe(LeakCheck.run))
  }

  // Kind: a wait for an event that does not come once the connection is gone.
  for (const headers of ["", upgrade("foo"), upgrade("websocket")]) {
    const name = /^Upgrade: (.*)$/m.exec(headers)?.[1] ?? "no other protocol"

    for (const method of ["GET", "HEAD"]) {
      it.live(`${name}: a response to ${method} that begins once its connection is gone leaves no fiber`, () =>
        Effect.gen(function*() {
          const started = yield* Deferred.make<void>()
          const gone = yield* Deferred.make<void>()
          const app = Deferred.succeed(started, undefined).pipe(
            Effect.zipRight(Deferred.await(gone)),
            Effect.as(HttpServerResponse.text("hello")),
            Effect.uninterruptible
          )
          const { scope, server } = yield* serveOn(Http.createServer(), app)
          const sockets = yield* Queue.unbounded<Socket>()
          server.on("connection", (socket) => sockets.unsafeOffer(socket))
          const socket = yield* openSocket(yield* addressOf(server))
          socket.on("error", () => {}).write(request(method, headers))
          yield* Deferred.await(started)
          const served = yield* Queue.take(sockets)
          served.destroy()
          yield* closeOf(served)
          yield* Deferred.succeed(gone, undefined)
          yield* Scope.close(scope, Exit.void)
        }).pipe(LeakCheck.run))
    }

    it.live(`${name}: a response whose client leaves before it is sent leaves no fiber`, () =>
      Effect.gen(function*() {
        const { scope, server } = yield* serveOn(
          Http.createServer(),
          Effect.sync(() => HttpServerResponse.text("x".repeat(30_000_000)))
        )
        const sockets = yield* Queue.unbounded<Socket>()
        server.on("connection", (socket) => sockets.unsafeOffer(socket))
        const socket = yield* openSocket(yield* addressOf(server))
        socket.on("error", () => {}).pause().write(request("GET", headers))
        const served = yield* Queue.take(sockets)
        yield* awaitCondition(Effect.sync(() => served.writableLength > 0))
        socket.resetAndDestroy()
        yield* closeOf(served)
        yield* Scope.close(scope, Exit.void)
      }).pipe(LeakCheck.run))
  }

  it.live("foo: the application gets the body, and a client that leaves within it leaves nothing", () =>
    Effect.gen(function*() {
      const { scope, server } = yield* serveOn(Http.createServer(), echo.pipe(Effect.orDie))
      const url = yield* addressOf(server)
      const post = request("POST", `${upgrade("foo")}Content-Length: 4\r\n`)
      const response = yield* exchange(yield* openSocket(url), `${post}body`, (received) => received.endsWith("body"))
      assert.isTrue(response.startsWith("HTTP/1.1 200"))
      const sockets = yield* Queue.unbounded<Socket>()
      server.on("connection", (socket) => sockets.unsafeOffer(socket))
      const socket = yield* openSocket(url)
      socket.write(`${post}bo`)
      const served = yield* Queue.take(sockets)
      yield* awaitCondition(Effect.sync(() => served.bytesRead === post.length + 2))
      socket.resetAndDestroy()
      yield* closeOf(served)
      yield* Scope.close(scope, Exit.void)
    }).pipe(LeakCheck.run))

  it.live("behind a stream: is cut off with it, and leaves nothing", () =>
    Effect.gen(function*() {
      const { app, running, started } = yield* endless(1, { heartbeat: "off" })
      const socket = yield* openSocket(yield* serveNode(app))
      socket.write(`${request()}${request("GET", upgrade("h2c"))}`)
      yield* started
      yield* awaitCondition(Effect.map(Ref.get(running), (n) => n === 0))
    }).pipe(LeakCheck.run))
})

/** A socket that does not end its side when the server does. */
const openHalf = (url: string) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      connect({ port: Number(new URL(url).port), host: "127.0.0.1", allowHalfOpen: true }).setEncoding("utf8")
    ),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** Effect's server in a scope of its own, with the server of Node that it stands on. */
const serveOn = (server: Http.Server, app: HttpApp.Default<never, Scope.Scope>) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const layer = NodeHttpServer.layer(() => server, { port: 0, host: "127.0.0.1" })
    yield* Layer.build(HttpServer.serve(app).pipe(Layer.provide(layer))).pipe(Scope.extend(scope), Effect.orDie)
    return { scope, server }
  })

const addressOf = (server: Http.Server) =>
  Effect.sync(() => {
    const address = server.address()
    return address !== null && typeof address === "object" ? `http://127.0.0.1:${address.port}` : ""
  })

const closing = (server: Http.Server) => awaitCondition(Effect.sync(() => !server.listening))

describe("a server that is closed before any stream was opened", () => {
  const openings = [
    { name: "a silent connection", text: "" },
    { name: "half a head", text: "GET / HTTP/1.1\r\nHost: local" },
    { name: "half a body", text: request("POST", "Content-Length: 100\r\n") + "half" },
    { name: "an upgrade that is not answered", text: request("GET", upgrade("websocket")) },
    { name: "a request that is never answered", text: request() }
  ]
  const wait = Effect.zipRight(
    Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ text }) => text),
    Effect.never
  ).pipe(Effect.orDie, Effect.interruptible)

  for (const { name, text } of openings) {
    it.live(`does not wait for ${name}`, () =>
      Effect.gen(function*() {
        const { scope, server } = yield* serveOn(Http.createServer(), wait)
        const socket = yield* openSocket(yield* addressOf(server))
        socket.write(text)
        yield* awaitConnections(server, 1)
        const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
        assert.isBelow(Duration.toMillis(duration), 2_000)
      }).pipe(LeakCheck.run))
  }

  it.live("refuses at once what is asked meanwhile: 503, or 200 and a time to come back for an EventSource", () =>
    Effect.gen(function*() {
      const { scope, server } = yield* serveOn(Http.createServer(), greet)
      const url = yield* addressOf(server)
      const plain = yield* openSocket(url)
      const source = yield* openSocket(url)
      const foreign = yield* openSocket(url)
      yield* awaitConnections(server, 3)
      const closed = yield* Effect.fork(Effect.timed(Scope.close(scope, Exit.void)))
      yield* closing(server)
      const [refused, stream, other] = yield* Effect.all([
        exchange(plain, request("POST", "Content-Length: 3\r\n") + "abc", (received) => received.endsWith("\r\n\r\n")),
        exchange(source, request("GET", "Accept: text/event-stream\r\n"), (received) => received.includes("retry")),
        exchange(
          foreign,
          request("GET", "Accept: text/event-stream\r\nOrigin: http://other.test\r\n"),
          (received) => received.includes("retry")
        )
      ], { concurrency: "unbounded" })
      assert.match(refused, /^HTTP\/1.1 503 [^]*\r\nconnection: close\r\n/i)
      assert.match(stream, /^HTTP\/1.1 200 [^]*text\/event-stream[^]*retry: [1-4]\d\d\d\n(?!\n)/)
      assert.match(stream, /\r\nconnection: close\r\n/i)
      assert.match(other, /\r\naccess-control-allow-origin: http:\/\/other.test\r\n/i)
      const [duration] = yield* closed
      assert.isBelow(Duration.toMillis(duration), 2_000)
    }).pipe(LeakCheck.run))

  it.live("refuses what is asked meanwhile by what it accepts, as RFC 9110 reads it", () =>
    Effect.gen(function*() {
      const accepts = {
        "text/event-stream;q=0": 503,
        "application/json, text/event-stream; q=0.0": 503,
        "application/x-text/event-stream": 503,
        "text/event-streams": 503,
        "*/*": 503,
        "Text/Event-Stream": 200,
        "text/event-stream;q=0.5, */*;q=0": 200
      }
      const { scope, server } = yield* serveOn(Http.createServer(), greet)
      const url = yield* addressOf(server)
      const sockets = yield* Effect.forEach(Object.entries(accepts), ([accept, status]) =>
        Effect.map(openSocket(url), (socket) => ({ accept, socket, status })))
      yield* awaitConnections(server, sockets.length)
      const closed = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* closing(server)
      yield* Effect.forEach(sockets, ({ accept, socket, status }) =>
        Effect.map(
          exchange(socket, request("GET", `Accept: ${accept}\r\n`), (received) =>
            received.includes("\r\n\r\n")),
          (received) => assert.strictEqual(received.slice(9, 12), String(status), accept)
        ), { concurrency: "unbounded" })
      yield* closed
    }).pipe(LeakCheck.run))

  it.live("refuses what is asked between the end of its application and its own", () =>
    Effect.gen(function*() {
      const server = Http.createServer()
      const outer = yield* Scope.make()
      const inner = yield* Scope.make()
      const context = yield* Layer.build(NodeHttpServer.layer(() => server, { port: 0, host: "127.0.0.1" })).pipe(
        Scope.extend(outer)
      )
      yield* HttpServer.serveEffect(greet).pipe(Effect.provide(context), Scope.extend(inner))
      const url = yield* addressOf(server)
      yield* Scope.close(inner, Exit.void)
      const source = yield* TestEventSource.make(url)
      assert.strictEqual(source.status, 200)
      assert.strictEqual(yield* TestEventSource.end(source), "clean")
      // The same server may be given another application.
      yield* HttpServer.serveEffect(greet).pipe(Effect.provide(context), Scope.extend(outer))
      const again = yield* TestEventSource.make(url)
      assert.strictEqual((yield* TestEventSource.next(again)).data, "hello")
      yield* Scope.close(outer, Exit.void)
    }).pipe(Effect.orDie, LeakCheck.run))

  it.live("finishes a response that takes less than the grace", () =>
    Effect.gen(function*() {
      const begun = yield* Deferred.make<void>()
      const { scope, server } = yield* serveOn(
        Http.createServer(),
        Deferred.succeed(begun, undefined).pipe(
          Effect.zipRight(Effect.sleep("200 millis")),
          Effect.as(HttpServerResponse.text("late"))
        )
      )
      const socket = yield* openSocket(yield* addressOf(server))
      const response = yield* Effect.fork(exchange(socket, request(), (received) => received.endsWith("late")))
      yield* Deferred.await(begun)
      yield* Scope.close(scope, Exit.void)
      assert.match(yield* response, /^HTTP\/1.1 200/)
    }).pipe(LeakCheck.run))

  it.live("over TLS, does not wait for a handshake", () =>
    Effect.gen(function*() {
      const { scope, server } = yield* serveOn(Https.createServer(), greet)
      yield* openSocket(yield* addressOf(server))
      yield* awaitConnections(server, 1)
      const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(duration), 2_000)
    }).pipe(LeakCheck.run))

  it.live("of others in the process, is left as it is", () =>
    Effect.gen(function*() {
      const server = Http.createServer((_, response) => response.end("hello"))
      yield* Effect.async<void>((resume) =>
        void setImmediate(() => server.listen(0, "127.0.0.1", () => resume(Effect.void)))
      )
      assert.isFalse(Object.hasOwn(server, "close") || Object.hasOwn(server, "emit"))
      yield* Effect.async<void>((resume) => void server.close(() => resume(Effect.void)))
    }).pipe(LeakCheck.run))
})

const awaitConnections = (server: Http.Server, count: number) =>
  awaitCondition(
    Effect.async<boolean>((resume) => void server.getConnections((_, n) => resume(Effect.succeed(n >= count))))
  )

describe("a request whose body is not read", () => {
  it.live("does not hold up its upload", () =>
    Effect.gen(function*() {
      const { app, running, started } = yield* endless(1)
      const socket = yield* openSocket(yield* serveNode(app))
      const size = 4_000_000
      yield* exchange(
        socket,
        request("POST", `Content-Length: ${size}\r\n`),
        (received) => received.includes("\r\n:\n")
      )
      yield* started
      yield* Effect.async<void>((resume) => void socket.write("x".repeat(size), () => resume(Effect.void)))
      assert.strictEqual(yield* Ref.get(running), 1)
    }).pipe(LeakCheck.run))

  it.live("belongs to a producer that reads it a little later", () =>
    Effect.gen(function*() {
      const upload = EventStream.respond((stream) =>
        Effect.gen(function*() {
          const request = yield* HttpServerRequest.HttpServerRequest
          yield* Effect.sleep("100 millis")
          const text = yield* request.text
          yield* EventStream.publish(stream, { data: text.length })
        })
      )
      const socket = yield* openSocket(yield* serveNode(upload))
      const size = 1_000_000
      const response = yield* exchange(
        socket,
        request("POST", `Content-Length: ${size}\r\n`) + "x".repeat(size),
        (received) => endsOfBodies(received) === 1
      )
      assert.include(response, `data: ${size}`)
    }).pipe(LeakCheck.run))
})
