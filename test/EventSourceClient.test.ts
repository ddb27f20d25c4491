import { assert, describe, it } from "@effect/vitest"
import { Cause, Chunk, Effect, Exit, Option, Queue, Random, Schedule, Schema, Stream, TestClock } from "effect"
import { EventSourceClient } from "effect-realtime/browser"
import * as Topic from "effect-realtime/Topic"

import { eventSourceSuite } from "./EventSourceClient/suite.js"
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

eventSourceSuite("EventSourceClient", {
  run: (url, { headers, ...options }, onSeen) =>
    EventSourceClient.make(Counter, url, {
      ...options,
      headers: typeof headers === "function" ? Effect.sync(headers) : headers
    }).pipe(
      Stream.runForEach((event) => Effect.sync(() => onSeen(summary(event), event.id))),
      Effect.match({
        onFailure: ({ reason }) => onSeen(`failed ${reason}`, ""),
        onSuccess: () => onSeen("end", "")
      }),
      Effect.forkScoped
    ),
  adjust: (millis) => TestClock.adjust(millis),
  withRandom: (effect, random) => Effect.withRandom(effect, Random.fixed([random]))
})

describe("EventSourceClient over fetch", () => {
  it.scoped("fails with the last error when the schedule ends", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(503)])
      const error = yield* Effect.flip(collect(server.url, { reconnect: Schedule.stop }))
      assert.strictEqual(error.reason, "Unavailable")
      assert.strictEqual(error.status, 503)
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

  const broken = (...pieces: ReadonlyArray<string>): ScriptedServer.Answer => (response, request) => {
    ScriptedServer.hold(pieces.join(""))(response, request)
    setTimeout(() => response.socket?.destroy(), 100)
  }

  for (
    const [name, answers, seen, requests] of [
      ["after the end of its stream", [ScriptedServer.stream(counter(1))], ["open", 1], 1],
      ["after a connection that broke without an id", [broken("data: 1\n\n")], ["open", 1, "failed Network"], 1],
      ["after an error of the server", [ScriptedServer.status(500)], ["failed Unavailable"], 1],
      [
        "except after a refusal, and to resume after an id",
        [
          ScriptedServer.status(503, { "retry-after": "0" }),
          ScriptedServer.status(429, { "retry-after": "0" }),
          broken(counter(1)),
          ScriptedServer.stream(counter(2))
        ],
        ["Unavailable", "Unavailable", "open", 1, "Network", "open", 2],
        4
      ]
    ] as const
  ) {
    it.scopedLive(`does not repeat a POST ${name}`, () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([...answers, ScriptedServer.status(204)])
        const events = yield* EventSourceClient.make(Counter, server.url, { ...atOnce, body: "query" }).pipe(
          Stream.map(summary),
          Stream.catchAll(({ reason }) => Stream.succeed(`failed ${reason}`)),
          Stream.runCollect
        )
        assert.deepStrictEqual<unknown>(Chunk.toReadonlyArray(events), seen)
        assert.strictEqual(server.requests.length, requests)
        assert.strictEqual(server.requests[3]?.lastEventId, requests === 4 ? "1" : undefined)
      }))
  }

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

  it.scopedLive("reads empty data as undefined, and names the way to publish in the error of a plain string", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.hold("event: closed\ndata\n\nevent: counter\ndata: seven\n\nevent: end\ndata\n\n")
      ])
      const events = yield* EventSourceClient.make({ closed: Schema.Void, counter: Schema.Int }, server.url).pipe(
        Stream.map((event) => event.event === "error" ? event.data.message : event),
        Stream.runCollect
      )
      const [, closed, error] = Chunk.toReadonlyArray(events)
      assert.deepStrictEqual(closed, { event: "closed", data: undefined, id: "" })
      assert.isTrue(typeof error === "string" && error.includes("Topic.event"))
    }))

  it.scopedLive("sends the method, the body, and fresh headers with each request", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.stream(), ScriptedServer.status(204)])
      let token = 0
      yield* collect(server.url, {
        ...atOnce,
        method: "POST",
        body: "query",
        idempotent: true,
        headers: Effect.sync(() => ({ authorization: `Bearer ${++token}` }))
      })
      assert.deepStrictEqual(server.requests.map(({ headers }) => headers.authorization), ["Bearer 1", "Bearer 2"])
      assert.deepStrictEqual(server.requests.map(({ method }) => method), ["POST", "POST"])
      assert.strictEqual(yield* Effect.promise(async () => server.requests[1]?.body), "query")
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
          assert.isFalse(event?.event === "error" && event.data.isRetryable)
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

    it.scopedLive("of which `make` reads all with a record of schemas, without the channel", () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.hold([
            "event: paid\ndata: orders/42\ndata: {\"amount\":5}\n\n",
            "event: headline\ndata: news\ndata: \"hello\"\n\n",
            "event: paid\ndata: {\ndata: \"amount\": 6}\n\n",
            "event: end\ndata: {}\n\n"
          ].join(""))
        ])
        const schemas = { ...Orders.events, headline: Schema.String }
        const events = yield* Stream.runCollect(EventSourceClient.make(schemas, server.url))
        assert.deepStrictEqual(Chunk.toReadonlyArray(events).slice(1), [
          { event: "paid", data: { amount: 5 }, id: "" },
          { event: "headline", data: "hello", id: "" },
          { event: "paid", data: { amount: 6 }, id: "" }
        ])
      }))
  })

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
