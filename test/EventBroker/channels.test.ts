import type { HttpApp } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  DateTime,
  Deferred,
  Effect,
  Exit,
  Fiber,
  HashMap,
  Layer,
  Logger,
  Option,
  Schema,
  Scope,
  Stream,
  TestClock
} from "effect"
import { EventBroker, EventLog, EventStream, Topic } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

import { serveNode, serveWeb } from "../support/servers.js"

const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number, at: Schema.Date }) })
const News = Topic.make("news", { paid: Schema.String })
const order = (orderId: string) => Topic.channel(Orders, { orderId })
const news = Topic.channel(News, {})
const paid = (amount: number) => ({ amount, at: new Date(0) })

const run = <A, E>(body: Effect.Effect<A, E, EventBroker.EventBroker | Scope.Scope>, log?: EventLog.MemoryOptions) =>
  body.pipe(
    Effect.scoped,
    Effect.provide(EventBroker.layer.pipe(Layer.provide(EventLog.layerMemoryWith(log ?? {})))),
    LeakCheck.run
  )

/** Makes a broker over a log whose search is another. */
const makeSearching = (toSearch: (log: EventLog.EventLog.Service) => Pick<EventLog.EventLog.Service, "seek">) =>
  Effect.flatMap(
    EventLog.EventLog,
    (log) => Effect.provideService(EventBroker.make(), EventLog.EventLog, { ...log, ...toSearch(log) })
  )

const reconnect = (url: string, lastEventId: string) =>
  TestEventSource.make(url, { headers: { "last-event-id": lastEventId } })

for (const [server, serveOn] of [["Node's server", serveNode], ["a web handler", serveWeb]] as const) {
  const serve = <E>(app: HttpApp.Default<E, EventBroker.EventBroker | Scope.Scope>) =>
    Effect.flatMap(
      EventBroker.EventBroker,
      (broker) => serveOn(Effect.provideService(app, EventBroker.EventBroker, broker))
    )
  const connect = <E>(app: HttpApp.Default<E, EventBroker.EventBroker | Scope.Scope>) =>
    Effect.tap(
      Effect.flatMap(serve(app), TestEventSource.make),
      (source) => TestEventSource.awaitText(source, (text) => /^id: /m.test(text))
    )

  describe(`EventBroker on ${server}`, () => {
    describe("names the channel of each event in the first line of its data", () => {
      for (
        const [name, channels] of [
          ["of a pattern", Topic.pattern(Orders)],
          ["of several channels", [order("42"), news]],
          ["of a channel and a pattern", [Topic.pattern(Orders), news]]
        ] as const
      ) {
        it.effect(name, () =>
          run(Effect.gen(function*() {
            const source = yield* connect(EventBroker.respond(channels))
            yield* EventBroker.publish(order("42"), "paid", paid(5))
            const event = yield* TestEventSource.next(source)
            assert.strictEqual(event.event, "paid")
            assert.strictEqual(event.data, "orders/42\n{\"amount\":5,\"at\":\"1970-01-01T00:00:00.000Z\"}")
            yield* EventBroker.publish("orders/a%20b", { data: "two\nlines" })
            yield* EventBroker.publish(news, "paid", "the end")
          })))
      }

      it.effect("also where it is replayed, and not in the events of the library", () =>
        run(
          Effect.gen(function*() {
            const channels = [order("1"), news]
            const first = yield* EventBroker.publish(order("1"), "paid", paid(1))
            yield* EventBroker.publish(news, "paid", "hello")
            const url = yield* serve(EventBroker.respond(channels))
            const source = yield* reconnect(url, first)
            assert.strictEqual((yield* TestEventSource.next(source)).data, "news\n\"hello\"")
            yield* EventBroker.publish(order("1"), "paid", paid(2))
            yield* EventBroker.publish(order("1"), "paid", paid(3))
            const late = yield* reconnect(url, first)
            assert.deepInclude(yield* TestEventSource.next(late), { event: "resync", data: "{\"reason\":\"Evicted\"}" })
          }),
          { capacity: 1 }
        ))

      it.effect("unless exactly one channel was requested and granted, or the option says otherwise", () =>
        run(Effect.gen(function*() {
          const one = yield* connect(EventBroker.respond(order("1")))
          const off = yield* connect(EventBroker.respond(Topic.pattern(Orders), { attribution: "off" }))
          const on = yield* connect(EventBroker.respond(order("1"), { attribution: "on" }))
          const narrowed = yield* connect(EventBroker.respond(Topic.pattern(Orders), {
            authorize: () => Effect.succeed({ channels: [order("1")] })
          }))
          const widened = yield* connect(EventBroker.respond(order("1"), {
            authorize: () => Effect.succeed({ channels: [order("1"), "news"] })
          }))
          yield* EventBroker.publish("orders/1", { data: "x" })
          for (const source of [one, off]) assert.strictEqual((yield* TestEventSource.next(source)).data, "x")
          for (const source of [on, narrowed, widened]) {
            assert.strictEqual((yield* TestEventSource.next(source)).data, "orders/1\nx")
          }
        })))

      it.effect("also in a snapshot", () =>
        run(Effect.gen(function*() {
          const source = yield* connect(EventBroker.respond([order("1"), news], {
            snapshot: () =>
              Effect.succeed({ events: [{ event: "paid", data: 1, channel: order("1") }, { data: "no channel" }] })
          }))
          const [named, plain] = yield* TestEventSource.take(source, 2)
          assert.strictEqual(named?.data, "orders/1\n1")
          assert.strictEqual(plain?.data, "\nno channel")
        })))
    })

    describe("ends a channel that is complete", () => {
      it.effect("after the rest and the event end, and answers 204 to a reconnect and to a late client", () =>
        run(Effect.gen(function*() {
          const url = yield* serve(EventBroker.respond(order("1")))
          const source = yield* TestEventSource.make(url)
          yield* TestEventSource.awaitText(source, (text) => /^id: /m.test(text))
          const first = yield* EventBroker.publish(order("1"), "paid", paid(1))
          yield* EventBroker.complete(order("1"))
          assert.deepStrictEqual((yield* TestEventSource.collect(source)).map(({ event }) => event), ["paid", "end"])
          assert.strictEqual(yield* TestEventSource.end(source), "clean")
          const lastEventId = yield* TestEventSource.lastEventId(source)
          assert.strictEqual((yield* reconnect(url, lastEventId)).status, 204)
          assert.strictEqual((yield* TestEventSource.make(url)).status, 204)
          // A client that has not received all of it receives the rest.
          const behind = yield* reconnect(url, first)
          assert.deepStrictEqual((yield* TestEventSource.collect(behind)).map(({ event }) => event), ["end"])
          assert.strictEqual(yield* EventBroker.subscriberCount(order("1")), 0)
        })))

      it.effect("until an event is published to it again", () =>
        run(Effect.gen(function*() {
          const url = yield* serve(EventBroker.respond(order("1")))
          yield* EventBroker.complete(order("1"))
          assert.strictEqual((yield* TestEventSource.make(url)).status, 204)
          yield* EventBroker.publish(order("1"), "paid", paid(1))
          assert.strictEqual((yield* TestEventSource.make(url)).status, 200)
        })))

      it.effect("on a connection with several channels with the last of them, and never with a pattern", () =>
        run(Effect.gen(function*() {
          const both = yield* connect(EventBroker.respond([order("1"), news]))
          const pattern = yield* connect(EventBroker.respond([order("1"), Topic.pattern(Orders)]))
          yield* EventBroker.complete(order("1"))
          yield* EventBroker.publish(news, "paid", "still open")
          assert.strictEqual((yield* TestEventSource.next(both)).data, "news\n\"still open\"")
          yield* EventBroker.complete(news)
          assert.deepInclude(yield* TestEventSource.next(both), { event: "end" })
          assert.strictEqual(yield* TestEventSource.end(both), "clean")
          yield* EventBroker.publish(order("2"), "paid", paid(2))
          assert.include((yield* TestEventSource.next(pattern)).data, "orders/2\n")
          // One channel has ended before the cursor of the client, the other one after it.
          const url = yield* serve(EventBroker.respond([order("1"), news]))
          assert.strictEqual((yield* TestEventSource.make(url)).status, 204)
        })))

      it.effect("but not a connection one of whose channels was opened again with an event for others", () =>
        run(Effect.gen(function*() {
          const first = yield* EventBroker.publish(news, "paid", "first")
          const app = EventBroker.respond([order("1"), news], { owner: "anna" })
          const live = yield* connect(app)
          yield* EventBroker.complete(order("1"))
          yield* EventBroker.publish(order("1"), "paid", paid(1), { except: "anna" })
          yield* EventBroker.complete(news)
          const replayed = yield* reconnect(yield* serve(app), first)
          yield* EventBroker.publish(order("1"), "paid", paid(2))
          for (const source of [live, replayed]) {
            assert.include((yield* TestEventSource.next(source)).data, "\"amount\":2")
          }
        })))

      it.effect("with the last event, also where it is replayed: a reader gets beyond an end in the middle", () =>
        run(Effect.gen(function*() {
          const first = yield* EventBroker.publish(news, "paid", "first")
          yield* EventBroker.complete(news)
          yield* EventBroker.publish(news, "paid", "again")
          const source = yield* reconnect(yield* serve(EventBroker.respond(news)), first)
          assert.strictEqual((yield* TestEventSource.next(source)).data, "\"again\"")
          yield* EventBroker.complete(news)
          assert.deepInclude(yield* TestEventSource.next(source), { event: "end" })
        })))

      it.effect("for a client that is told to reload, too", () =>
        run(Effect.gen(function*() {
          yield* EventBroker.complete(order("1"))
          const url = yield* serve(EventBroker.respond(order("1")))
          const source = yield* reconnect(url, "other.1")
          assert.deepStrictEqual(
            (yield* TestEventSource.collect(source)).map(({ event }) => event),
            ["resync", "end"]
          )
        })))
    })

    describe("adds the headers of the options to every answer", () => {
      const headers = { "access-control-allow-origin": "https://example.com" }
      const open = EventBroker.respond("open", { headers })
      const cases: ReadonlyArray<
        readonly [
          name: string,
          status: number,
          app: HttpApp.Default<never, EventBroker.EventBroker | Scope.Scope>,
          request: RequestInit
        ]
      > = [
        ["an open channel", 200, open, {}],
        ["HEAD of an open channel", 200, open, { method: "HEAD" }],
        ["an ended channel", 204, EventBroker.respond("done", { headers }), {}],
        ["HEAD of an ended channel", 204, EventBroker.respond("done", { headers }), { method: "HEAD" }],
        ["an illegal channel", 400, EventBroker.respond("a/*", { headers }), {}],
        [
          "an illegal grant",
          400,
          EventBroker.respond("a", { headers, authorize: () => Effect.succeed({ channels: ["a/*"] }) }),
          {}
        ],
        [
          "no grant",
          403,
          EventBroker.respond("a", { headers, authorize: () => Effect.succeed({ channels: [] }) }),
          {}
        ],
        ["a limit", 200, EventBroker.respond("a", { headers, owner: "anna" }), {}],
        [
          "a limit, for a client that reads no event stream",
          503,
          EventBroker.respond("a", { headers, owner: "anna" }),
          { headers: { accept: "text/html" } }
        ],
        ["a limit, for an ended channel", 204, EventBroker.respond("done", { headers, owner: "anna" }), {}]
      ]
      const answer = (app: typeof open, request: RequestInit) =>
        Effect.flatMap(serve(app), (url) =>
          Effect.promise(async (signal) => {
            const response = await fetch(url, { ...request, signal })
            await response.body?.cancel()
            return [response.status, response.headers.get("access-control-allow-origin")]
          }))
      it.effect("of each status", () =>
        Effect.gen(function*() {
          yield* EventBroker.complete("done")
          yield* EventBroker.subscribe("a", { owner: "anna" })
          for (const [name, status, app, request] of cases) {
            assert.deepStrictEqual(yield* answer(app, request), [status, "https://example.com"], name)
          }
          const draining = yield* Effect.fork(EventBroker.drain)
          yield* TestClock.adjust("1 second")
          yield* Fiber.join(draining)
          const drained = [
            ["a drain", 200, open, {}],
            ["a drain", 503, open, { headers: { accept: "text/html" } }]
          ] as const
          for (const [name, status, app, request] of drained) {
            assert.deepStrictEqual(yield* answer(app, request), [status, "https://example.com"], name)
          }
        }).pipe(
          Effect.scoped,
          Effect.provide(
            EventBroker.layerWith({ maxConnectionsPerOwner: 1 }).pipe(Layer.provide(EventLog.layerMemory))
          ),
          LeakCheck.run
        ))
    })

    it.effect("does not send an event to the owner that it excepts, also where it is replayed", () =>
      run(Effect.gen(function*() {
        const [anna, bob] = yield* Effect.all([
          connect(EventBroker.respond("chat", { owner: "anna" })),
          connect(EventBroker.respond("chat", { owner: "bob" }))
        ])
        const first = yield* EventBroker.publish("chat", { data: "0" })
        yield* EventBroker.publish("chat", { data: "by anna" }, { except: "anna" })
        yield* EventBroker.publish("chat", { data: "by \"ann\"" }, { except: "\"ann\"\n\uD800" })
        const dataOf = Effect.fnUntraced(function*(source: TestEventSource.TestEventSource, count: number) {
          return (yield* TestEventSource.take(source, count)).map(({ data }) => data)
        })
        assert.deepStrictEqual(yield* dataOf(anna, 2), ["0", "by \"ann\""])
        assert.deepStrictEqual(yield* dataOf(bob, 3), ["0", "by anna", "by \"ann\""])
        const url = yield* serve(EventBroker.respond("chat", { owner: "anna" }))
        assert.deepStrictEqual(yield* dataOf(yield* reconnect(url, first), 1), [
          "by \"ann\""
        ])
      })))

    it.effect("resumes after the id of the request, and begins a new client where the options say", () =>
      run(Effect.gen(function*() {
        const first = yield* EventBroker.publish("a", { data: "1" })
        const second = yield* EventBroker.publish("a", { data: "2" })
        yield* EventBroker.publish("a", { data: "3" })
        const url = yield* serve(EventBroker.respond("a", { lastEventId: first }))
        assert.strictEqual((yield* TestEventSource.next(yield* TestEventSource.make(url))).data, "2")
        const resumed = yield* reconnect(url, second)
        assert.strictEqual((yield* TestEventSource.next(resumed)).data, "3")
        const fromStart = yield* serve(EventBroker.respond("a", { from: "beginning" }))
        assert.strictEqual((yield* TestEventSource.next(yield* TestEventSource.make(fromStart))).data, "1")
        const again = yield* reconnect(fromStart, second)
        assert.strictEqual((yield* TestEventSource.next(again)).data, "3")
        const fromLast = yield* serve(EventBroker.respond("a", { from: { last: 2 } }))
        assert.strictEqual((yield* TestEventSource.next(yield* TestEventSource.make(fromLast))).data, "2")
        assert.strictEqual((yield* TestEventSource.next(yield* reconnect(fromLast, second))).data, "3")
        // A client that was cut off before its first event resumes: the events since then are more than one.
        const none = yield* serve(EventBroker.respond("b", { from: { last: 1 } }))
        const cursor = yield* TestEventSource.make(none)
        yield* EventBroker.publish("b", { data: "1" })
        yield* TestEventSource.next(cursor)
        assert.match(yield* TestEventSource.text(cursor), /id: \S+\.3\n\n/)
      })))
  })
}

describe("EventBroker with local consumers and forgotten channels", () => {
  it.effect("begins at the earliest place after which the log has everything", () =>
    run(
      Effect.gen(function*() {
        yield* EventBroker.publish("old", { data: "forgotten" })
        yield* TestClock.adjust("2 minutes")
        for (let n = 0; n < 12; n++) yield* EventBroker.publish("answers/7", { data: String(n) })
        const found = yield* Stream.runCollect(Stream.take(EventBroker.stream("answers/7", { from: "beginning" }), 10))
        assert.deepStrictEqual(
          Array.from(found, ({ data }) => data),
          Array.from({ length: 10 }, (_, n) => String(n + 2))
        )
        yield* EventBroker.complete("answers/7")
        const all = yield* Stream.runCollect(
          EventBroker.stream(["answers/7", "old"], { from: "beginning" }).pipe(Stream.take(9))
        )
        assert.deepStrictEqual(Array.from(all, ({ data }) => data)[0], "3")
      }),
      { capacity: 10, maxAge: "1 minute" }
    ))

  it.effect("begins with the last events, or with those since a time", () =>
    run(Effect.gen(function*() {
      const found = (from: EventBroker.From, count: number) =>
        EventBroker.stream(["a", Topic.pattern(Orders)], { from }).pipe(
          Stream.take(count),
          Stream.runCollect,
          Effect.map((messages) => Array.from(messages, ({ channel }) => channel))
        )
      yield* EventBroker.publish("a", { data: "1" })
      yield* EventBroker.publish(order("1"), "paid", paid(1))
      yield* EventBroker.publish("other", { data: "2" })
      yield* TestClock.adjust("1 minute")
      const since = yield* DateTime.now
      yield* EventBroker.publish(order("2"), "paid", paid(2))
      yield* EventBroker.publish("a", { data: "3" })
      assert.deepStrictEqual(yield* found({ last: 3 }, 3), ["orders/1", "orders/2", "a"])
      assert.deepStrictEqual(yield* found({ last: 100 }, 4), ["a", "orders/1", "orders/2", "a"])
      assert.deepStrictEqual(yield* found({ since }, 2), ["orders/2", "a"])
      assert.deepStrictEqual(yield* found({ since, last: 1 }, 1), ["a"])
      assert.deepStrictEqual(yield* found({ since: DateTime.unsafeMake(0) }, 4), yield* found("beginning", 4))
      const late = yield* Effect.fork(found({ since: DateTime.add(since, { days: 1 }) }, 1))
      yield* Effect.repeatN(Effect.yieldNow(), 100)
      yield* EventBroker.publish(order("3"), "paid", paid(3))
      assert.deepStrictEqual(yield* Fiber.join(late), ["orders/3"])
    })))

  it.effect("sends no resync to a new client for an event that is evicted while the client begins", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const evicting = EventLog.make({
        ...log,
        seek: (channels, bounds) =>
          Effect.zipLeft(
            log.seek(channels, bounds),
            searches++ < 2 ? log.append("a", new TextEncoder().encode(`data: ${searches}\n\n`)) : Effect.void
          )
      })
      let searches = 0
      const broker = yield* Effect.provideService(EventBroker.make(), EventLog.EventLog, evicting)
      yield* broker.publish("a", { data: "first" })
      yield* broker.publish("a", { data: "second" })
      const found = yield* Stream.runCollect(Stream.take(broker.stream("a", { from: "beginning" }), 2))
      assert.deepStrictEqual(Array.from(found, ({ data, event }) => [event, data]), [["message", "1"], [
        "message",
        "2"
      ]])
      assert.strictEqual(searches, 3)
    }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemoryWith({ capacity: 2 }))))

  it.effect("resumes after the last search a new client that was cut off before its first event", () =>
    Effect.gen(function*() {
      let searches = 0
      const broker = yield* makeSearching((log) => ({
        seek: (channels, bounds) =>
          Effect.zipLeft(
            log.seek(channels, bounds),
            searches++ === 0 ? log.append("a", new TextEncoder().encode("data: third\n\n")) : Effect.void
          )
      }))
      yield* broker.publish("a", { data: "first" })
      yield* broker.publish("a", { data: "second" })
      const url = yield* serveNode(
        Effect.provideService(EventBroker.respond("a", { from: "beginning" }), EventBroker.EventBroker, broker)
      )
      const source = yield* TestEventSource.make(url)
      const text = yield* TestEventSource.awaitText(source, (text) => text.includes("second"))
      const cursors = Array.from(text.slice(0, text.indexOf("data: second")).matchAll(/^id: (\S+\.1)$/gm))
      const again = yield* reconnect(url, cursors[0]?.[1] ?? "")
      assert.strictEqual((yield* TestEventSource.next(again)).data, "second")
      assert.strictEqual(searches, 2)
    }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemoryWith({ capacity: 2 }))))

  it.effect("begins later with each search, without a resync, if the log evicts the first event each time", () =>
    Effect.gen(function*() {
      let searches = 0
      const broker = yield* makeSearching((log) => ({
        seek: (channels, bounds) =>
          Effect.tap(log.seek(channels, bounds), () => {
            searches++
            return log.append("a", new TextEncoder().encode("data: next\n\n"))
          })
      }))
      yield* broker.publish("a", { data: "first" })
      const found = yield* Stream.runHead(broker.stream("a", { from: "beginning" }))
      assert.deepInclude(Option.getOrThrow(found), { event: "message", data: "next" })
      assert.isAtMost(searches, 9)
    }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemoryWith({ capacity: 1 }))))

  it.effect("notices the end of a channel, or its next event, during a search", () =>
    Effect.gen(function*() {
      let meanwhile: Effect.Effect<unknown, unknown> = Effect.void
      for (const isBefore of [true, false]) {
        const broker = yield* makeSearching((log) => ({
          seek: (channels, bounds) =>
            isBefore
              ? Effect.zipRight(Effect.orDie(meanwhile), log.seek(channels, bounds))
              : Effect.zipLeft(log.seek(channels, bounds), Effect.orDie(meanwhile))
        }))
        const future = DateTime.add(yield* DateTime.now, { days: 1 })
        for (const from of [{ last: 0 }, { since: future }]) {
          const channel = `${isBefore}/${JSON.stringify(from)}`
          yield* broker.publish(channel, { data: "1" })
          meanwhile = broker.complete(channel)
          assert.strictEqual((yield* Stream.runCollect(broker.stream(channel, { from }))).length, 0)
          meanwhile = broker.publish(channel, { data: "again" })
          const consumer = yield* Effect.fork(
            Stream.runLast(Stream.take(broker.stream(channel, { from }), isBefore ? 1 : 2))
          )
          yield* Effect.repeatN(Effect.yieldNow(), 100)
          yield* broker.publish(channel, { data: "live" })
          assert.strictEqual(Option.getOrThrow(yield* Fiber.join(consumer)).data, "live")
        }
      }
    }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemory)), 10_000)

  it("refuses a place that cannot be where the route is built", () => {
    for (
      const from of [{ last: -1 }, { last: 0.5 }, { last: Number.NaN }, "end", null, { since: 5 }, [], new Date(0)]
    ) {
      const options: { readonly from: EventBroker.From } = JSON.parse("{}")
      Object.assign(options, { from })
      assert.throws(() => EventBroker.respond("a", options), Cause.IllegalArgumentException)
      assert.throws(() => EventBroker.subscribe("a", options), Cause.IllegalArgumentException)
      assert.throws(() => EventBroker.stream("a", options), Cause.IllegalArgumentException)
    }
  })

  it.effect("a local consumer occupies no connection and runs no hook", () =>
    Effect.gen(function*() {
      let joined = 0
      yield* Effect.gen(function*() {
        const consumer = yield* Effect.fork(Stream.runHead(EventBroker.stream("a", { from: "beginning" })))
        yield* Effect.repeatN(Effect.yieldNow(), 100)
        const client = yield* EventBroker.subscribe("a")
        assert.strictEqual(joined, 1)
        assert.isTrue(yield* EventStream.publish(client, { data: "open" }))
        yield* EventBroker.publish("a", { data: "x" })
        assert.strictEqual(Option.getOrThrow(yield* Fiber.join(consumer)).data, "x")
      }).pipe(
        Effect.scoped,
        Effect.provide(
          EventBroker.layerWith({ maxConnections: 1, onJoin: () => Effect.sync(() => joined++) }).pipe(
            Layer.provide(EventLog.layerMemory)
          )
        )
      )
    }))

  it.effect("moves the cursor of an owner past the events that except it, with the next heartbeat", () =>
    run(Effect.gen(function*() {
      const stream = yield* EventBroker.subscribe("chat", { owner: "anna", heartbeat: "10 seconds" })
      const text = yield* Effect.fork(
        EventStream.toStream(stream).pipe(
          Stream.decodeText(),
          Stream.scan("", (text, piece) => text + piece),
          Stream.filter((text) => text.includes(".1\n")),
          Stream.runHead
        )
      )
      yield* Effect.repeatN(Effect.yieldNow(), 100)
      assert.match(yield* EventBroker.publish("chat", { data: "mine" }, { except: "anna" }), /\.1$/)
      yield* Effect.repeatN(Effect.yieldNow(), 100)
      yield* TestClock.adjust("11 seconds")
      assert.notInclude(Option.getOrThrow(yield* Fiber.join(text)), "mine")
    })))
})

it.effect("EventBroker stores the events of a channel within the limits of the topic, in place of those of the log", () =>
  run(
    Effect.gen(function*() {
      const Answers = Topic.make("answers/:id", { token: Schema.Number }, {
        retention: { capacity: 20, maxAge: "1 day" }
      })
      const answer = Topic.channel(Answers, { id: "7" })
      for (let n = 0; n < 15; n++) yield* EventBroker.publish(answer, "token", n)
      yield* EventBroker.publishAll([
        EventBroker.event(answer, "token", 15),
        EventBroker.event("answers/7/plain", { data: "" })
      ])
      yield* EventBroker.complete(answer)
      yield* TestClock.adjust("23 hours")
      const found = yield* Stream.runCollect(EventBroker.stream(answer, { from: "beginning" }))
      assert.deepStrictEqual(
        Array.from(found, ({ data }) => data),
        Array.from({ length: 16 }, (_, n) => n)
      )
    }),
    { capacity: 5, maxAge: "1 minute" }
  ))

describe("EventBroker.stream", () => {
  it.effect("returns typed messages with their channel and parameters, and resumes after an id", () =>
    run(Effect.gen(function*() {
      yield* EventBroker.publish(order("4/2"), "paid", paid(5))
      const id = yield* EventBroker.publish(news, "paid", "hello")
      const plain = yield* EventBroker.publish("plain", { event: "any", data: "text\nof two lines" })
      const messages = EventBroker.stream([Topic.pattern(Orders), news, "plain"], { from: "beginning" })
      const [first, second, third] = yield* Stream.runCollect(Stream.take(messages, 3))
      assert.deepInclude(first, {
        topic: "orders/:orderId",
        params: { orderId: "4/2" },
        channel: "orders/4%2F2",
        event: "paid",
        data: paid(5)
      })
      assert.deepStrictEqual(second, { topic: "news", params: {}, channel: "news", event: "paid", data: "hello", id })
      assert.deepStrictEqual(third, { channel: "plain", event: "any", data: "text\nof two lines", id: plain })
      const rest = EventBroker.stream([Topic.pattern(Orders), news, "plain"], { lastEventId: id })
      assert.deepStrictEqual(Array.from(yield* Stream.runCollect(Stream.take(rest, 1))), [third])
    })))

  it.effect("reports an event that is not one of the topic, and continues", () =>
    run(Effect.gen(function*() {
      yield* EventBroker.publish("orders/1", { event: "paid", data: { amount: "five" } })
      yield* EventBroker.publish("orders/1", { event: "unknown", data: 1 })
      yield* EventBroker.publish(order("1"), "paid", paid(1))
      const messages = EventBroker.stream(order("1"), { from: "beginning" })
      const found = Array.from(yield* Stream.runCollect(Stream.take(messages, 3)))
      assert.deepStrictEqual(
        found.map(({ data, event }) => event === "error" ? data.reason : event),
        ["InvalidData", "UnknownEvent", "paid"]
      )
    })))

  it.effect("loses nothing if its consumer is slow", () =>
    run(
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const count = 3000
        const consumer = yield* EventBroker.stream("busy", { from: "beginning" }).pipe(
          Stream.tap(() => Deferred.await(gate)),
          Stream.take(count),
          Stream.runCollect,
          Effect.fork
        )
        yield* Effect.repeatN(Effect.yieldNow(), 100)
        yield* Effect.forEach(Array.from({ length: count }, (_, n) => n), (n) =>
          EventBroker.publish("busy", { data: String(n) }), { discard: true })
        yield* Deferred.succeed(gate, undefined)
        const messages = yield* Fiber.join(consumer)
        assert.deepStrictEqual(
          Array.from(messages, ({ data }) =>
            data),
          Array.from({ length: count }, (_, n) =>
            String(n))
        )
      }),
      { capacity: 10_000 }
    ))

  it.effect("is refused by the limit of patterns with a warning, and tries again until there is room", () => {
    const warnings: Array<unknown> = []
    const logger = Logger.replace(
      Logger.defaultLogger,
      Logger.make(({ annotations, logLevel, message }) => {
        warnings.push([logLevel.label, String(message), Option.getOrNull(HashMap.get(annotations, "module"))])
      })
    )
    const names = Array.from({ length: 10 }, (_, i) => `p${i}`)
    const Deep = Topic.make(":p0/:p1/:p2/:p3/:p4/:p5/:p6/:p7/:p8/:p9", { said: Schema.String })
    const pattern = (bits: number) =>
      Topic.pattern(Deep, Object.fromEntries(names.flatMap((name, i) => (bits >> i) % 2 === 0 ? [] : [[name, "x"]])))
    const subscribe = (first: number) =>
      EventBroker.subscribe(Array.from({ length: 128 }, (_, i) => pattern(first + i)))
    return run(Effect.gen(function*() {
      yield* Effect.forEach([0, 128, 256], subscribe)
      const scope = yield* Scope.make()
      yield* Scope.extend(subscribe(384), scope)
      const refused = yield* Effect.fork(Stream.runHead(EventBroker.stream(pattern(600), { from: "beginning" })))
      const turns = Effect.repeatN(Effect.yieldNow(), 100)
      yield* turns
      yield* Effect.repeatN(Effect.zipRight(TestClock.adjust("10 seconds"), turns), 10)
      assert.lengthOf(warnings, 1)
      assert.match(
        String(warnings),
        /^WARN,EventBroker refused a stream of this process, .*: trying again,EventBroker$/
      )
      yield* Scope.close(scope, Exit.void)
      yield* EventBroker.publish(names.map(() => "x").join("/"), { event: "said", data: "\"at last\"" })
      yield* TestClock.adjust("40 seconds")
      assert.strictEqual(Option.getOrThrow(yield* Fiber.join(refused)).data, "at last")
    })).pipe(Effect.provide(logger))
  })

  it.effect("ends when its channels have ended, and with the broker", () =>
    run(Effect.gen(function*() {
      yield* EventBroker.publish(order("1"), "paid", paid(1))
      yield* EventBroker.complete(order("1"))
      const found = yield* Stream.runCollect(EventBroker.stream(order("1"), { from: "beginning" }))
      assert.deepStrictEqual(Array.from(found, ({ event }) => event), ["paid"])
      assert.lengthOf(yield* Stream.runCollect(EventBroker.stream(order("1"))), 0)
      const open = yield* Effect.fork(Stream.runDrain(EventBroker.stream("never")))
      yield* Effect.repeatN(Effect.yieldNow(), 100)
      yield* EventBroker.drain
      yield* Fiber.join(open)
    })))

  it.effect("fails for a channel that breaks a rule", () =>
    run(Effect.gen(function*() {
      const error = yield* Effect.flip(Stream.runDrain(EventBroker.stream("a/*")))
      assert.deepInclude(error, { _tag: "EventLogError", reason: "InvalidChannel" })
      assert.include(error.message, "Topic.pattern")
      const refused = yield* Effect.flip(EventBroker.complete("$own"))
      assert.strictEqual(refused.reason, "InvalidChannel")
    })))
})

it.effect("A stream of EventBroker.subscribe over ended channels has only the event end", () =>
  run(Effect.gen(function*() {
    yield* EventBroker.complete("done")
    const stream = yield* EventBroker.subscribe("done")
    const text = yield* Stream.mkString(Stream.decodeText(EventStream.toStream(stream)))
    assert.include(text, "event: end\ndata: \n\n")
  })))
