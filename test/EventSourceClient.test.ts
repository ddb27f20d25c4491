import { assert, describe, it } from "@effect/vitest"
import { Cause, Chunk, Effect, Exit, Queue, Schedule, Schema, Stream, TestClock } from "effect"
import { EventSourceClient } from "effect-realtime/browser"
import * as Topic from "effect-realtime/Topic"

import { eventStreamCases } from "./support/eventStreamCases.js"
import * as ScriptedServer from "./support/scriptedServer.js"

const Counter = Topic.make("counter", {
  counter: Schema.Struct({ n: Schema.Int }),
  message: Schema.Unknown
})

const counter = (n: number) => `id: ${n}\nevent: counter\ndata: {"n":${n}}\n\n`

/** The data of the events, and the reasons of the errors, in their order. */
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

/** The events as they come, in a queue. */
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
  describe("reads as EventSource does", () => {
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
      [
        ScriptedServer.stream(
          `data: ${"x".repeat(1024 * 1024)}`,
          ..."x".repeat(17).split("").map(() => "x".repeat(1e6))
        ),
        "TooLarge"
      ]
    ] as const
  ) {
    it.scopedLive(`fails for good: ${reason}`, () =>
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([answer])
        const error = yield* Effect.flip(collect(server.url, atOnce))
        assert.strictEqual(error.reason, reason)
        assert.strictEqual(server.requests.length, 1)
      }))
  }

  it.scoped("waits as the schedule says while the server is away, and begins anew once it was there", () =>
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

  it.scoped("does not come back before Retry-After", () =>
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
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Queue.take(events), "open")
    }))

  it.scoped("fails with the last error when the schedule ends", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(503)])
      const error = yield* Effect.flip(collect(server.url, { reconnect: Schedule.stop }))
      assert.strictEqual(error.reason, "Unavailable")
      assert.strictEqual(error.status, 503)
    }))

  it.scoped("gives up a connection without heartbeats", () =>
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

  it.scopedLive("keeps a connection that nothing but heartbeats comes on", () =>
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

  it.scopedLive("posts a body, without being told the method", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(204)])
      yield* collect(server.url, { body: "query" })
      assert.strictEqual(server.requests[0]?.method, "POST")
    }))

  it.scopedLive("does not retry what cannot be sent", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(204)])
      const exit = yield* Effect.exit(collect(server.url, { headers: { "no header": "1" } }))
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
    }))

  it.scopedLive("tells gaps, resyncs and events that are not what the schema says, and goes on", () =>
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
        "InvalidData",
        8,
        "Ended"
      ])
    }))

  it.scopedLive("sends the method, the body, and headers that are made anew for each request", () =>
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
      assert.deepStrictEqual(Chunk.toReadonlyArray(events).at(1), { event: "counter", data: { n: 1 } })
    }))

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

  it.scopedLive("onEvent tells error why the client does not come back", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(404)])
      const error = yield* Effect.async<{ readonly reason: string }>((resume) => {
        EventSourceClient.onEvent(Counter, server.url, { error: (error) => resume(Effect.succeed(error)) })
      })
      assert.strictEqual(error.reason, "Rejected")
    }))
})
