import { Buffer } from "node:buffer"
import { once } from "node:events"
import * as Http from "node:http"

import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import {
  Chunk,
  Deferred,
  Duration,
  Effect,
  FastCheck,
  Fiber,
  FiberId,
  Mailbox,
  Option,
  Stream,
  TestClock
} from "effect"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

interface Exchange {
  readonly request: Http.IncomingMessage
  readonly response: Http.ServerResponse
  /** Completes when the server observes that the client has disconnected. */
  readonly closed: Deferred.Deferred<void>
}

/** Makes a plain server. The test takes each request, and responds by itself. */
const makeServer = Effect.gen(function*() {
  const requests = yield* Mailbox.make<Exchange>()
  const server = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const server = Http.createServer((request, response) => {
        const closed = Deferred.unsafeMake<void>(FiberId.none)
        response.on("close", () => Deferred.unsafeDone(closed, Effect.void)).on("error", () => {})
        requests.unsafeOffer({ request, response, closed })
      }).listen(0, "127.0.0.1")
      await once(server, "listening")
      return server
    }),
    (server) =>
      Effect.async<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )
  const address = server.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  return { url: `http://127.0.0.1:${port}/events`, requests }
})

const head = { "content-type": "text/event-stream" }

/** Connects a client, and returns it with the server's end of the connection. */
const connect = (options?: Parameters<typeof TestEventSource.make>[1]) =>
  Effect.gen(function*() {
    const { requests, url } = yield* makeServer
    const opening = yield* Effect.fork(TestEventSource.make(url, options))
    const exchange = yield* requests.take
    exchange.response.writeHead(200, head).flushHeaders()
    return { requests, source: yield* Fiber.join(opening), url, ...exchange }
  })

/** Returns the events of a body that arrives in the pieces. */
const receive = (...pieces: ReadonlyArray<string | Uint8Array>) =>
  Effect.gen(function*() {
    const { response, source } = yield* connect()
    response.socket?.setNoDelay(true)
    for (const piece of pieces) {
      yield* Effect.async<void>((resume) => {
        response.write(piece, () => setImmediate(() => resume(Effect.void)))
      })
    }
    response.end()
    return { source, events: yield* TestEventSource.collect(source) }
  })

const message = (data: string, id = "", event = "message") => ({ event, data, id })

const checked = <A, E>(name: string, body: () => Effect.Effect<A, E, Scope.Scope>) =>
  it.effect(name, () => LeakCheck.run(body()))

describe("TestEventSource", () => {
  checked("exposes the head of the response, and sends the headers of the options", () =>
    Effect.gen(function*() {
      const { request, source } = yield* connect({ headers: { cookie: "session=1" } })
      assert.strictEqual(source.status, 200)
      assert.strictEqual(source.headers["content-type"], "text/event-stream")
      assert.strictEqual(request.headers.accept, "text/event-stream")
      assert.strictEqual(request.headers.cookie, "session=1")
      assert.isUndefined(request.headers["last-event-id"])
    }))

  describe("parses as EventSource does", () => {
    checked("frames in any pieces, with CR, LF and CRLF", () =>
      Effect.gen(function*() {
        const { events } = yield* receive(
          "data: a\n\ndata",
          ": b\r",
          "\n\r\nevent: c\rdata: 1\rda",
          "ta: 2\r\rdata: d\r\n\r",
          "\ndata: e\r",
          "\ndata: f\r\n\r\n"
        )
        assert.deepStrictEqual(events, [
          message("a"),
          message("b"),
          message("1\n2", "", "c"),
          message("d"),
          message("e\nf")
        ])
      }))

    checked("a UTF-8 sequence that is split, and malformed bytes", () =>
      Effect.gen(function*() {
        const bytes = Buffer.from("data: ü🌍\u2028x\n\n")
        const { events } = yield* receive(
          ...Array.from(bytes, (byte) => Uint8Array.of(byte)),
          Buffer.from("data: "),
          Uint8Array.of(0xff),
          "\n\n"
        )
        assert.deepStrictEqual(events, [message("ü🌍\u2028x"), message("\ufffd")])
      }))

    checked("an event that ends in a lone CR, at once", () =>
      Effect.gen(function*() {
        const { response, source } = yield* connect()
        response.write("data: now\r\r")
        assert.deepStrictEqual(yield* TestEventSource.next(source), message("now"))
        response.write("\ndata: then\r\r")
        assert.deepStrictEqual(yield* TestEventSource.next(source), message("then"))
      }))

    checked("one byte order mark, at the start only", () =>
      Effect.gen(function*() {
        const { events } = yield* receive("\ufeffdata: a\n\n", "\ufeffdata: b\n\n", "data: \ufeffc\n\n")
        assert.deepStrictEqual(events, [message("a"), message("\ufeffc")])
        assert.deepStrictEqual((yield* receive("ï»¿data: no\n\n")).events, [])
      }))

    checked("comments, retry, and fields that do not exist", () =>
      Effect.gen(function*() {
        const { events, source } = yield* receive(
          ":\n\n: beat\nretry: 250\nretry: 12x\nretry: -1\nretry\nfoo: bar\nData: x\ndata: a\n\n"
        )
        assert.deepStrictEqual(events, [message("a")])
        assert.deepStrictEqual(yield* TestEventSource.comments(source), ["", "beat"])
        assert.deepStrictEqual(yield* TestEventSource.retry(source), Duration.millis(250))
      }))

    checked("data that is empty, spaced, without a colon, or none", () =>
      Effect.gen(function*() {
        const { events } = yield* receive(
          "data:\n\ndata\n\ndata\ndata\n\ndata:  a \n\nevent: b\n\ndata: c\n\nevent:\ndata: d\n\n"
        )
        assert.deepStrictEqual(events, ["", "", "\n", " a ", "c", "d"].map((data) => message(data)))
      }))

    checked("ids: retained, replaced, set without data, reset, and ignored with a NUL", () =>
      Effect.gen(function*() {
        const { events, source } = yield* receive(
          "data: none\n\nid: 1\ndata: one\n\ndata: kept\n\nid: 2\n\ndata: set\n\nid: 3\0\ndata: nul\n\nid\ndata: reset\n\n",
          "id: 4\ndata: four\n\nid: 5\ndata: never ended"
        )
        assert.deepStrictEqual(events, [
          message("none"),
          message("one", "1"),
          message("kept", "1"),
          message("set", "2"),
          message("nul", "2"),
          message("reset"),
          message("four", "4")
        ])
        assert.strictEqual(yield* TestEventSource.lastEventId(source), "4")
      }))

    it.effect.prop(
      "the same from any cut of the bytes",
      {
        lines: FastCheck.array(
          FastCheck.constantFrom(
            "data: ä",
            "data:",
            "data",
            "id: 1",
            "id",
            "id: \0",
            "event: e",
            ": c",
            "",
            "",
            "x\u2028"
          ),
          { maxLength: 12 }
        ),
        ends: FastCheck.infiniteStream(FastCheck.constantFrom("\n", "\r", "\r\n")),
        cut: FastCheck.nat(60)
      },
      ({ cut, ends, lines }) =>
        Effect.gen(function*() {
          const body = lines.map((line) => line + ends.next().value).join("")
          const bytes = Buffer.from(body)
          const plain = yield* receive(body.replaceAll(/\r\n?/g, "\n"))
          const { events, source } = yield* receive(bytes.subarray(0, cut), bytes.subarray(cut))
          assert.deepStrictEqual(events, plain.events)
          assert.strictEqual(
            yield* TestEventSource.lastEventId(source),
            yield* TestEventSource.lastEventId(plain.source)
          )
        }).pipe(Effect.scoped),
      { fastCheck: { numRuns: 50 } }
    )

    checked("nothing of a response that is no event stream", () =>
      Effect.gen(function*() {
        const { requests, url } = yield* makeServer
        const opening = yield* Effect.fork(TestEventSource.make(url))
        const { response } = yield* requests.take
        response.writeHead(503, head).end("data: busy\n\n")
        const source = yield* Fiber.join(opening)
        assert.strictEqual(source.status, 503)
        assert.deepStrictEqual(yield* TestEventSource.collect(source), [])
        assert.strictEqual(yield* TestEventSource.text(source), "data: busy\n\n")
        const error = yield* Effect.flip(TestEventSource.reconnect(source))
        assert.strictEqual(error.reason, "NotEventStream")
      }))
  })

  describe("returns events", () => {
    checked("one, some, the one that matches, and all", () =>
      Effect.gen(function*() {
        const { source } = yield* receive()
        assert.strictEqual((yield* Effect.flip(TestEventSource.next(source))).reason, "Ended")
        const sending = yield* connect()
        sending.response.end(Array.from({ length: 8 }, (_, i) => `data: ${i}\n\n`).join(""))
        const data = (events: ReadonlyArray<TestEventSource.Event>) => events.map((event) => event.data)
        assert.strictEqual((yield* TestEventSource.next(sending.source)).data, "0")
        assert.deepStrictEqual(data(yield* TestEventSource.take(sending.source, 2)), ["1", "2"])
        assert.deepStrictEqual(data(yield* sending.source.pipe(TestEventSource.take(1))), ["3"])
        assert.strictEqual((yield* TestEventSource.find(sending.source, (event) => event.data === "5")).data, "5")
        const rest = yield* Stream.runCollect(TestEventSource.events(sending.source))
        assert.deepStrictEqual(data(Chunk.toReadonlyArray(rest)), ["6", "7"])
        assert.strictEqual((yield* Effect.flip(TestEventSource.take(sending.source, 1))).reason, "Ended")
        assert.deepStrictEqual(yield* TestEventSource.collect(sending.source), [])
      }))

    checked("and waits for text that is no event yet", () =>
      Effect.gen(function*() {
        const { response, source } = yield* connect()
        const waiting = yield* Effect.fork(TestEventSource.awaitText(source, (text) => text.endsWith("half")))
        response.write("data: ")
        yield* TestEventSource.awaitText(source, (text) => text !== "")
        assert.isNull(waiting.unsafePoll())
        response.write("half")
        assert.strictEqual(yield* Fiber.join(waiting), "data: half")
        const never = yield* Effect.fork(Effect.flip(TestEventSource.awaitText(source, () => false)))
        response.end()
        assert.strictEqual((yield* Fiber.join(never)).reason, "Ended")
      }))
  })

  describe("returns how a connection ended", () => {
    checked("clean", () =>
      Effect.gen(function*() {
        const { source } = yield* receive("data: a\n\n")
        assert.strictEqual(yield* TestEventSource.end(source), "clean")
      }))

    for (const cut of ["destroy", "resetAndDestroy"] as const) {
      checked(`truncated, by ${cut}`, () =>
        Effect.gen(function*() {
          const { response, source } = yield* connect()
          response.write("data: a\n\ndata: b")
          yield* TestEventSource.awaitText(source, (text) => text.endsWith("b"))
          response.socket?.[cut]()
          assert.strictEqual(yield* TestEventSource.end(source), "truncated")
          assert.deepStrictEqual(yield* TestEventSource.collect(source), [message("a")])
        }))
    }

    checked("dropped, and the server observes it", () =>
      Effect.gen(function*() {
        const { closed, request, source } = yield* connect()
        const reset = once(request.socket, "error")
        yield* TestEventSource.drop(source)
        assert.strictEqual(yield* TestEventSource.end(source), "dropped")
        yield* Deferred.await(closed)
        assert.strictEqual((yield* Effect.promise(() => reset))[0].code, "ECONNRESET")
      }))

    checked("dropped, when its scope closes", () =>
      Effect.gen(function*() {
        const { requests, url } = yield* makeServer
        const opening = yield* TestEventSource.make(url).pipe(Effect.scoped, Effect.fork)
        const { closed, response } = yield* requests.take
        response.writeHead(200, head).flushHeaders()
        assert.strictEqual(yield* TestEventSource.end(yield* Fiber.join(opening)), "dropped")
        yield* Deferred.await(closed)
      }))
  })

  describe("before the head", () => {
    checked("an interrupted client disconnects", () =>
      Effect.gen(function*() {
        const { requests, url } = yield* makeServer
        const opening = yield* Effect.fork(TestEventSource.make(url))
        const { closed } = yield* requests.take
        yield* Fiber.interrupt(opening)
        yield* Deferred.await(closed)
      }))

    checked("a client that is interrupted at once leaks nothing", () =>
      Effect.gen(function*() {
        const { url } = yield* makeServer
        yield* Effect.flatMap(Effect.fork(TestEventSource.make(url)), Fiber.interrupt)
        const opening = yield* Effect.fork(TestEventSource.make(url))
        yield* Effect.yieldNow()
        yield* Fiber.interrupt(opening)
      }))

    checked("no response is an error", () =>
      Effect.gen(function*() {
        const { requests, url } = yield* makeServer
        const opening = yield* Effect.fork(Effect.flip(TestEventSource.make(url)))
        const { response } = yield* requests.take
        response.socket?.destroy()
        assert.strictEqual((yield* Fiber.join(opening)).reason, "Connect")
        assert.strictEqual((yield* Effect.flip(TestEventSource.make("http://127.0.0.1:1/"))).reason, "Connect")
        assert.strictEqual((yield* Effect.flip(TestEventSource.make("no url"))).reason, "Connect")
      }))
  })

  checked("stalls, so that the server's socket fills, and resumes without loss", () =>
    Effect.gen(function*() {
      const { response, source } = yield* connect()
      yield* TestEventSource.stall(source)
      const frame = `data: ${"x".repeat(64 * 1024)}\n\n`
      const flushed = yield* Deferred.make<void>()
      let frames = 0
      let pending = 0
      // Writes until the socket accepts no more bytes.
      while (pending < 8 * 1024 * 1024) {
        response.write(frame)
        frames += 1
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        pending = response.writableLength
      }
      assert.isTrue(response.writableNeedDrain)
      assert.strictEqual(yield* TestEventSource.text(source), "")
      response.end(() => Deferred.unsafeDone(flushed, Effect.void))
      yield* TestEventSource.resume(source)
      assert.strictEqual((yield* TestEventSource.collect(source)).length, frames)
      yield* Deferred.await(flushed)
      assert.strictEqual(yield* TestEventSource.end(source), "clean")
    }))

  checked("a stalled client can be dropped", () =>
    Effect.gen(function*() {
      const { closed, response, source } = yield* connect()
      yield* TestEventSource.stall(source)
      response.write("x".repeat(32 * 1024 * 1024))
      yield* TestEventSource.drop(source)
      yield* Deferred.await(closed)
      assert.strictEqual(yield* TestEventSource.end(source), "dropped")
    }))

  describe("reconnects", () => {
    checked("after the retry, with the last event id in the encoding of a browser", () =>
      Effect.gen(function*() {
        const { requests, response, source } = yield* connect({ headers: { cookie: "session=1" } })
        response.end("retry: 10000\nid: a…b\n\n")
        yield* TestEventSource.end(source)
        const reconnecting = yield* Effect.fork(TestEventSource.reconnect(source))
        yield* TestClock.adjust("9999 millis")
        assert.deepStrictEqual(yield* requests.size, Option.some(0))
        yield* TestClock.adjust("1 millis")
        const next = yield* requests.take
        const header = next.request.headers["last-event-id"]
        assert.strictEqual(Buffer.from(String(header), "latin1").toString(), "a…b")
        assert.strictEqual(next.request.headers.cookie, "session=1")
        next.response.writeHead(200, head).end("data: again\n\n")
        const again = yield* Fiber.join(reconnecting)
        assert.deepStrictEqual(yield* TestEventSource.collect(again), [message("again", "a…b")])
        assert.deepStrictEqual(yield* TestEventSource.retry(again), Duration.seconds(10))
      }))

    checked(
      "without a header when there is no id, after three seconds when there is no retry",
      () =>
        Effect.gen(function*() {
          const { requests, source } = yield* connect()
          const reconnecting = yield* Effect.fork(TestEventSource.reconnect(source))
          yield* TestEventSource.drop(source)
          yield* TestEventSource.end(source)
          yield* TestClock.adjust("3 seconds")
          const { request, response } = yield* requests.take
          assert.isUndefined(request.headers["last-event-id"])
          response.writeHead(204).end()
          assert.strictEqual((yield* Fiber.join(reconnecting)).status, 204)
        })
    )
  })

  it.live("supports a thousand clients", () =>
    Effect.gen(function*() {
      const { requests, url } = yield* makeServer
      const clients = yield* Effect.fork(
        Effect.forEach(Array.from({ length: 1000 }), () => TestEventSource.make(url), { concurrency: 100 })
      )
      const responses = yield* Effect.replicateEffect(
        Effect.map(requests.take, ({ response }) => {
          response.writeHead(200, head).write("id: 1\ndata: a\n\n")
          return response
        }),
        1000
      )
      const sources = yield* Fiber.join(clients)
      yield* Effect.forEach(sources, TestEventSource.next)
      const half = sources.slice(500)
      yield* Effect.forEach(half, TestEventSource.drop)
      responses.forEach((response) => response.end())
      const ends = yield* Effect.forEach(sources, TestEventSource.end)
      assert.isTrue(ends.slice(500).every((end) => end === "dropped"))
    }).pipe(LeakCheck.run))
})
