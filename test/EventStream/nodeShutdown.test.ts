import * as Http from "node:http"
import * as Http2 from "node:http2"
import type { Socket } from "node:net"
import { connect } from "node:net"

import type { HttpApp } from "@effect/platform"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Predicate, Queue, Ref, Scope } from "effect"
import { EventBroker, EventLog, EventStream } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

const readers = 2
const events = 400
const data = "x".repeat(16_000)

const Server = NodeHttpServer.layer(Http.createServer, { port: 0, host: "127.0.0.1" })
const Broker = EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))
const app = Effect.orDie(EventBroker.respond("a", { maxBytes: 64 * 1024 * 1024 }))

const compositions = {
  "the broker before the server": HttpServer.serve(app).pipe(Layer.provideMerge(Broker), Layer.provideMerge(Server)),
  "the server before the broker": HttpServer.serve(app).pipe(Layer.provideMerge(Server), Layer.provideMerge(Broker)),
  "both at once": HttpServer.serve(app).pipe(Layer.provideMerge(Layer.merge(Server, Broker)))
}

/** Closes the scope while events are queued for readers that read, and checks what each of them gets. */
const release = (url: string, broker: EventBroker.EventBroker.Service, scope: Scope.CloseableScope) =>
  Effect.gen(function*() {
    const sources = yield* Effect.replicateEffect(TestEventSource.make(url), readers)
    yield* Effect.forEach(sources, (source) => TestEventSource.awaitText(source, (text) => text.includes(":")))
    yield* Effect.forEach(sources, TestEventSource.stall)
    for (let n = 0; n < events; n++) yield* Effect.orDie(broker.publish("a", { data }))
    yield* Effect.forEach(sources, TestEventSource.resume)
    const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
    for (const source of sources) {
      assert.strictEqual(yield* TestEventSource.end(source), "clean")
      assert.lengthOf(yield* TestEventSource.collect(source), events)
      assert.match(yield* TestEventSource.text(source), /\n\nretry: \d+\n+$/)
    }
    return duration
  })

/** Serves a handler with a server that Effect does not know. Returns its port. */
const listen = (handler: Http.RequestListener) =>
  Effect.gen(function*() {
    const server = Http.createServer(handler)
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => void setImmediate(() => server.listen(0, "127.0.0.1", () => resume(Effect.void)))),
      () => Effect.async<void>((resume) => void server.close(() => resume(Effect.void)))
    )
    const address = server.address()
    return address !== null && typeof address === "object" ? address.port : 0
  })

describe("readers that read get all that is queued, and a time to come back, when layers are released", () => {
  for (const [name, layer] of Object.entries(compositions)) {
    it.live(name, () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(layer, scope)
        const url = yield* Effect.provide(HttpServer.addressFormattedWith(Effect.succeed), context)
        const duration = yield* release(url, Context.get(context, EventBroker.EventBroker), scope)
        assert.isBelow(Duration.toMillis(duration), 3_000)
      }).pipe(Effect.orDie, LeakCheck.run))
  }

  it.live("only the broker, under a server of its own", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Broker, scope)
      const port = yield* listen(yield* Effect.provide(NodeHttpServer.makeHandler(app), context))
      yield* release(`http://127.0.0.1:${port}`, Context.get(context, EventBroker.EventBroker), scope)
    }).pipe(Effect.orDie, LeakCheck.run))
})

describe("the last chunk of HTTP/1.1 is sent under a server of its own", () => {
  /** As a middleware for sessions does: it takes the first argument of `end` for data, and ends the response later. */
  const replaceEnd = (response: Http.ServerResponse) => {
    const end = response.end.bind(response)
    let hasEnded = false
    response.end = (data?: unknown) => {
      if (hasEnded) return response
      hasEnded = true
      if (data !== undefined) response.write(data)
      setTimeout(end, 20)
      return response
    }
  }

  const middlewares = { "without a middleware": () => {}, "with a middleware that replaces end": replaceEnd }
  for (const [name, middleware] of Object.entries(middlewares)) {
    for (const released of ["the broker", "the scope of the streams"]) {
      it.live(`${name}, when ${released} is released`, () =>
        Effect.gen(function*() {
          const scope = yield* Scope.make()
          const context = yield* Layer.buildWithScope(Broker, scope)
          const stream = Effect.map(Scope.extend(EventStream.make(), scope), EventStream.toResponse())
          const handler = yield* Effect.provide(
            NodeHttpServer.makeHandler(released === "the broker" ? app : stream),
            context
          )
          const port = yield* listen((request, response) => {
            middleware(response)
            handler(request, response)
          })
          const texts = Array.from({ length: readers }, () => "")
          const open = (_: string, i: number) =>
            Effect.acquireRelease(
              Effect.async<Socket>((resume) => {
                const socket = connect(port, "127.0.0.1").setEncoding("latin1")
                  .on("error", () => {})
                  .on("data", (text) => {
                    texts[i] += String(text)
                    resume(Effect.succeed(socket))
                  })
                socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
              }),
              (socket) => Effect.sync(() => socket.destroy())
            )
          yield* Effect.forEach(texts, open)
          const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
          assert.isBelow(Duration.toMillis(duration), 900)
          yield* Effect.repeat(Effect.delay(Effect.sync(() => texts), "10 millis"), {
            until: (texts) => texts.every((text) => text.endsWith("\r\n0\r\n\r\n"))
          }).pipe(Effect.timeout("2 seconds"), Effect.orElseSucceed(() => assert.fail(JSON.stringify(texts))))
        }).pipe(Effect.orDie, LeakCheck.run))
    }
  }
})

describe("a request with a body behind a response that takes its time", () => {
  const size = 4_000_000
  const post = `POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${size}\r\n\r\n${"x".repeat(size)}`

  for (const kind of ["a stream", "a slow response"]) {
    it.live(`behind a response: is read, and refused with 503 when its turn comes (${kind})`, () =>
      Effect.gen(function*() {
        const goOn = yield* Deferred.make<void>()
        const methods: Array<string> = []
        const server = Http.createServer()
        const sockets = yield* Queue.unbounded<Socket>()
        server.on("connection", (socket) => sockets.unsafeOffer(socket))
        const app = Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ method }) => {
          methods.push(method)
          return kind === "a stream"
            ? EventStream.respond(() => Deferred.await(goOn))
            : Effect.as(Deferred.await(goOn), HttpServerResponse.text("late"))
        })
        const context = yield* Layer.build(
          HttpServer.serve(app).pipe(
            Layer.provideMerge(NodeHttpServer.layer(() => server, { port: 0, host: "127.0.0.1" }))
          )
        )
        const url = yield* Effect.provide(HttpServer.addressFormattedWith(Effect.succeed), context)
        const client = yield* Effect.acquireRelease(
          Effect.sync(() => connect(Number(new URL(url).port), "127.0.0.1").setEncoding("utf8")),
          (client) => Effect.sync(() => client.destroy())
        )
        let received = ""
        const closed = yield* Effect.fork(Effect.async<void>((resume) => {
          client.on("data", (text) => received += String(text)).on("close", () => resume(Effect.void))
        }))
        const text = `GET / HTTP/1.1\r\nHost: localhost\r\n\r\n${post}`
        client.write(text)
        const served = yield* Queue.take(sockets)
        yield* Effect.repeat(Effect.delay(Effect.sync(() => served.bytesRead), "10 millis"), {
          until: (bytes) => bytes === text.length
        })
        yield* Deferred.succeed(goOn, undefined)
        yield* Fiber.join(closed)
        assert.deepStrictEqual(methods, ["GET"])
        assert.match(received, /^HTTP\/1.1 200 [^]*HTTP\/1.1 503 [^]*connection: close\r\n/i)
      }).pipe(Effect.orDie, LeakCheck.run))
  }
})

/** Effect's server takes one of HTTP/2 too, though its types do not say so. */
const isHttpServer = (u: unknown): u is Http.Server => Predicate.hasProperty(u, "listen")

const serveHttp2 = (app: HttpApp.Default<never, Scope.Scope>) =>
  Effect.gen(function*() {
    const server: unknown = Http2.createServer()
    if (!isHttpServer(server)) return yield* Effect.die("no server")
    const scope = yield* Scope.make()
    const layer = NodeHttpServer.layer(() => server, { port: 0, host: "127.0.0.1" })
    const context = yield* Layer.buildWithScope(HttpServer.serve(app).pipe(Layer.provideMerge(layer)), scope)
    const url = yield* Effect.provide(HttpServer.addressFormattedWith(Effect.succeed), context)
    const session = yield* Effect.acquireRelease(
      Effect.async<Http2.ClientHttp2Session>((resume) => {
        const session = Http2.connect(url)
        session.on("error", () => {})
        session.once("remoteSettings", () => resume(Effect.succeed(session)))
      }),
      (session) => Effect.sync(() => session.destroy())
    )
    return { scope, server, session, url }
  })

const post = (session: Http2.ClientHttp2Session) =>
  session.request({ ":path": "/", ":method": "POST" }, { endStream: false }).setEncoding("utf8")

describe("a server of HTTP/2 that is closed", () => {
  it.live("does not wait for an idle session", () =>
    Effect.gen(function*() {
      const { scope } = yield* serveHttp2(Effect.succeed(HttpServerResponse.text("hello")))
      const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(duration), 2_000)
    }).pipe(Effect.orDie, LeakCheck.run))

  it.live("does not wait for a request that is not complete, nor for one that is not answered", () =>
    Effect.gen(function*() {
      const arrived = yield* Deferred.make<void>()
      const { scope, session } = yield* serveHttp2(
        Effect.flatMap(
          HttpServerRequest.HttpServerRequest,
          ({ text }) =>
            Effect.zipRight(
              Deferred.succeed(arrived, undefined),
              Effect.zipRight(text, Effect.interruptible(Effect.never))
            )
        ).pipe(
          Effect.orDie
        )
      )
      post(session).on("error", () => {}).write("half")
      yield* Deferred.await(arrived)
      const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(duration), 2_000)
    }).pipe(Effect.orDie, LeakCheck.run))

  it.live("gets the body of a request that no producer reads out of the way", () =>
    Effect.gen(function*() {
      const { scope, session } = yield* serveHttp2(EventStream.respond(() => Effect.never))
      const upload = post(session)
      yield* Effect.async<void>((resume) => void upload.once("data", () => resume(Effect.void)))
      yield* Effect.async<void>((resume) => void upload.end("x".repeat(4_000_000), () => resume(Effect.void)))
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.orDie, LeakCheck.run))

  it.live("has left nothing of streams that were reset", () =>
    Effect.gen(function*() {
      const open = yield* Ref.make(0)
      const { scope, session } = yield* serveHttp2(
        EventStream.respond(() =>
          Effect.acquireUseRelease(
            Ref.update(open, (n) => n + 1),
            () => Effect.never,
            () => Ref.update(open, (n) => n - 1)
          )
        )
      )
      for (let n = 0; n < 200; n++) {
        const stream = session.request({ ":path": "/" }).on("error", () => {})
        if (n % 2 === 0) yield* Effect.async<void>((resume) => void stream.once("data", () => resume(Effect.void)))
        stream.close(Http2.constants.NGHTTP2_CANCEL)
      }
      yield* Effect.repeat(Effect.delay(Ref.get(open), "5 millis"), { until: (n) => n === 0 })
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.orDie, LeakCheck.run))
})
