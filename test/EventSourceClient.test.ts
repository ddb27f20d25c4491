import { assert, describe, it } from "@effect/vitest"
import { Cause, Chunk, Effect, Exit, Option, Queue, Random, Schedule, Schema, Stream, TestClock } from "effect"
import { EventSourceClient } from "effect-realtime/browser"
import * as Topic from "effect-realtime/Topic"

import { eventStreamCases } from "./support/eventStreamCases.js"
import * as ScriptedServer from "./support/scriptedServer.js"

const Counter = Topic.make("counter", {
  counter: Schema.Struct({ n: Schema.Int }),
  message: Schema.Unknown
})

const counter = (n: number) => `id: ${n}\nevent: counter\ndata: {"n":${n}}\n\n`

/** Returns the data of an event, or the reason of an error. */
const summary = (event: EventSourceClient.Event<typeof Counter.events>) =>
  event.event === "error"
    ? event.data.reason
    : event.event === "open"
    ? "open"
    : event.event === "counter"
    ? event.data.n
    : event.data

const atOnce = { reconnect: Schedule.spaced("5 millis") }

const collect = (url: string, options?: EventSourceClient.Options) =>
  EventSourceClient.make(Counter, url, options).pipe(
    Stream.map(summary),
    Stream.runCollect,
    Effect.map(Chunk.toReadonlyArray)
  )

/** Runs a client, and returns a queue of its events. */
const follow = (url: string, options?: EventSourceClient.Options) =>
  Effect.gen(function*() {
    const events = yield* Queue.unbounded<ReturnType<typeof summary>>()
    yield* EventSourceClient.make(Counter, url, options).pipe(
      Stream.runForEach((event) => Queue.offer(events, summary(event))),
      Effect.forkScoped
    )
    return events
  })

describe("EventSourceClient over fetch", () => {
  // Concurrently: after each stream the client waits for at least half a second.
  describe.concurrent("reads as EventSource does", () => {
    for (const { data, lastEventId, name, pieces } of eventStreamCases) {
      it.scopedLive(name, () =>
        Effect.gen(function*() {
          const server = yield* ScriptedServer.make([ScriptedServer.stream(...pieces), ScriptedServer.status(204)])
          const events = yield* collect(server.url, atOnce)
          assert.deepStrictEqual(events, ["open", ...data, "Ended"])
          assert.strictEqual(server.requests[1]?.lastEventId, lastEventId)
        }))
    }
  })

  it.scopedLive("follows redirects, and ends at 204", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.status(307, { location: "/elsewhere" }),
        ScriptedServer.stream(counter(1)),
        ScriptedServer.status(204)
      ])
      assert.deepStrictEqual(yield* collect(server.url, atOnce), ["open", 1, "Ended"])
      assert.deepStrictEqual(server.requests.map(({ url }) => url), ["/events", "/elsewhere", "/events"])
    }))

  for (
    const [answer, reason] of [
      [ScriptedServer.status(404), "Rejected"],
      [ScriptedServer.status(403), "Rejected"],
      [ScriptedServer.status(200, { "content-type": "text/event-streams" }), "NotEventStream"],
      [ScriptedServer.status(200, { "content-type": "text/html" }), "NotEventStream"],
      [ScriptedServer.status(200, { "content-type": "text/event-stream, text/html" }), "NotEventStream"],
      [ScriptedServer.status(200, { "content-type": "text/html;a=\", text/event-stream" }), "NotEventStream"],
      [ScriptedServer.status(200), "NotEventStream"],
      [ScriptedServer.stream(`data: ${"x".repeat(16 * 1024 * 1024)}\n`, "data: 1\n".repeat(10)), "TooLarge"],
      [
        ScriptedServer.stream(
          `data: ${"x".repeat(1024 * 1024)}`,
          ..."x".repeat(17).split("").map(() => "x".repeat(1e6))
        ),
        "TooLarge"
      ]
    ] as const
  ) {
    it.scopedLive(`does not reconnect after ${reason}`, () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([answer])
        const error = yield* Effect.flip(collect(server.url, atOnce))
        assert.strictEqual(error.reason, reason)
        assert.strictEqual(server.requests.length, 1)
      }))
  }

  it.scoped("waits by the schedule while the server is unavailable, and resets the schedule after an event", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.status(500),
        ScriptedServer.status(503),
        ScriptedServer.stream(counter(1)),
        ScriptedServer.status(502),
        ScriptedServer.hold()
      ])
      const events = yield* follow(server.url, { reconnect: Schedule.exponential("1 second") })
      assert.strictEqual(yield* Queue.take(events), "Unavailable")
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(server.requests.length, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Queue.take(events), "Unavailable")
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Queue.takeN(events, 3)), ["open", 1, "Ended"])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Queue.take(events), "Unavailable")
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* Queue.take(events), "open")
      assert.strictEqual(server.requests.at(-1)?.lastEventId, "1")
    }))

  it.scoped("does not reconnect before Retry-After", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.status(503, { "retry-after": "60" }),
        ScriptedServer.hold()
      ])
      const events = yield* follow(server.url)
      assert.strictEqual(yield* Queue.take(events), "Unavailable")
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(server.requests.length, 1)
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual(yield* Queue.take(events), "open")
    }))

  it.scoped("waits for the server's retry after a connection that was open", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.stream("retry: 5000\n\n"), ScriptedServer.hold()])
      const events = yield* follow(server.url)
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Queue.takeN(events, 2)), ["open", "Ended"])
      yield* TestClock.adjust("4999 millis")
      assert.strictEqual(server.requests.length, 1)
      yield* TestClock.adjust("1001 millis")
      assert.strictEqual(yield* Queue.take(events), "open")
    }))

  it.scoped("fails with the last error when the schedule ends", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(503)])
      const error = yield* Effect.flip(collect(server.url, { reconnect: Schedule.stop }))
      assert.strictEqual(error.reason, "Unavailable")
      assert.strictEqual(error.status, 503)
    }))

  it.scoped("replaces a connection without heartbeats", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.hold(counter(7)), ScriptedServer.hold()])
      const events = yield* follow(server.url, { ...atOnce, heartbeat: "15 seconds" })
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Queue.takeN(events, 2)), ["open", 7])
      yield* TestClock.adjust("29 seconds")
      assert.strictEqual(server.requests.length, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Queue.take(events), "Silent")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Queue.take(events), "open")
      assert.strictEqual(server.requests[1]?.lastEventId, "7")
    }))

  it.scopedLive("keeps a connection open that has only heartbeats", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([(response, request) => {
        ScriptedServer.hold()(response, request)
        let left = 25
        const timer = setInterval(() => response.write(left-- > 0 ? ":\n\n" : counter(1)), 100)
        response.on("close", () => clearInterval(timer))
      }])
      const events = yield* follow(server.url, { ...atOnce, heartbeat: "500 millis" })
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Queue.takeN(events, 2)), ["open", 1])
      assert.strictEqual(server.requests.length, 1)
    }))

  it.scopedLive("posts a body by default", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(204)])
      yield* collect(server.url, { body: "query" })
      assert.strictEqual(server.requests[0]?.method, "POST")
    }))

  it.scopedLive("does not retry an invalid request", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(204)])
      const exit = yield* Effect.exit(collect(server.url, { headers: { "no header": "1" } }))
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
    }))

  it.scopedLive("emits gaps, resyncs and errors for invalid events, and continues", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.stream(
          "event: gap\ndata: {\"dropped\":3}\n\n",
          "event: resync\ndata: {\"reason\":\"Evicted\"}\n\n",
          "event: counter\ndata: {\"n\":\"seven\"}\n\n",
          "event: counter\ndata: {\n\n",
          "event: other\ndata: 1\n\n",
          counter(8)
        ),
        ScriptedServer.status(204)
      ])
      assert.deepStrictEqual(yield* collect(server.url, atOnce), [
        "open",
        { dropped: 3 },
        { reason: "Evicted" },
        "InvalidData",
        "NotJson",
        8,
        "Ended"
      ])
    }))

  it.scopedLive("sends the method, the body, and fresh headers with each request", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.stream(), ScriptedServer.status(204)])
      let token = 0
      yield* collect(server.url, {
        ...atOnce,
        method: "POST",
        body: "query",
        headers: Effect.sync(() => ({ authorization: `Bearer ${++token}` }))
      })
      assert.deepStrictEqual(server.requests.map(({ headers }) => headers.authorization), ["Bearer 1", "Bearer 2"])
      assert.deepStrictEqual(server.requests.map(({ method }) => method), ["POST", "POST"])
      assert.strictEqual(yield* Effect.promise(async () => server.requests[1]?.body), "query")
    }))

  it.scopedLive("closes the connection with the scope", () =>
    Effect.gen(function*() {
      const closed = yield* Effect.makeLatch()
      const server = yield* ScriptedServer.make([(response, request) => {
        ScriptedServer.hold()(response, request)
        response.on("close", () => closed.unsafeOpen())
      }])
      yield* EventSourceClient.make(Counter, server.url).pipe(Stream.take(1), Stream.runDrain)
      yield* closed.await
    }))

  it.scopedLive("takes a record of schemas in place of a topic", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.hold(counter(1))])
      const events = yield* EventSourceClient.make({ counter: Schema.Struct({ n: Schema.Int }) }, server.url).pipe(
        Stream.take(2),
        Stream.runCollect
      )
      assert.deepStrictEqual(Chunk.toReadonlyArray(events).at(1), { event: "counter", data: { n: 1 }, id: "1" })
    }))

  describe("of several topics", () => {
    const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
    const News = Topic.make("news", { paid: Schema.String, headline: Schema.String })

    const read = <Topics extends readonly [Topic.Topic.Any, ...ReadonlyArray<Topic.Topic.Any>]>(
      topics: Topics,
      ...pieces: ReadonlyArray<string>
    ) =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([ScriptedServer.hold(`${pieces.join("")}event: end\ndata: {}\n\n`)])
        const events = yield* Stream.runCollect(EventSourceClient.stream(topics, server.url))
        return Chunk.toReadonlyArray(events).slice(1)
      })

    it.scopedLive("attributes each event to its topic and its channel", () =>
      Effect.gen(function*() {
        const events = yield* read(
          [Orders, News],
          "id: e.1\ndata: orders/4%2F2\nevent: paid\ndata: {\"amount\":5}\n\n",
          "id: e.2\ndata: news\nevent: paid\ndata: \"by the state\"\n\n",
          "id: e.3\ndata: orders/7\nevent: paid\ndata: {\"amount\":6}\n\n",
          "id: e.4\ndata: orders/7\nevent: headline\ndata: \"of no topic\"\n\n",
          "data: chat/1\nevent: headline\ndata: \"of another topic\"\n\n",
          "event: gap\ndata: {\"dropped\":3}\n\n"
        )
        assert.deepStrictEqual(events, [
          {
            topic: "orders/:orderId",
            channel: "orders/4%2F2",
            params: { orderId: "4/2" },
            event: "paid",
            data: { amount: 5 },
            id: "e.1"
          },
          { topic: "news", channel: "news", params: {}, event: "paid", data: "by the state", id: "e.2" },
          {
            topic: "orders/:orderId",
            channel: "orders/7",
            params: { orderId: "7" },
            event: "paid",
            data: { amount: 6 },
            id: "e.3"
          },
          { event: "gap", data: { dropped: 3 }, id: "e.4" }
        ])
      }))

    for (
      const [name, topics, data] of [
        ["of two topics", [News, Orders], "{\"amount\":5}"],
        ["of a topic with parameters", [Orders], "{\"amount\":5}"],
        ["whose JSON has several lines", [Orders], "{\ndata: \"amount\":5}"]
      ] as const
    ) {
      it.scopedLive(`emits UnknownChannel for an event without a channel ${name}`, () =>
        Effect.gen(function*() {
          const [event, ...others] = yield* read(topics, `event: paid\ndata: ${data}\n\n`)
          assert.isTrue(event?.event === "error" && event.data.reason === "UnknownChannel")
          assert.isTrue(event?.event === "error" && event.data.message.includes("attribution: \"on\""))
          assert.deepStrictEqual(others, [])
        }))
    }

    it.scopedLive("reads an event without a channel if the topic has a single one", () =>
      Effect.gen(function*() {
        const events = yield* read(
          [News],
          "event: headline\ndata: \"first\"\n\n",
          "event: headline\ndata: news\ndata: \"second\"\n\n"
        )
        assert.deepStrictEqual(
          events,
          ["first", "second"].map((data) => ({
            topic: "news",
            channel: "news",
            params: {},
            event: "headline",
            data,
            id: ""
          }))
        )
      }))

    it.scopedLive("reads text after its channel", () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.hold("event: headline\ndata: news\ndata: two\ndata: lines\n\nevent: end\ndata\n\n")
        ])
        const events = yield* Stream.runCollect(EventSourceClient.stream([News], server.url, { format: "text" }))
        assert.deepStrictEqual(Chunk.toReadonlyArray(Chunk.map(events, ({ data }) => data)), [undefined, "two\nlines"])
      }))

    it.scopedLive("of which `make` reads one, without the channel, and ignores the others", () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.hold([
            "event: paid\ndata: orders/42\ndata: {\"amount\":5}\n\n",
            "event: paid\ndata: news\ndata: \"by the state\"\n\n",
            "event: paid\ndata: {\ndata: \"amount\": 6}\n\n",
            "event: end\ndata: {}\n\n"
          ].join(""))
        ])
        const events = yield* Stream.runCollect(EventSourceClient.make(Orders, server.url))
        assert.deepStrictEqual(Chunk.toReadonlyArray(events).slice(1), [
          { event: "paid", data: { amount: 5 }, id: "" },
          { event: "paid", data: { amount: 6 }, id: "" }
        ])
      }))
  })

  // Kind: a header that proxies may have changed is parsed, not compared with a string.
  for (
    const contentType of [
      "text/event-stream, text/event-stream",
      ["text/event-stream", "text/event-stream"],
      "application/json, text/event-stream",
      "text/event-stream, */*",
      "text/event-stream, nonsense",
      "Text/Event-Stream ; Charset=\"latin1, or so\", ",
      " text/event-stream;charset=UTF-8"
    ]
  ) {
    it.scopedLive(`accepts as an event stream: ${String(contentType)}`, () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          (response) => {
            const lines = typeof contentType === "string" ? [contentType] : contentType
            response.writeHead(200, lines.flatMap((line) => ["content-type", line])).end(counter(1))
          },
          ScriptedServer.status(204)
        ])
        assert.deepStrictEqual(yield* collect(server.url, atOnce), ["open", 1, "Ended"])
      }))
  }

  // Kind: each header and query that is built from data of a server.
  for (
    const [name, id, isHeader] of [
      ["an id with a space before it", " 1", false],
      ["an id with a space after it", "1 ", false],
      ["an id with a space in it", "1 2", true],
      ["an id with a control character", "1\u00012", false],
      ["an id with DEL", "1\u007f", false],
      ["an id with a tab", "\t1\t", false],
      ["an id in the Latin alphabet", "é", true],
      ["an id of other characters", "✓ 😀", true],
      ["an id of 4,000 characters", "x".repeat(4_000), true]
    ] as const
  ) {
    it.scopedLive(`resumes after ${name}`, () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream(`id: ${id}\ndata: 1\n\n`),
          ScriptedServer.status(204)
        ])
        assert.deepStrictEqual(yield* collect(server.url, atOnce), ["open", 1, "Ended"])
        assert.strictEqual(server.requests[1]?.lastEventId, id)
        assert.strictEqual(server.requests[1]?.headers["last-event-id"] !== undefined, isHeader)
      }))
  }

  for (const length of [20_000, 200_000, 2_000_000]) {
    it.scopedLive(`emits resync after an id of ${length} characters, and resumes after the next`, () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream(`id: ${"x".repeat(length)}\ndata: 1\n\n`),
          ScriptedServer.stream("id: 2\ndata: 2\n\n"),
          ScriptedServer.status(204)
        ])
        const events = yield* collect(server.url, atOnce)
        assert.deepStrictEqual(events, ["open", 1, "Ended", "open", { reason: "Unsendable" }, 2, "Ended"])
        assert.deepStrictEqual(server.requests.map(({ lastEventId }) => lastEventId), [undefined, undefined, "2"])
      }))
  }

  it.scopedLive("repeats a request without the id that the server refuses as too large", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.stream(`id: ${"x".repeat(3_000)}\ndata: 1\n\n`),
        ScriptedServer.status(431),
        ScriptedServer.stream("data: 2\n\n"),
        ScriptedServer.status(431)
      ])
      const error = yield* Effect.flip(collect(server.url, atOnce))
      assert.strictEqual(error.reason, "Rejected")
      assert.deepStrictEqual(server.requests.map(({ lastEventId }) => lastEventId?.length), [
        undefined,
        3_000,
        undefined,
        undefined
      ])
    }))

  it.scopedLive("reconnects after 401 and 403 with new headers, and resumes", () =>
    Effect.gen(function*() {
      let token = 0
      const server = yield* ScriptedServer.make([
        ScriptedServer.status(401),
        ScriptedServer.stream(counter(7)),
        ScriptedServer.status(401),
        ScriptedServer.status(403),
        ScriptedServer.stream(counter(8)),
        ScriptedServer.status(204)
      ])
      const events = yield* collect(server.url, {
        ...atOnce,
        headers: Effect.sync(() => ({ authorization: `Bearer ${++token}` }))
      })
      assert.deepStrictEqual(
        events,
        ["Unauthorized", "open", 7, "Ended", "Unauthorized", "Unauthorized", "open", 8, "Ended"]
      )
      assert.deepStrictEqual(server.requests.map(({ lastEventId }) => lastEventId), [
        undefined,
        undefined,
        "7",
        "7",
        "7",
        "8"
      ])
      assert.strictEqual(server.requests[4]?.headers.authorization, "Bearer 5")
    }))

  it.scopedLive("fails with Unauthorized when the schedule ends", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(401)])
      const options = { headers: Effect.succeed({}), reconnect: Schedule.stop }
      const error = yield* Effect.flip(collect(server.url, options))
      assert.deepStrictEqual([error.reason, error.status], ["Unauthorized", 401])
    }))

  it.scopedLive("resumes after the id of the last event of any kind, when the stream runs again", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.stream(counter(7), "event: counter\ndata: {\"n\":8}\n\n", "id: 9\n\n"),
        ScriptedServer.status(401),
        ScriptedServer.status(204)
      ])
      const ids: Array<string> = []
      const error = yield* EventSourceClient.make(Counter, server.url, atOnce).pipe(
        Stream.runForEach(({ id }) => Effect.sync(() => ids.push(id))),
        Effect.flip
      )
      assert.strictEqual(error.reason, "Rejected")
      assert.deepStrictEqual(ids, ["", "7", "7", "9"])
      yield* collect(server.url, { lastEventId: ids.at(-1) })
      assert.strictEqual(server.requests[2]?.lastEventId, "9")
    }))

  it.scopedLive("onEvent passes the id to the handlers", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.hold(counter(7))])
      const id = yield* Effect.async<string>((resume) => {
        const close = EventSourceClient.onEvent(Counter, server.url, {
          counter: (_, id) => {
            resume(Effect.succeed(id))
            close()
          }
        })
      })
      assert.strictEqual(id, "7")
    }))

  // Kind: a counter that only progress may reset, not any response.
  it.scoped("increases the delay for a server that ends each stream at once", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.stream(), ScriptedServer.stream("id: 1\nretry: 0\n\n")])
      const events = yield* follow(server.url, { reconnect: Schedule.exponential("1 second") })
      for (const seconds of [1, 2, 4, 8]) {
        yield* Effect.repeat(Queue.take(events), { until: (event) => event === "Ended" })
        const { length } = server.requests
        yield* TestClock.adjust(`${seconds * 1000 - 1} millis`)
        assert.strictEqual(server.requests.length, length)
        yield* TestClock.adjust("1 millis")
      }
    }))

  it.scoped("resets the schedule after a connection that lasted, without an event", () =>
    Effect.gen(function*() {
      const opened = yield* Queue.unbounded<() => void>()
      const server = yield* ScriptedServer.make([(response, request) => {
        ScriptedServer.hold()(response, request)
        opened.unsafeOffer(() => response.end())
      }])
      const events = yield* follow(server.url, { reconnect: Schedule.exponential("1 second") })
      for (const lasts of ["0 seconds", "0 seconds", "5 seconds", "1 minute"] as const) {
        yield* Effect.repeat(Queue.take(events), { until: (event) => event === "open" })
        const end = yield* Queue.take(opened)
        yield* TestClock.adjust(lasts)
        end()
        yield* Effect.repeat(Queue.take(events), { until: (event) => event === "Ended" })
        const { length } = server.requests
        if (lasts === "0 seconds") yield* TestClock.adjust(`${length - 1} seconds`)
        yield* TestClock.adjust("999 millis")
        assert.strictEqual(server.requests.length, length)
        yield* TestClock.adjust("1 millis")
      }
    }))

  for (const [random, millis] of [[0, 500], [0.5, 550]] as const) {
    it.scoped(`waits for half a second and up to a fifth more if retry is 0: ${millis} ms`, () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream("retry: 0\n", counter(1)),
          ScriptedServer.hold()
        ])
        const events = yield* follow(server.url)
        yield* Effect.repeat(Queue.take(events), { until: (event) => event === "Ended" })
        yield* TestClock.adjust(`${millis - 1} millis`)
        assert.strictEqual(server.requests.length, 1)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* Queue.take(events), "open")
      }).pipe(Effect.withRandom(Random.fixed([random]))))
  }

  it.scoped("limits Retry-After to an hour", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.status(503, { "retry-after": "99999999999999999999" }),
        ScriptedServer.status(429, { "retry-after": "Fri, 31 Dec 9999 23:59:59 GMT" }),
        ScriptedServer.hold()
      ])
      const events = yield* follow(server.url)
      for (const requests of [1, 2]) {
        assert.strictEqual(yield* Queue.take(events), "Unavailable")
        yield* TestClock.adjust("59 minutes")
        assert.strictEqual(server.requests.length, requests)
        yield* TestClock.adjust("1 minute")
      }
      assert.strictEqual(yield* Queue.take(events), "open")
    }))

  it.scoped("limits retry to an hour and its jitter of a fifth", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.stream("retry: 99999999999999999999\n", counter(1)),
        ScriptedServer.hold()
      ])
      const events = yield* follow(server.url)
      yield* Effect.repeat(Queue.take(events), { until: (event) => event === "Ended" })
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual(server.requests.length, 1)
      yield* TestClock.adjust("13 minutes")
      assert.strictEqual(yield* Queue.take(events), "open")
    }))

  it.scoped("compares a date in Retry-After with the server's Date", () =>
    Effect.gen(function*() {
      const date = "Thu, 26 Nov 2026 10:00:00 GMT"
      const server = yield* ScriptedServer.make([
        ScriptedServer.status(503, { date, "retry-after": "Thu, 26 Nov 2026 10:01:00 GMT" }),
        ScriptedServer.hold()
      ])
      const events = yield* follow(server.url)
      assert.strictEqual(yield* Queue.take(events), "Unavailable")
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(server.requests.length, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Queue.take(events), "open")
    }))

  it.scopedLive("emits resync after a reconnect to a server without ids, and not to one with ids", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.status(503, { "retry-after": "0" }),
        ScriptedServer.stream("data: 1\n\n"),
        ScriptedServer.stream("id: 1\ndata: 2\n\n"),
        ScriptedServer.stream("id\ndata: 3\n\n"),
        ScriptedServer.stream("id: 4\n\n"),
        ScriptedServer.status(204)
      ])
      const resync = { reason: "NoIds" }
      assert.deepStrictEqual(yield* collect(server.url, atOnce), [
        "Unavailable",
        ...["open", 1, "Ended"],
        ...["open", resync, 2, "Ended"],
        ...["open", 3, "Ended"],
        ...["open", resync, "Ended"]
      ])
    }))

  it.scopedLive("decodes an unknown reason of a resync as Unknown", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.stream("event: resync\ndata: {\"reason\":\"Tomorrow\"}\n\n"),
        ScriptedServer.status(204)
      ])
      assert.deepStrictEqual(yield* collect(server.url, atOnce), ["open", { reason: "Unknown" }, "Ended"])
    }))

  it.scopedLive("reads data that is not JSON, and empty data, as text", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.stream(
          "data: [DONE]\n\n",
          "data\n\n",
          "data: {\ndata:\n\n",
          "event: number\ndata: 42\n\n",
          "event: number\ndata: x\n\n",
          "event: gap\ndata: {\"dropped\":3}\n\n"
        ),
        ScriptedServer.status(204)
      ])
      const events = yield* EventSourceClient.make(
        { message: Schema.String, number: Schema.NumberFromString },
        server.url,
        { ...atOnce, format: "text" }
      ).pipe(
        Stream.map((event) => event.event === "error" ? event.data.reason : event.data),
        Stream.runCollect
      )
      assert.deepStrictEqual(Chunk.toReadonlyArray(events), [
        undefined,
        "[DONE]",
        "",
        "{\n",
        42,
        "InvalidData",
        { dropped: 3 },
        "Ended"
      ])
    }))

  // Kind: each callback of the user that throws.
  it.scopedLive("emits an error for an event whose schema throws, and continues", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.stream(counter(1), counter(2)),
        ScriptedServer.status(204)
      ])
      const Odd = Schema.transform(Schema.Struct({ n: Schema.Int }), Schema.Int, {
        strict: true,
        decode: ({ n }) => {
          if (n === 1) throw new Error("odd")
          return n
        },
        encode: (n) => ({ n })
      })
      const events = yield* EventSourceClient.make({ counter: Odd }, server.url, atOnce).pipe(
        Stream.map((event) => event.event === "error" ? event.data.reason : event.data),
        Stream.runCollect
      )
      assert.deepStrictEqual(Chunk.toReadonlyArray(events), [undefined, "InvalidData", 2, "Ended"])
    }))

  it.scopedLive("ends at the event end", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.hold(`${counter(1)}event: end\ndata: {}\n\n${counter(2)}`)
      ])
      assert.deepStrictEqual(yield* collect(server.url, atOnce), ["open", 1])
    }))

  // Kind: a line that takes effect at its end, without an empty line after it.
  it.scoped("applies retry without an empty line, as in the response of a full server", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.stream(":\n", "retry: 60000\n"), ScriptedServer.hold()])
      const events = yield* follow(server.url)
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Queue.takeN(events, 2)), ["open", "Ended"])
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(server.requests.length, 1)
      yield* TestClock.adjust("13 seconds")
      assert.strictEqual(yield* Queue.take(events), "open")
    }))

  it.scoped("applies retry without an empty line at the end of its line, before the connection breaks", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([(response, request) => {
        ScriptedServer.hold(":\nretry: 60000\n")(response, request)
        setTimeout(() => response.socket?.destroy(), 300)
      }, ScriptedServer.hold()])
      const events = yield* follow(server.url)
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Queue.takeN(events, 2)), ["open", "Network"])
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(server.requests.length, 1)
      yield* TestClock.adjust("13 seconds")
      assert.strictEqual(yield* Queue.take(events), "open")
    }))

  it.scopedLive("reads an event after more comments than an event may have, without an empty line between them", () =>
    Effect.gen(function*() {
      const comments = Array<string>(17).fill(`:${"x".repeat(1022)}\n`.repeat(1024))
      const server = yield* ScriptedServer.make([
        ScriptedServer.stream(...comments, ":\n", counter(1)),
        ScriptedServer.status(204)
      ])
      assert.deepStrictEqual(yield* collect(server.url, atOnce), ["open", 1, "Ended"])
    }))

  for (
    const [name, options] of [
      ["a heartbeat of nothing", { heartbeat: 0 }],
      ["a negative heartbeat", { heartbeat: "-1 seconds" }],
      ["a heartbeat that is no number", { heartbeat: Number.NaN }],
      ["an empty key", { shared: "" }],
      ["headers without a key", { shared: true, headers: { authorization: "Bearer 1" } }],
      ["an invalid header", { headers: { "no header": "1" } }],
      ["a GET with a body", { method: "GET", body: "1" }]
    ] as const
  ) {
    it.scopedLive(`dies for ${name}`, () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([ScriptedServer.status(204)])
        const exit = yield* Effect.exit(collect(server.url, options))
        assert.isTrue(
          Exit.isFailure(exit) &&
            Cause.isIllegalArgumentException(Option.getOrUndefined(Cause.dieOption(exit.cause)))
        )
      }))
  }

  it.scopedLive("onEvent calls the handlers until it is closed", () =>
    Effect.gen(function*() {
      const closed = yield* Effect.makeLatch()
      const server = yield* ScriptedServer.make([(response, request) => {
        ScriptedServer.hold(counter(1))(response, request)
        response.on("close", () => closed.unsafeOpen())
      }])
      const seen = yield* Effect.async<number>((resume) => {
        const close = EventSourceClient.onEvent(Counter, server.url, {
          counter: ({ n }) => {
            resume(Effect.succeed(n))
            close()
          }
        })
      })
      assert.strictEqual(seen, 1)
      yield* closed.await
    }))

  it.scopedLive("onEvent calls error with the reason that is final", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(404)])
      const error = yield* Effect.async<{ readonly reason: string }>((resume) => {
        EventSourceClient.onEvent(Counter, server.url, { error: (error) => resume(Effect.succeed(error)) })
      })
      assert.strictEqual(error.reason, "Rejected")
    }))
})
