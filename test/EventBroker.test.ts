import { HttpApp, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Chunk,
  DateTime,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Metric,
  MetricState,
  Option,
  Record,
  Ref,
  Schedule,
  Schema,
  Scope,
  Stream,
  TestClock,
  Tracer
} from "effect"
import { EventBroker, EventLog, EventStream, ServerSentEvent, Topic } from "effect-realtime"
import { LeakCheck, ManualClock, TestEventSource } from "effect-realtime/testing"

import { serveNode, serveWeb } from "./support/servers.js"
import { stepTimeOfDay } from "./support/timeOfDay.js"

const Orders = Topic.make("orders/:orderId", {
  paid: Schema.Struct({ amount: Schema.Number }),
  shipped: Schema.Struct({ carrier: Schema.String })
})

const run = <A, E>(
  body: Effect.Effect<A, E, EventBroker.EventBroker | Scope.Scope>,
  options?: EventBroker.Options,
  log?: EventLog.MemoryOptions
) =>
  body.pipe(
    Effect.scoped,
    Effect.provide(EventBroker.layerWith(options ?? {}).pipe(Layer.provide(EventLog.layerMemoryWith(log ?? {})))),
    LeakCheck.run
  )

/** Serves an app that requires the broker. */
const serve = <E>(app: HttpApp.Default<E, EventBroker.EventBroker | Scope.Scope>) =>
  Effect.flatMap(
    EventBroker.EventBroker,
    (broker) => serveNode(Effect.provideService(app, EventBroker.EventBroker, broker))
  )

const connect = <E>(app: HttpApp.Default<E, EventBroker.EventBroker | Scope.Scope>) =>
  Effect.flatMap(serve(app), TestEventSource.make)

const hasCursor = (source: TestEventSource.TestEventSource) =>
  TestEventSource.awaitText(source, (text) => /^id: /m.test(text))

const data = (events: ReadonlyArray<TestEventSource.Event>) => events.map((event) => event.data)

const prefix = "effect_realtime.sse."
const metrics = Effect.map(
  Metric.snapshot,
  (pairs) =>
    Record.fromEntries(
      pairs.flatMap(({ metricKey: { name }, metricState }) =>
        name.startsWith(prefix) ? [[name.slice(prefix.length), numberOf(metricState)]] : []
      )
    )
)

const numberOf = (state: MetricState.MetricState.Untyped) =>
  MetricState.isGaugeState(state) ?
    Number(state.value) :
    MetricState.isFrequencyState(state) ?
    Array.from(state.occurrences.values()).reduce((sum, n) => sum + n, 0) :
    MetricState.isCounterState(state) || MetricState.isHistogramState(state) ?
    Number(state.count) :
    Number.NaN

describe("EventBroker", () => {
  it.effect("delivers to each subscriber, with ids that the log assigns", () =>
    run(Effect.gen(function*() {
      const url = yield* serve(EventBroker.respond("news"))
      const sources = yield* Effect.replicateEffect(TestEventSource.make(url), 3)
      yield* Effect.forEach(sources, hasCursor)
      const id = yield* EventBroker.publish("news", { event: "headline", data: { n: 1 } })
      assert.match(id, /^[A-Za-z0-9_-]{1,64}\.1$/)
      yield* EventBroker.publish("other", { data: "for another channel" })
      yield* EventBroker.publish("news", { data: "last" })
      for (const source of sources) {
        const [first, last] = yield* TestEventSource.take(source, 2)
        assert.deepStrictEqual(first, { event: "headline", id, data: "{\"n\":1}" })
        assert.strictEqual(last?.data, "last")
      }
      assert.strictEqual(yield* EventBroker.subscriberCount("news"), 3)
      assert.deepStrictEqual(yield* EventBroker.channels, ["news"])
    })))

  it.effect("moves the cursor with a comment and with a retry", () =>
    run(Effect.gen(function*() {
      const source = yield* connect(EventBroker.respond("news"))
      yield* hasCursor(source)
      for (const event of [{ comment: "hello" }, { retry: 60_000 }, {}]) {
        const id = yield* EventBroker.publish("news", event)
        yield* TestEventSource.awaitText(source, (text) => text.includes(`id: ${id}\n`))
        assert.strictEqual(yield* TestEventSource.lastEventId(source), id)
      }
    })))

  it.effect("publishes typed events of a topic, also to subscribers of a pattern", () =>
    run(Effect.gen(function*() {
      const one = yield* connect(EventBroker.respond(Topic.channel(Orders, { orderId: "a/b" })))
      const all = yield* connect(EventBroker.respond([Topic.pattern(Orders), Topic.channel(Orders, { orderId: "2" })]))
      yield* Effect.forEach([one, all], hasCursor)
      yield* EventBroker.publish(Topic.channel(Orders, { orderId: "a/b" }), "paid", { amount: 1 })
      yield* EventBroker.publish(Topic.channel(Orders, { orderId: "2" }), "shipped", { carrier: "x" })
      assert.deepStrictEqual(data(yield* TestEventSource.take(all, 2)), [
        "orders/a%2Fb\n{\"amount\":1}",
        "orders/2\n{\"carrier\":\"x\"}"
      ])
      assert.deepStrictEqual(data(yield* TestEventSource.take(one, 1)), ["{\"amount\":1}"])
      assert.strictEqual(yield* EventBroker.subscriberCount(Topic.channel(Orders, { orderId: "2" })), 1)
    })))

  it.effect("publishes events of several channels in one step, in their order, and an event with a key once", () =>
    run(Effect.gen(function*() {
      const source = yield* connect(EventBroker.respond(["news", Topic.pattern(Orders)], { owner: "anna" }))
      yield* hasCursor(source)
      const paid = EventBroker.event(Topic.channel(Orders, { orderId: "1" }), "paid", { amount: 1 }, { key: "p" })
      const ids = yield* EventBroker.publishAll([
        paid,
        EventBroker.event("news", { data: "not for anna" }, { except: "anna" }),
        EventBroker.event("news", { data: "paid" }),
        paid
      ])
      const seqs = ids.map((id) => Number(id.split(".")[1]))
      assert.deepStrictEqual(seqs, [1, 2, 3, 1])
      const again = yield* EventBroker.publish(Topic.channel(Orders, { orderId: "1" }), "paid", { amount: 2 }, {
        key: "p"
      })
      assert.strictEqual(again, ids[0])
      const last = yield* EventBroker.publish("news", { data: "last" }, { key: "p" })
      assert.deepStrictEqual(
        (yield* TestEventSource.take(source, 3)).map(({ data, id }) => [id, data]),
        [[ids[0], "orders/1\n{\"amount\":1}"], [ids[2], "news\npaid"], [last, "news\nlast"]]
      )
      assert.deepStrictEqual(yield* EventBroker.publishAll([]), [])
    })))

  it.effect("publishes no event if one of several is refused", () =>
    run(Effect.gen(function*() {
      const first = yield* EventBroker.publish("news", { data: "first" })
      const news = EventBroker.event("news", { data: "x" })
      const reason = (bad: EventBroker.Publication) =>
        Effect.map(Effect.flip(EventBroker.publishAll([news, bad, news])), (error) => error.reason)
      assert.strictEqual(yield* reason(EventBroker.event("news", { event: "a\nb" })), "ControlCharacter")
      assert.strictEqual(yield* reason(EventBroker.event("news", { id: "1" })), "Assigned")
      assert.strictEqual(yield* reason(EventBroker.event("orders/*", { data: "x" })), "InvalidChannel")
      assert.strictEqual(yield* reason(EventBroker.event("$own", { data: "x" })), "InvalidChannel")
      assert.strictEqual(yield* reason(EventBroker.event("news", { data: "x" }, { key: "" })), "InvalidKey")
      const bad = EventBroker.publish("news", { data: "x" }, { key: "a\nb" })
      assert.deepInclude(yield* Effect.flip(bad), { reason: "InvalidKey" })
      const second = yield* EventBroker.publish("news", { data: "second" })
      assert.strictEqual(Number(second.split(".")[1]), Number(first.split(".")[1]) + 1)
    })))

  it.effect("refuses an invalid event, an id, and a channel that is a pattern", () =>
    run(Effect.gen(function*() {
      const byField = yield* Effect.flip(EventBroker.publish("news", { event: "a\nb" }))
      assert.deepInclude(byField, { field: "event", reason: "ControlCharacter" })
      const byId = yield* Effect.flip(EventBroker.publish("news", { id: "1", data: "x" }))
      assert.deepInclude(byId, { field: "id", reason: "Assigned" })
      const byChannel = yield* Effect.flip(EventBroker.publish("orders/*", { data: "x" }))
      assert.deepInclude(byChannel, { _tag: "EventLogError", reason: "InvalidChannel" })
    })))

  describe("resume", () => {
    it.effect("sends the events after the last id, then those that are published, once each and in order", () =>
      run(Effect.gen(function*() {
        const source = yield* connect(EventBroker.respond(["a", "b"], { retry: "1 millis", jitter: 0 }))
        yield* hasCursor(source)
        yield* EventBroker.publish("a", { data: 0 })
        yield* TestEventSource.next(source)
        yield* TestEventSource.drop(source)
        yield* Effect.forEach(["a", "b", "c", "b", "a"], (channel, i) => EventBroker.publish(channel, { data: i + 1 }))
        const again = yield* Effect.fork(TestEventSource.reconnect(source))
        yield* TestClock.adjust("1 millis")
        const resumed = yield* Fiber.join(again)
        assert.deepStrictEqual(data(yield* TestEventSource.take(resumed, 4)), ["a\n1", "b\n2", "b\n4", "a\n5"])
        yield* EventBroker.publish("a", { data: "live" })
        assert.deepStrictEqual(data(yield* TestEventSource.take(resumed, 1)), ["a\nlive"])
      })))

    it.effect("sends a cursor before the first event", () =>
      run(Effect.gen(function*() {
        const url = yield* serve(EventBroker.respond("a"))
        const source = yield* TestEventSource.make(url)
        yield* hasCursor(source)
        const lastEventId = yield* TestEventSource.lastEventId(source)
        yield* TestEventSource.drop(source)
        yield* EventBroker.publish("a", { data: "missed" })
        const again = yield* TestEventSource.make(url, { headers: { "last-event-id": lastEventId } })
        assert.deepStrictEqual(data(yield* TestEventSource.take(again, 1)), ["missed"])
      })))

    it.effect("replays more events than the queue has room for, as fast as the client reads", () =>
      run(
        Effect.gen(function*() {
          const url = yield* serve(EventBroker.respond("a", { capacity: 5 }))
          const first = yield* EventBroker.publish("a", { data: 0 })
          yield* Effect.forEach(Array.from({ length: 5000 }), (_, i) => EventBroker.publish("a", { data: i + 1 }))
          const source = yield* TestEventSource.make(url, { headers: { "last-event-id": first } })
          const events = yield* TestEventSource.take(source, 5000)
          assert.deepStrictEqual(
            events.map((event) => Number(event.data)),
            Array.from({ length: 5000 }, (_, i) => i + 1)
          )
        }),
        {},
        { capacity: 10_000 }
      ))

    it.effect("answers each kind of cursor", () =>
      run(
        Effect.gen(function*() {
          const url = yield* serve(EventBroker.respond("a"))
          const ids: Array<string> = []
          for (let i = 0; i < 5; i++) ids.push(yield* EventBroker.publish("a", { data: i }))
          const foreign = yield* EventBroker.publish("secret", { data: "x" })
          const [epoch = ""] = foreign.split(".")
          const resync = (reason: string) => ["resync", `{"reason":"${reason}"}`]
          const table: ReadonlyArray<readonly [name: string, id: string, first: ReadonlyArray<string>]> = [
            ["none", "", ["message", "live"]],
            ["of another channel, at the head", foreign, ["message", "live"]],
            ["current", ids[4] ?? "", ["message", "live"]],
            ["one behind", ids[3] ?? "", ["message", "4"]],
            ["before the first that is not evicted", ids[1] ?? "", ["message", "2"]],
            ["evicted", ids[0] ?? "", resync("Evicted")],
            ["of another epoch", "other.3", resync("OtherEpoch")],
            ["from the future", `${epoch}.99999`, resync("Future")],
            ["without a seq", epoch, resync("Malformed")],
            ["a number", "1", resync("Malformed")],
            ["with an exponent", `${epoch}.1e3`, resync("Malformed")],
            ["negative", `${epoch}.-1`, resync("Malformed")],
            ["not ASCII", `${epoch}.…é😀`, resync("Malformed")],
            ["4 KB long", `${epoch}.${"1".repeat(4096)}`, resync("Malformed")]
          ]
          const ask = (id: string, inQuery: boolean) =>
            inQuery
              ? TestEventSource.make(`${url}?lastEventId=${encodeURIComponent(id)}`)
              : TestEventSource.make(url, { headers: { "last-event-id": Buffer.from(id).toString("latin1") } })
          for (const inQuery of [false, true]) {
            // All connect before the next event is published, which would evict another one.
            const sources = yield* Effect.forEach(table, ([, id]) => ask(id, inQuery))
            yield* Effect.forEach(sources, (source) => TestEventSource.awaitText(source, (text) => text !== ""))
            yield* Effect.repeat(EventBroker.subscriberCount("a"), { until: (n) => n >= table.length })
            const replayed = yield* Effect.forEach(table, ([, , [, data]], i) => {
              const source = sources[i]
              return data === "live" || source === undefined
                ? Effect.succeedNone
                : Effect.asSome(TestEventSource.next(source))
            })
            yield* EventBroker.publish("live", { data: "not received" })
            for (const [i, [name, , expected]] of table.entries()) {
              const event = replayed[i]
              if (event !== undefined && Option.isSome(event)) {
                assert.deepStrictEqual([event.value.event, event.value.data], expected, name)
              }
            }
            if (!inQuery) yield* Effect.forEach(sources, TestEventSource.drop)
            else {
              yield* EventBroker.publish("a", { data: "live" })
              for (const [i, [name, , expected]] of table.entries()) {
                const source = sources[i]
                if (expected[1] !== "live" || source === undefined) continue
                const event = yield* TestEventSource.next(source)
                assert.deepStrictEqual([event.event, event.data], expected, name)
              }
            }
          }
          // The id of another channel is a place like any other. It reveals no more than an unknown id would.
          const [evicted] = yield* Effect.flatMap(ask(foreign, false), TestEventSource.take(1))
          assert.strictEqual(evicted?.data, "live")
        }),
        {},
        { capacity: 3 }
      ))

    it.effect("advances the cursor of an idle client with heartbeats", () =>
      run(Effect.gen(function*() {
        const source = yield* connect(EventBroker.respond("a"))
        const busy = yield* connect(EventBroker.respond("b"))
        yield* Effect.forEach([source, busy], hasCursor)
        const id = yield* EventBroker.publish("b", { data: "x" })
        yield* TestEventSource.next(busy)
        yield* TestClock.adjust("16 seconds")
        yield* TestEventSource.awaitText(source, (text) => text.includes(id))
        assert.strictEqual(yield* TestEventSource.lastEventId(source), id)
      })))
  })

  describe("snapshot", () => {
    it.effect("sends the state first, and then exactly the events after it", () =>
      run(Effect.gen(function*() {
        const state = yield* Ref.make<{ total: number; at: EventLog.EventId | undefined }>({ total: 0, at: undefined })
        const add = EventBroker.publish("count", { data: 1 }).pipe(
          Effect.flatMap((at) => Ref.update(state, ({ total }) => ({ total: total + 1, at })))
        )
        yield* Effect.repeatN(add, 4)
        const url = yield* serve(EventBroker.respond("count", {
          snapshot: () =>
            // Published between the position of the log and the state, and again between the state and the events.
            add.pipe(
              Effect.zipRight(Ref.get(state)),
              Effect.zipLeft(add),
              Effect.map(({ at, total }) => ({ events: [{ event: "total", data: total }], at })),
              Effect.orDie
            )
        }))
        const source = yield* TestEventSource.make(url)
        const [total, ...events] = yield* TestEventSource.take(source, 2)
        assert.deepInclude(total, { event: "total", data: "6" })
        assert.deepStrictEqual(data(events), ["1"])
        const again = yield* TestEventSource.make(url, { headers: { "last-event-id": "other.1" } })
        const [resync, next] = yield* TestEventSource.take(again, 2)
        assert.strictEqual(resync?.event, "resync")
        assert.deepInclude(next, { event: "total", data: "8" })
      })))

    it.effect("that fails ends the stream with a retry", () =>
      run(Effect.gen(function*() {
        const source = yield* connect(EventBroker.respond("a", { snapshot: () => Effect.fail("no database") }))
        assert.strictEqual(yield* TestEventSource.end(source), "clean")
        assert.match(yield* TestEventSource.text(source), /retry: \d+\n$/)
      })))
  })

  describe("authorize", () => {
    it.effect("decides which channels are read, on replay too", () =>
      run(Effect.gen(function*() {
        const url = yield* serve(EventBroker.respond(["open", "secret"], {
          authorize: (channels) => Effect.succeed({ channels: channels.filter((channel) => channel === "open") })
        }))
        const id = yield* EventBroker.publish("open", { data: 1 })
        yield* EventBroker.publish("secret", { data: 2 })
        yield* EventBroker.publish("open", { data: 3 })
        const source = yield* TestEventSource.make(url, { headers: { "last-event-id": id } })
        assert.deepStrictEqual(data(yield* TestEventSource.take(source, 1)), ["open\n3"])
        yield* EventBroker.publish("secret", { data: 4 })
        yield* EventBroker.publish("open", { data: 5 })
        assert.deepStrictEqual(data(yield* TestEventSource.take(source, 1)), ["open\n5"])
      })))

    it.effect("that grants nothing is answered 403, and its failure is passed on", () =>
      run(Effect.gen(function*() {
        const nothing = yield* connect(
          EventBroker.respond("a", { authorize: () => Effect.succeed({ channels: [] }) })
        )
        assert.strictEqual(nothing.status, 403)
        const failed = yield* connect(
          EventBroker.respond("a", { authorize: () => Effect.fail("no session" as const) }).pipe(
            Effect.catchAll((error) => HttpServerResponse.text(String(error), { status: 401 }))
          )
        )
        assert.strictEqual(failed.status, 401)
      })))

    it.effect("ends the stream when the credential expires", () =>
      run(Effect.gen(function*() {
        const source = yield* connect(EventBroker.respond("a", {
          authorize: (channels) =>
            Effect.map(DateTime.now, (now) => ({ channels, expiresAt: DateTime.add(now, { minutes: 1 }) }))
        }))
        yield* hasCursor(source)
        yield* TestClock.adjust("59 seconds")
        assert.strictEqual(yield* EventBroker.subscriberCount("a"), 1)
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* TestEventSource.end(source), "clean")
      })))

    it.live("ends the stream when the credential expires by the time of day, which may step", () =>
      run(Effect.gen(function*() {
        const source = yield* connect(EventBroker.respond("a", {
          authorize: (channels) =>
            Effect.map(DateTime.now, (now) => ({ channels, expiresAt: DateTime.add(now, { minutes: 30 }) }))
        }))
        yield* hasCursor(source)
        yield* stepTimeOfDay(1)
        assert.strictEqual(yield* TestEventSource.end(source), "clean")
      })))

    it.effect("is revoked by disconnect", () =>
      run(Effect.gen(function*() {
        const allowed = yield* Ref.make(true)
        const url = yield* serve(EventBroker.respond("a", {
          owner: "ana",
          authorize: (channels) => Effect.map(Ref.get(allowed), (yes) => ({ channels: yes ? channels : [] }))
        }))
        const source = yield* TestEventSource.make(url)
        yield* hasCursor(source)
        yield* Ref.set(allowed, false)
        assert.strictEqual(
          yield* EventBroker.disconnect(({ owner }) => owner._tag === "Some" && owner.value === "bob"),
          0
        )
        assert.strictEqual(
          yield* EventBroker.disconnect(({ owner }) => owner._tag === "Some" && owner.value === "ana"),
          1
        )
        assert.strictEqual(yield* TestEventSource.end(source), "clean")
        assert.strictEqual((yield* TestEventSource.make(url)).status, 403)
      })))
  })

  describe("limits", () => {
    const limited = (options: EventBroker.Options, subscribe: EventBroker.SubscribeOptions) =>
      run(
        Effect.gen(function*() {
          const url = yield* serve(EventBroker.respond("a", subscribe))
          yield* Effect.flatMap(TestEventSource.make(url), hasCursor)
          // Browsers, fetch, curl, wget, and other values that admit an event stream.
          const accepting = [
            "text/event-stream",
            "*/*",
            "text/html, text/*;q=0.5",
            "Text/Event-Stream;q=0.1, */*;q=0",
            ""
          ]
          for (const accept of accepting) {
            const client = yield* TestEventSource.make(url, { headers: { accept } })
            assert.strictEqual(client.status, 200, accept)
            assert.strictEqual(yield* TestEventSource.end(client), "clean")
            assert.match(yield* TestEventSource.text(client), /retry: \d+\n+$/)
          }
          for (
            const accept of ["application/json", "text/html;q=0.9, image/*", "*/*, text/event-stream;q=0", "*/*;q=0.0"]
          ) {
            const other = yield* TestEventSource.make(url, { headers: { accept } })
            assert.strictEqual(other.status, 503, accept)
            assert.match(other.headers["retry-after"] ?? "", /^[1-9]/)
          }
        }),
        options
      )

    it.effect("of connections", () => limited({ maxConnections: 1 }, {}))
    it.effect("of connections of a key", () => limited({ maxConnectionsPerOwner: 1 }, { owner: "ana" }))

    const names = (count: number) => Array.from({ length: count }, (_, i) => `a/${i}`)

    it.effect("of channels of a connection, 128 by default: more are answered 400", () =>
      run(Effect.gen(function*() {
        yield* Effect.flatMap(connect(EventBroker.respond(names(128))), hasCursor)
        assert.strictEqual((yield* connect(EventBroker.respond(names(129)))).status, 400)
        assert.deepInclude(yield* Effect.flip(Effect.asVoid(EventBroker.subscribe(names(129)))), {
          reason: "InvalidChannel",
          isRetryable: false
        })
        // The granted channels are counted.
        const few = EventBroker.respond(names(1000), { authorize: () => Effect.succeed({ channels: names(3) }) })
        yield* Effect.flatMap(connect(few), hasCursor)
        const many = EventBroker.respond("a", { authorize: () => Effect.succeed({ channels: names(129) }) })
        assert.strictEqual((yield* connect(many)).status, 400)
        assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
      })))

    it.effect("of channels of a connection, as the options of the broker state", () =>
      run(
        Effect.gen(function*() {
          yield* Effect.flatMap(connect(EventBroker.respond(names(2))), hasCursor)
          assert.strictEqual((yield* connect(EventBroker.respond(names(3)))).status, 400)
        }),
        { maxChannels: 2 }
      ))

    it("of strategies: one that lets a publisher wait is refused where the route is built", () => {
      const options: EventStream.Options = { strategy: "suspend" }
      // @ts-expect-error a caller without types may do this
      assert.throws(() => EventBroker.respond("a", options), Cause.IllegalArgumentException, "strategy")
      // @ts-expect-error a caller without types may do this
      assert.throws(() => EventBroker.subscribe("a", options), Cause.IllegalArgumentException, "strategy")
    })

    it.effect("that are not valid die when the layer is built", () =>
      Effect.gen(function*() {
        const isMistake = <A, E>(layer: Layer.Layer<A, E>) =>
          Effect.map(Effect.exit(Effect.scoped(Layer.build(layer))), (exit) =>
            Exit.isFailure(exit) &&
            Option.exists(Cause.dieOption(exit.cause), Cause.isIllegalArgumentException))
        const brokerWith = (options: EventBroker.Options) =>
          Layer.provide(EventBroker.layerWith(options), EventLog.layerMemory)
        for (const limit of [Number.NaN, -1, 0, 1.5, Number.NEGATIVE_INFINITY]) {
          for (const name of ["maxChannels", "maxConnections", "maxConnectionsPerOwner"]) {
            assert.isTrue(yield* isMistake(brokerWith({ [name]: limit })), `${name} ${limit}`)
          }
          for (const name of ["capacity", "maxBytes", "maxAge"]) {
            if (name === "maxAge" && limit === 1.5) continue
            assert.isTrue(yield* isMistake(EventLog.layerMemoryWith({ [name]: limit })), `${name} ${limit}`)
          }
        }
        const infinite = { maxChannels: Infinity, maxConnections: Infinity, maxConnectionsPerOwner: undefined }
        assert.isFalse(yield* isMistake(brokerWith(infinite)))
        assert.isFalse(
          yield* isMistake(EventLog.layerMemoryWith({ capacity: Infinity, maxBytes: Infinity, maxAge: Infinity }))
        )
      }))
  })

  describe("a string is one channel", () => {
    // Names of users that would make patterns, channels of the brokers, or invalid channels.
    const patterns = ["*", "users/*", "*/*", "users/*/devices"]
    const broken = ["", "$x", "$effect-realtime/revoked", "a\u0000", "\u007f", "a\ud800", "x".repeat(513)]
    const plain = ["a/b", "..", "%2A", "a*", "**", "[^/]*", "users/%", "?"]

    it.effect("among the channels of a request", () =>
      run(Effect.gen(function*() {
        const asked = yield* Ref.make(0)
        const authorize = (channels: Iterable<EventBroker.ChannelOrPattern>) =>
          Effect.as(Ref.update(asked, (n) => n + 1), { channels })
        for (const name of [...patterns, ...broken]) {
          for (const channels of [name, ["news", name]]) {
            const refused = yield* Effect.flip(Effect.asVoid(EventBroker.subscribe(channels, { authorize })))
            assert.strictEqual(refused._tag, "EventLogError")
            assert.strictEqual(refused.reason, "InvalidChannel")
            if (patterns.includes(name)) assert.match(refused.detail, /Topic\.pattern/)
            const source = yield* connect(EventBroker.respond(channels, { authorize }))
            assert.strictEqual(source.status, 400, JSON.stringify(name.slice(0, 40)))
          }
          assert.deepInclude(yield* Effect.flip(EventBroker.publish(name, { data: "x" })), { reason: "InvalidChannel" })
        }
        assert.strictEqual(yield* Ref.get(asked), 0)
        assert.deepStrictEqual(yield* EventBroker.channels, [])
      })))

    it.effect("among the channels of a grant", () =>
      run(Effect.gen(function*() {
        for (const name of [...patterns, ...broken]) {
          const authorize = () => Effect.succeed({ channels: ["news", name] })
          const refused = yield* Effect.flip(Effect.asVoid(EventBroker.subscribe("news", { authorize })))
          assert.strictEqual(refused.reason, "InvalidChannel")
          assert.strictEqual((yield* connect(EventBroker.respond("news", { authorize }))).status, 400)
        }
        assert.deepStrictEqual(yield* EventBroker.channels, [])
      })))

    it.effect("no other JSON value is a channel", () =>
      run(Effect.gen(function*() {
        for (const forged of [{ path: "*" }, JSON.parse(JSON.stringify(Topic.pattern(Orders))), 1, null, ["a"]]) {
          const refused = yield* Effect.flip(
            Effect.asVoid(EventBroker.subscribe(JSON.parse(JSON.stringify(["news", forged]))))
          )
          assert.strictEqual(refused.reason, "InvalidChannel")
        }
      })))

    it.effect("an event reaches its channel alone", () =>
      run(Effect.gen(function*() {
        const stream = yield* EventBroker.subscribe(plain)
        for (const name of plain) {
          for (const other of ["users/ana", "a/c", "ab", "a", "x"]) {
            yield* EventBroker.publish(other, { data: "secret" })
          }
          yield* EventBroker.publish(name, { data: name })
          assert.strictEqual(yield* EventBroker.subscriberCount(name), 1)
        }
        const taken = yield* EventStream.toStream(stream).pipe(
          ServerSentEvent.decode(),
          Stream.filterMap(({ data }) => Option.fromNullable(data)),
          Stream.take(plain.length),
          Stream.runCollect
        )
        assert.deepStrictEqual(Array.from(taken), plain.map((name) => `${name}\n${name}`))
      })))

    it.effect("a pattern of Topic.pattern reaches authorize, hooks and channels", () =>
      Effect.gen(function*() {
        const seen: Array<unknown> = []
        const all = Topic.pattern(Orders)
        yield* run(
          Effect.gen(function*() {
            const stream = yield* EventBroker.subscribe([all, "news"], {
              authorize: (channels) => {
                seen.push(channels)
                return Effect.succeed({ channels: channels.filter(Topic.isPattern) })
              },
              snapshot: (channels) => Effect.sync(() => ({ events: [{ data: String(seen.push(channels)) }] }))
            })
            yield* EventStream.toStream(stream).pipe(Stream.take(1), Stream.runDrain)
            yield* EventBroker.subscribe(all)
            assert.deepStrictEqual(yield* EventBroker.channels, [all])
            yield* EventBroker.disconnect(({ channels }) => channels.some((channel) => seen.push(channel) > 0))
          }),
          { onJoin: ({ channels }) => Effect.sync(() => seen.push(channels)) }
        )
        assert.deepStrictEqual(seen, [[all, "news"], [all], [all], [all], all])
      }))
  })

  describe("a HEAD request", () => {
    for (const [name, serveApp] of [["on Node", serveNode], ["behind a web handler", serveWeb]] as const) {
      it.effect(`${name} is answered with the head, and starts nothing`, () =>
        Effect.gen(function*() {
          const started: Array<string> = []
          yield* run(
            Effect.gen(function*() {
              const broker = yield* EventBroker.EventBroker
              const url = yield* serveApp(broker.respond("a", {
                headers: { "x-own": "1" },
                authorize: (channels) => Effect.as(Effect.sync(() => started.push("authorize")), { channels }),
                snapshot: () => Effect.as(Effect.sync(() => started.push("snapshot")), { events: [] })
              }))
              const response = yield* Effect.promise(() => fetch(url, { method: "HEAD" }))
              assert.strictEqual(response.status, 200)
              assert.strictEqual(response.headers.get("content-type"), "text/event-stream")
              assert.strictEqual(response.headers.get("x-own"), "1")
              assert.strictEqual(yield* Effect.promise(() => response.text()), "")
              assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
            }),
            { onJoin: () => Effect.sync(() => started.push("onJoin")) }
          )
          assert.deepStrictEqual(started, ["authorize"])
        }))
    }
  })

  describe("a connection whose scope is not closed", () => {
    const withHooks = <A, E>(
      body: (
        respond: Effect.Effect<Response>,
        seen: Array<string>
      ) => Effect.Effect<A, E, EventBroker.EventBroker | Scope.Scope>
    ) =>
      Effect.suspend(() => {
        const seen: Array<string> = []
        return run(
          Effect.gen(function*() {
            const broker = yield* EventBroker.EventBroker
            const scope = yield* Scope.make()
            const handler = HttpApp.toWebHandler(Scope.extend(broker.respond("a", { owner: "ana" }), scope))
            const respond = Effect.acquireRelease(
              Effect.promise(() => handler(new Request("http://localhost/"))),
              ({ body }) => Effect.promise(async () => body?.locked === true || body?.cancel())
            )
            yield* Effect.scoped(Effect.flatMap(Effect.scope, (test) => body(Scope.extend(respond, test), seen)))
            yield* Scope.close(scope, Exit.void)
          }),
          {
            maxConnectionsPerOwner: 1,
            onJoin: () => Effect.sync(() => seen.push("join")),
            onLeave: () => Effect.sync(() => seen.push("leave"))
          }
        )
      })
    const isFree = (seen: ReadonlyArray<string>) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
        yield* Effect.repeat(Effect.sync(() => seen.join()), { until: (hooks) => hooks === "join,leave" })
        assert.deepStrictEqual(yield* EventBroker.channels, [])
        // There is room for another one.
        const stream = yield* EventBroker.subscribe("a", { owner: "ana" })
        assert.isTrue(yield* EventStream.publish(stream, { data: "x" }))
      })

    it.effect("is removed when its body is cancelled", () =>
      withHooks((respond, seen) =>
        Effect.gen(function*() {
          const response = yield* respond
          assert.strictEqual(yield* EventBroker.subscriberCount("a"), 1)
          yield* Effect.promise(async () => {
            const reader = response.body?.getReader()
            await reader?.read()
            await reader?.cancel()
          })
          yield* isFree(seen)
        })
      ))

    it.effect("is removed by disconnect, while its body is not read", () =>
      withHooks((respond, seen) =>
        Effect.gen(function*() {
          yield* respond
          assert.strictEqual(yield* EventBroker.disconnect(() => true), 1)
          yield* isFree(seen)
        })
      ))

    it.effect("is removed by revoke, while its body is not read", () =>
      withHooks((respond, seen) =>
        Effect.gen(function*() {
          yield* respond
          yield* EventBroker.disconnectOwner("ana")
          yield* Effect.repeat(Effect.zipRight(Effect.yieldNow(), EventBroker.subscriberCount("a")), {
            until: (n) => n === 0
          })
          yield* isFree(seen)
        })
      ))

    it.effect("is removed by drain, while its body is not read", () =>
      withHooks((respond, seen) =>
        Effect.gen(function*() {
          yield* respond
          const draining = yield* Effect.fork(EventBroker.drain)
          yield* TestClock.adjust("1 second")
          yield* Fiber.join(draining)
          assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
          assert.deepStrictEqual(seen, ["join", "leave"])
        })
      ))
  })

  describe("cursors", () => {
    const blocks = (stream: EventStream.EventStream) =>
      EventStream.toStream(stream).pipe(Stream.decodeText(), Stream.runFold("", (all, text) => all + text))

    it.effect("are omitted with the option off: each block that ends with an empty line has data", () =>
      run(Effect.gen(function*() {
        const publish = EventBroker.publish("b", { data: "1" })
        const texts = yield* Effect.forEach(["off", "on"] as const, (cursor) =>
          Effect.gen(function*() {
            const idle = yield* EventBroker.subscribe("a", { cursor, maxAge: "40 seconds", jitter: 0 })
            const fresh = yield* EventBroker.subscribe(["a", "b"], {
              cursor,
              maxAge: "40 seconds",
              jitter: 0,
              snapshot: () => Effect.succeed({ events: [{ data: "state" }] })
            })
            const reading = yield* Effect.fork(Effect.all([blocks(idle), blocks(fresh)], { concurrency: "unbounded" }))
            yield* publish
            yield* TestClock.adjust("20 seconds")
            yield* TestClock.adjust("21 seconds")
            return (yield* Fiber.join(reading)).join("")
          }))
        const empty = (text: string | undefined) =>
          text?.split("\n\n").slice(0, -1).filter((block) => !/^data/m.test(block)).length
        assert.strictEqual(empty(texts[0]), 0, texts[0])
        assert.isAtLeast(empty(texts[1]) ?? 0, 3)
      })))
  })

  it.effect("drains: each client receives a retry, and a new client is refused", () =>
    run(Effect.gen(function*() {
      const url = yield* serve(EventBroker.respond("a"))
      const sources = yield* Effect.replicateEffect(TestEventSource.make(url), 20)
      yield* Effect.forEach(sources, hasCursor)
      yield* EventBroker.drain
      for (const source of sources) {
        assert.strictEqual(yield* TestEventSource.end(source), "clean")
        assert.match(yield* TestEventSource.text(source), /retry: \d+\n$/)
      }
      const late = yield* TestEventSource.make(url)
      assert.strictEqual(yield* TestEventSource.end(late), "clean")
      assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
    })))

  it.effect("drains over a time: 1,000 clients leave evenly, the oldest first, and miss nothing", () => {
    const clock = ManualClock.make()
    return Effect.gen(function*() {
      const left: Array<number> = []
      const first = yield* EventBroker.make({
        onLeave: ({ owner }) => Effect.sync(() => left.push(Number(Option.getOrThrow(owner))))
      })
      const second = yield* EventBroker.make()
      const read = (text: Array<string>, stream: EventStream.EventStream) =>
        EventStream.toStream(stream).pipe(
          Stream.decodeText(),
          Stream.takeUntil((part) => {
            text.push(part)
            return part.includes("data: end")
          }),
          Stream.runDrain
        )
      // Each 50th reads, and reconnects to the other node.
      const readers = yield* Effect.forEach(Array.from({ length: 1_000 }, (_, i) => i), (i) =>
        Effect.gen(function*() {
          const stream = yield* first.subscribe("news", { owner: String(i), writeTimeout: "1 hour" })
          if (i % 50 !== 49) return []
          const text: Array<string> = []
          const reader = yield* Effect.fork(Effect.gen(function*() {
            yield* read(text, stream)
            assert.match(text.join(""), /retry: \d+\n\n?$/)
            const lastEventId = Array.from(text.join("").matchAll(/^id: (.*)$/gm)).at(-1)?.[1] ?? ""
            yield* read(text, yield* second.subscribe("news", { lastEventId }))
            return text.join("")
          }))
          return [reader]
        }))
      const draining = yield* Effect.fork(first.drain({ over: "5 minutes" }))
      const turn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))
      yield* turn
      for (let part = 1; part <= 10; part++) {
        yield* second.publish("news", { data: String(part) })
        for (let step = 1; step <= 5; step++) {
          yield* Effect.zipRight(clock.advance("6 seconds"), turn)
          assert.strictEqual(left.length, part * 100 - 100 + step * 20)
        }
      }
      assert.deepStrictEqual(left, readers.map((_, i) => i))
      // The streams that are not read are cut off.
      yield* Effect.zipRight(clock.advance("1 second"), draining)
      yield* second.publish("news", { data: "end" })
      const expected = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "end"]
      for (const reader of readers.flat()) {
        const text = yield* reader
        assert.deepStrictEqual(Array.from(text.matchAll(/^data: (.*)$/gm), ([, data]) => data), expected)
      }
    }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemory), Effect.withClock(clock))
  })

  it.effect("drains over a time: ends soon after the last client has left by itself", () => {
    const clock = ManualClock.make()
    return Effect.gen(function*() {
      const broker = yield* EventBroker.make()
      const client = yield* Scope.make()
      yield* Scope.extend(broker.subscribe("news"), client)
      const draining = yield* Effect.fork(broker.drain({ over: "5 minutes" }))
      yield* Effect.repeat(broker.isReady, { until: (isReady) => !isReady, schedule: Schedule.forever })
      yield* Scope.close(client, Exit.void)
      yield* Effect.zipRight(clock.advance("100 millis"), draining)
    }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemory), Effect.withClock(clock))
  })

  it.effect("drains over a time: until then clients receive events, but none is new, and an interruption ends it", () =>
    run(Effect.gen(function*() {
      const url = yield* serve(EventBroker.respond("a"))
      const source = yield* TestEventSource.make(url)
      yield* hasCursor(source)
      const consumed = yield* EventBroker.stream("a", { from: "beginning" }).pipe(
        Stream.take(1),
        Stream.runCollect,
        Effect.fork
      )
      assert.isTrue(yield* EventBroker.isReady)
      const draining = yield* Effect.fork(EventBroker.drain({ over: "5 minutes" }))
      yield* Effect.repeat(EventBroker.isReady, { until: (isReady) => !isReady, schedule: Schedule.forever })
      const late = yield* TestEventSource.make(url)
      assert.strictEqual(yield* TestEventSource.end(late), "clean")
      assert.match(yield* TestEventSource.text(late), /retry: \d+\n/)
      yield* EventBroker.publish("a", { data: "still here" })
      assert.deepStrictEqual(data(yield* TestEventSource.take(source, 1)), ["still here"])
      assert.strictEqual((yield* consumed).length, 1)
      const again = yield* EventBroker.stream("a", { from: "beginning" }).pipe(Stream.take(1), Stream.runCollect)
      assert.strictEqual(again.length, 1, "a consumer in this process is no client")
      assert.isNull(draining.unsafePoll())
      yield* Fiber.interrupt(draining)
      assert.strictEqual(yield* TestEventSource.end(source), "clean")
      assert.match(yield* TestEventSource.text(source), /retry: \d+\n$/)
      assert.isFalse(yield* EventBroker.isReady)
    })))

  it.effect("drains over a time that is finite and longer than zero", () =>
    run(Effect.gen(function*() {
      for (const over of [0, -1, Number.POSITIVE_INFINITY, Number.NaN]) {
        const exit = yield* Effect.exit(EventBroker.drain({ over }))
        assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause), String(over))
      }
      assert.isTrue(yield* EventBroker.isReady)
      // Without clients there is nothing to wait for.
      yield* EventBroker.drain({ over: "5 minutes" })
      assert.isFalse(yield* EventBroker.isReady)
    })))

  // The clock stands still: a drain that waited for the connection would not end.
  it.effect("has no connection for a stream that no response carries, once its scope is closed", () =>
    run(Effect.gen(function*() {
      yield* Effect.scoped(EventBroker.subscribe("a"))
      yield* EventBroker.drain
    })))

  it.effect("cuts off a client that stops reading, and no other", () =>
    run(Effect.gen(function*() {
      const left = yield* Deferred.make<void>()
      const url = yield* serve(
        Effect.zipRight(
          Effect.addFinalizer(() => Deferred.succeed(left, undefined)),
          EventBroker.respond("a", { capacity: 50 })
        )
      )
      const healthyUrl = yield* serve(EventBroker.respond("a"))
      const stalled = yield* TestEventSource.make(url)
      const healthy = yield* TestEventSource.make(healthyUrl)
      yield* Effect.forEach([stalled, healthy], hasCursor)
      yield* TestEventSource.stall(stalled)
      const payload = "x".repeat(100_000)
      for (let i = 0; i < 300; i++) {
        yield* EventBroker.publish("a", { data: `${i} ${payload}` })
        const event = yield* TestEventSource.next(healthy)
        assert.isTrue(event.data.startsWith(`${i} `))
      }
      yield* Deferred.await(left)
      assert.strictEqual(yield* EventBroker.subscriberCount("a"), 1)
    })))

  it.effect("runs the hooks when a connection joins and leaves", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const left = yield* Deferred.make<void>()
      const body = Effect.gen(function*() {
        const source = yield* connect(EventBroker.respond("a", { owner: "ana" }))
        yield* hasCursor(source)
        yield* TestEventSource.drop(source)
        yield* Deferred.await(left)
      })
      yield* run(
        body,
        {
          onJoin: ({ channels, owner }) => Effect.sync(() => seen.push(`join ${channels.join()} ${owner._tag}`)),
          onLeave: () => Effect.zipRight(Effect.sync(() => seen.push("leave")), Deferred.succeed(left, undefined))
        }
      )
      assert.deepStrictEqual(seen, ["join a Some", "leave"])
    }))

  it.effect("subscribes without HTTP, to a stream that accepts further events", () =>
    run(Effect.gen(function*() {
      const stream = yield* EventBroker.subscribe("a")
      yield* EventBroker.publish("a", { data: "from the channel" })
      yield* EventStream.publish(stream, { event: "private", data: "for this one" })
      const frames = yield* EventStream.toStream(stream).pipe(
        ServerSentEvent.decode(),
        Stream.filterMap(({ data }) => Option.fromNullable(data)),
        Stream.take(2),
        Stream.runCollect
      )
      assert.deepStrictEqual(new Set(frames), new Set(["from the channel", "for this one"]))
    })))

  it.effect("treats an undefined option as absent", () =>
    run(Effect.gen(function*() {
      const options = { capacity: 1, retry: undefined, strategy: undefined }
      const stream = yield* EventBroker.subscribe("a", options)
      const retries = yield* EventStream.toStream(yield* EventBroker.subscribe("b", options)).pipe(
        ServerSentEvent.decode(),
        Stream.filterMap(({ retry }) => Option.fromNullable(retry)),
        Stream.take(1),
        Stream.runCollect
      )
      assert.strictEqual(retries.length, 1)
      // The cursor fills the queue already.
      assert.isFalse(yield* EventStream.publish(stream, { data: "too much" }))
      assert.deepStrictEqual(yield* Stream.runCollect(EventStream.toStream(stream)), Chunk.empty())
    })))

  it.effect("counts the replayed events that a client was sent, also those before the end of its channel", () =>
    run(Effect.gen(function*() {
      const id = yield* EventBroker.publish("chat", { data: 0 })
      yield* EventBroker.publish("chat", { data: 1 })
      yield* EventBroker.publish("chat", { data: "of anna" }, { except: "anna" })
      yield* EventBroker.publish("chat", { data: 2 })
      yield* EventBroker.complete("chat")
      const before = yield* metrics
      const url = yield* serve(EventBroker.respond("chat", { owner: "anna" }))
      const source = yield* TestEventSource.make(url, { headers: { "last-event-id": id } })
      assert.deepStrictEqual(data(yield* TestEventSource.collect(source)), ["1", "2", ""])
      const replayed = Effect.map(
        metrics,
        (now) => (now["events.replayed"] ?? 0) - (before["events.replayed"] ?? 0)
      )
      yield* Effect.repeat(replayed, { until: (count) => count > 0 })
      assert.strictEqual(yield* replayed, 2)
    })))

  it.effect("has metrics and spans", () =>
    Effect.gen(function*() {
      const spans = new Set<string>()
      const recording = Effect.map(Effect.tracer, (tracer) =>
        Tracer.make({
          span: (name, ...rest) => {
            spans.add(name)
            return tracer.span(name, ...rest)
          },
          context: (execute, fiber) => tracer.context(execute, fiber)
        }))
      const before = yield* metrics
      const since = Effect.map(metrics, Record.map((value, name) => value - (before[name] ?? 0)))
      const take = (stream: EventStream.EventStream, n: number) =>
        EventStream.toStream(stream).pipe(
          ServerSentEvent.decode(),
          Stream.filter(({ data }) => data !== undefined),
          Stream.take(n),
          Stream.runDrain
        )
      const body = Effect.gen(function*() {
        yield* EventBroker.subscribe("b")
        const slow = yield* EventBroker.subscribe("a", { capacity: 2, strategy: "sliding" })
        const id = yield* EventBroker.publish("a", { data: 1 })
        yield* EventBroker.publish("a", { data: 2 })
        yield* EventBroker.publish("a", { data: 3 })
        yield* TestClock.adjust("1 second")
        yield* take(slow, 3)
        yield* Effect.flatMap(EventBroker.subscribe("a", { lastEventId: id }), (stream) => take(stream, 2))
        yield* Effect.flatMap(EventBroker.subscribe("a", { lastEventId: "other.1" }), (stream) => take(stream, 1))
        yield* EventBroker.subscribe("a", { capacity: 1 })
        yield* EventBroker.publish("a", { data: 4 })
        yield* TestClock.adjust("1 second")
        yield* EventBroker.subscribe("a")
        // The connections whose streams are not read any more have ended: this is the third.
        yield* EventBroker.subscribe("a")
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* since, {
          "connections": 2,
          "connections.shed": 1,
          "disconnects.slow": 1,
          "events.delivered": 5,
          "events.dropped": 2,
          "events.published": 4,
          "events.replayed": 2,
          "frames.queued": 2,
          "gaps": 1,
          "replay.events": 2,
          "resyncs": 1
        })
        const draining = yield* Effect.fork(EventBroker.drain)
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(draining)
      })
      yield* Effect.withTracer(run(body, { maxConnections: 2 }), yield* recording)
      assert.deepInclude(yield* since, { "connections": 0, "disconnects.slow": 1, "frames.queued": 0 })
      assert.deepStrictEqual(
        Array.from(spans).filter((name) => name.startsWith("EventBroker.")).sort(),
        ["EventBroker.publish", "EventBroker.replay", "EventBroker.subscribe"]
      )
    }))

  describe("with several nodes", () => {
    const nodes = <A, E>(
      body: (
        a: EventBroker.EventBroker.Service,
        b: EventBroker.EventBroker.Service
      ) => Effect.Effect<A, E, Scope.Scope>
    ) =>
      Effect.flatMap(Effect.all([EventBroker.make(), EventBroker.make()]), ([a, b]) => body(a, b)).pipe(
        Effect.scoped,
        Effect.provide(EventLog.layerMemory),
        LeakCheck.run
      )

    it.effect("counts the subscribers of all nodes, each connection once", () =>
      nodes((a, b) =>
        Effect.gen(function*() {
          const leave = yield* Scope.make()
          yield* Scope.extend(a.subscribe([Topic.pattern(Orders), "orders/1", "news"]), leave)
          yield* b.subscribe("orders/1")
          yield* b.subscribe(["orders/2", Topic.pattern(Topic.make(":any/:one", {}))])
          for (const node of [a, b]) {
            assert.strictEqual(yield* node.subscriberCount("orders/1"), 3)
            assert.strictEqual(yield* node.subscriberCount("orders/2"), 2)
            assert.strictEqual(yield* node.subscriberCount("news"), 1)
          }
          yield* Scope.close(leave, Exit.void)
          assert.strictEqual(yield* b.subscriberCount("orders/1"), 2)
          assert.strictEqual(yield* b.subscriberCount("news"), 0)
        })
      ))

    it.effect("revokes a key on all nodes", () =>
      nodes((a, b) =>
        Effect.gen(function*() {
          const [first, second, third] = yield* Effect.all([
            a.subscribe("news", { owner: "eve" }),
            b.subscribe("news", { owner: "eve" }),
            b.subscribe("news", { owner: "adam" })
          ])
          yield* a.disconnectOwner("eve")
          yield* Effect.forEach([first, second], (stream) => Stream.runDrain(EventStream.toStream(stream)))
          assert.isTrue(yield* EventStream.publish(third, { data: "still here" }))
        })
      ))

    it.effect("refuses their own channels to applications", () =>
      nodes((a) =>
        Effect.gen(function*() {
          for (
            const refused of [
              yield* Effect.flip(a.publish("$effect-realtime/revoked", { data: "eve" })),
              yield* Effect.flip(Effect.asVoid(a.subscribe(["news", "$effect-realtime/revoked"])))
            ]
          ) {
            assert.deepInclude(refused, { _tag: "EventLogError", reason: "InvalidChannel" })
          }
        })
      ))
  })
})
