import { inspect } from "node:util"

import type { Vitest } from "@effect/vitest"
import { assert } from "@effect/vitest"
import type { Scope } from "effect"
import {
  Array as Arr,
  Cause,
  Chunk,
  Clock,
  Context,
  Deferred,
  Effect,
  Either,
  Fiber,
  Layer,
  Logger,
  Ref,
  Schema,
  Stream
} from "effect"
import {
  EventBroker,
  EventLog,
  EventStream,
  NotificationOutbox,
  Notifier,
  ServerSentEvent,
  SubscriptionStore,
  WebPush,
  WebPushPayload
} from "effect-realtime"
import * as ManualClock from "effect-realtime/testing/ManualClock"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import { WebPushFailure } from "effect-realtime/WebPushError"
import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"

import type { Row } from "../support/memoryStorage.js"

const news: Notifier.NotifyContent = { event: { event: "paid", data: { n: 1 } }, push: "SECRET-PUSH" }

class Greeting extends Context.Tag("test/Greeting")<Greeting, string>() {}

const Paid = NotificationOutbox.template(
  "paid",
  Schema.Struct({ at: Schema.Date }),
  ({ at }, { locale = "en" }) => `${locale} ${at.toISOString().slice(0, 10)}`
)

const Reminder = NotificationOutbox.template(
  "reminder",
  Schema.String,
  (when) => Effect.map(Greeting, (greeting) => `${greeting} ${when}`)
)

const EventBrokerLive = Layer.provideMerge(EventBroker.layer, EventLog.layerMemory)

const texts = Effect.map(
  Effect.flatMap(TestPushService.TestPushService, ({ received }) => received),
  Arr.map(({ subscription, text }) => `${text} ${subscription.endpointId}`)
)

/** The storage of a test, with access to its rows. `change` changes all of them. */
export class TestStorage extends Context.Tag("test/TestStorage")<TestStorage, {
  readonly storage: NotificationOutbox.Storage
  readonly rows: Effect.Effect<ReadonlyArray<Pick<Row, "id" | "attempts" | "dueAt" | "claim">>>
  readonly change: (values: Partial<Pick<Row, "attempts" | "dueAt" | "claim" | "message">>) => Effect.Effect<void>
}>() {}

const rows = Effect.flatMap(TestStorage, ({ rows }) => rows)

const count = Effect.map(rows, ({ length }) => length)

/** The promises of an outbox, over each storage. Each build of the layer is a new storage. */
export const suite = <R, E>(
  it: Vitest.MethodsNonLive<R, true>,
  layerStorage: Layer.Layer<TestStorage | SubscriptionStore.SubscriptionStore, E, R>
): void => {
  const Live = Notifier.layer.pipe(
    Layer.provideMerge(EventBrokerLive),
    Layer.provideMerge(Layer.merge(layerStorage, TestPushService.layerWebPush))
  )

  /** Runs with an owner of two devices, and a clock that `advance` sets forward. */
  const run = <A, E2>(
    body: (test: {
      readonly outbox: NotificationOutbox.NotificationOutbox.Service
      readonly storage: NotificationOutbox.Storage
      readonly advance: (millis: number) => Effect.Effect<void>
      readonly phone: WebPushSubscription
      readonly laptop: WebPushSubscription
      readonly service: TestPushService.TestPushService.Service
    }) => Effect.Effect<A, E2, Layer.Layer.Success<typeof Live> | Scope.Scope>
  ) =>
    Effect.gen(function*() {
      const offset = yield* Ref.make(0)
      const real = Clock.make()
      const clock = Object.assign(Clock.make(), {
        currentTimeMillis: Effect.zipWith(real.currentTimeMillis, Ref.get(offset), (now, offset) => now + offset)
      })
      const service = yield* TestPushService.TestPushService
      const phone = yield* service.subscribe()
      const laptop = yield* service.subscribe()
      for (const subscription of [phone, laptop]) yield* SubscriptionStore.upsert("anna", subscription)
      const { storage } = yield* TestStorage
      const outbox = yield* NotificationOutbox.make(Effect.succeed(storage), { maxAttempts: 3, concurrency: 4 })
      const advance = (millis: number) => Ref.update(offset, (offset) => offset + millis)
      yield* Effect.withClock(body({ outbox, storage, advance, phone, laptop, service }), clock)
      assert.deepStrictEqual(yield* service.violations, [])
    }).pipe(Effect.scoped, Effect.provide(Live))

  it.effect("stores a notification until it is sent, and sends it unchanged", () =>
    run(({ laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        const payload = yield* WebPushPayload.make({ title: "Olá", body: "✓" })
        yield* outbox.enqueue("anna", news, { urgency: "high", ttl: "1 minute" })
        yield* outbox.enqueue("anna", { event: { data: new TextEncoder().encode("é") }, push: payload }, {
          topic: "t1"
        })
        yield* outbox.enqueue("nobody", news)
        assert.deepStrictEqual(yield* service.received, [])
        assert.strictEqual(yield* count, 3)
        assert.strictEqual(yield* outbox.drain, 3)
        assert.strictEqual(yield* count, 0)
        assert.sameMembers(
          yield* texts,
          [phone, laptop].flatMap(({ endpointId }) => [
            `SECRET-PUSH ${endpointId}`,
            `{"title":"Olá","body":"✓"} ${endpointId}`
          ])
        )
        const received = yield* service.received
        const plain = received.find(({ text }) => text === "SECRET-PUSH")
        assert.strictEqual(plain?.headers["urgency"], "high")
        // The ttl counts from enqueue.
        assert.isTrue(Number(plain?.headers["ttl"]) > 30 && Number(plain?.headers["ttl"]) <= 60)
        assert.sameMembers(received.map(({ headers }) => headers["topic"]), [undefined, undefined, "t1", "t1"])
        assert.strictEqual(yield* outbox.drain, 0)
      })
    ))

  it.effect("makes the push of each device from a template, in each attempt", () =>
    run(({ advance, laptop, phone, service, storage }) =>
      Effect.gen(function*() {
        const outbox = yield* NotificationOutbox.make(Effect.succeed(storage), { templates: [Paid, Reminder] }).pipe(
          Effect.provideService(Greeting, "Hello")
        )
        yield* SubscriptionStore.upsert("anna", phone, { locale: "pt" })
        yield* service.answer({ status: 503 }, laptop)
        yield* outbox.enqueue("anna", { event: {}, push: Paid.make({ at: new Date(0) }) })
        yield* outbox.enqueue("anna", { event: {}, push: Reminder.make("now") }, { exclude: [laptop.endpoint] })
        assert.strictEqual(yield* outbox.drain, 2)
        yield* service.answer({ status: 201 }, laptop)
        yield* advance(10_000)
        assert.strictEqual(yield* outbox.drain, 1)
        assert.strictEqual(yield* count, 0)
        assert.sameMembers(yield* texts, [
          `pt 1970-01-01 ${phone.endpointId}`,
          `en 1970-01-01 ${laptop.endpointId}`,
          `en 1970-01-01 ${laptop.endpointId}`,
          `Hello now ${phone.endpointId}`
        ])
      })
    ))

  it.effect("does not push to a device whose template throws or does not know the data, and sends to the others", () =>
    run(({ laptop, phone, service, storage }) =>
      Effect.gen(function*() {
        const throwing = NotificationOutbox.template("paid", Schema.Number, (n, { endpointId }) => {
          if (endpointId === phone.endpointId) throw new Error("no text")
          return `paid ${n}`
        })
        const make = (template: NotificationOutbox.Template<never>) =>
          NotificationOutbox.make(Effect.succeed(storage), { templates: [template] })
        const outbox = yield* make(throwing)
        const id = yield* outbox.enqueue("anna", { event: {}, push: throwing.make(7654) })
        assert.strictEqual(yield* outbox.drain, 1)
        assert.deepStrictEqual(yield* texts, [`paid 7654 ${laptop.endpointId}`])
        const rejected = { device: phone.endpointId, reason: "Rejected", isFinal: true } as const
        const letters = Stream.runCollect(outbox.deadLetters)
        assert.deepStrictEqual(
          Array.from(yield* letters, ({ failures, id }) => [id, failures]),
          [[id, [rejected]]]
        )

        // The Schema of another version does not accept the data, which is not logged.
        const lines: Array<string> = []
        const other = yield* make(NotificationOutbox.template("paid", Schema.Struct({ n: Schema.Number }), () => ""))
        assert.isTrue(yield* other.retry(id))
        assert.strictEqual(
          yield* Effect.provide(
            other.drain,
            Logger.replace(
              Logger.defaultLogger,
              Logger.make((options) => {
                lines.push(Logger.logfmtLogger.log(options))
              })
            )
          ),
          1
        )
        assert.deepStrictEqual(Array.from(yield* letters, ({ failures }) => failures), [[rejected]])
        assert.match(lines.join(), /does not conform/)
        assert.notMatch(lines.join(), /7654/)

        assert.isTrue(yield* other.retry(id))
        const mended = yield* make(NotificationOutbox.template("paid", Schema.Number, (n) => `mended ${n}`))
        assert.strictEqual(yield* mended.drain, 1)
        assert.strictEqual(yield* count, 0)
        assert.deepStrictEqual(yield* texts, [`paid 7654 ${laptop.endpointId}`, `mended 7654 ${phone.endpointId}`])
        assert.strictEqual((yield* service.received).length, 2)
      })
    ))

  it.effect("tries a notification again whose template this node does not have, until its attempts end", () =>
    run(({ advance, outbox, storage }) =>
      Effect.gen(function*() {
        const newer = yield* NotificationOutbox.make(Effect.succeed(storage), { templates: [Paid] })
        const push = Paid.make({ at: new Date(0) })
        const sent = yield* newer.enqueue("anna", { event: {}, push })
        assert.strictEqual(yield* outbox.drain, 1)
        yield* advance(3_600_000)
        assert.strictEqual(yield* newer.drain, 1)
        assert.strictEqual((yield* texts).length, 2)

        const dead = yield* newer.enqueue("anna", { event: {}, push })
        for (const _ of [1, 2, 3]) {
          assert.strictEqual(yield* outbox.drain, 1)
          yield* advance(3_600_000)
        }
        assert.strictEqual(yield* outbox.drain, 0)
        assert.notStrictEqual(sent, dead)
        assert.deepStrictEqual(Array.from(yield* Stream.runCollect(outbox.deadLetters), ({ id }) => id), [dead])
        assert.strictEqual((yield* texts).length, 2)
      })
    ))

  it.effect("refuses a template that it does not have, data that its Schema refuses, and padding that is not supported", () =>
    run(({ outbox, storage }) =>
      Effect.gen(function*() {
        const webPush = yield* WebPush.WebPush
        const strict = yield* NotificationOutbox.make(Effect.succeed(storage), { templates: [Paid] }).pipe(
          Effect.provideService(WebPush.WebPush, { ...webPush, supportsPadding: false })
        )
        const push = Paid.make({ at: new Date(0) })
        const refused: ReadonlyArray<readonly [Effect.Effect<string, unknown>, RegExp]> = [
          [outbox.enqueue("anna", { event: {}, push }), /InvalidNotification: push must be a text, .* of a template/],
          [outbox.enqueue("anna", { event: {}, push: JSON.parse("{}") }), /InvalidNotification: push must be a text/],
          [
            strict.enqueue("anna", { event: {}, push: Paid.make({ at: new Date(Number.NaN) }) }),
            /InvalidNotification: push must have data that conforms/
          ],
          [strict.enqueue("anna", news, { padding: 1 }), /InvalidNotification: padding must be 0/]
        ]
        for (const [enqueue, rule] of refused) assert.match(String(yield* Effect.flip(enqueue)), rule)
        assert.strictEqual(yield* count, 0)
        yield* outbox.enqueue("anna", news, { padding: 100 })
        yield* strict.enqueue("anna", news, { padding: 0 })
        assert.strictEqual(yield* outbox.drain, 2)
        const cause = yield* Effect.flip(
          Effect.sandbox(NotificationOutbox.make(Effect.succeed(storage), { templates: [Paid, Paid] }))
        )
        assert.match(Cause.pretty(cause), /NotificationOutbox: templates must have different names/)
      })
    ))

  it.effect("refuses data that JSON does not preserve, and names its field", () =>
    run(({ storage }) =>
      Effect.gen(function*() {
        const any = NotificationOutbox.template("any", Schema.Unknown, (data) => JSON.stringify(data))
        const total = NotificationOutbox.template("total", Schema.Struct({ n: Schema.Number }), ({ n }) => `${n}`)
        const byDate = NotificationOutbox.template("date", Schema.DateFromSelf, (date) => date.toISOString())
        const outbox = yield* NotificationOutbox.make(Effect.succeed(storage), {
          templates: [Paid, any, total, byDate]
        })
        const handMade = (push: unknown) => JSON.parse(JSON.stringify(push))
        const cyclic: Record<string, unknown> = {}
        cyclic.self = cyclic
        const refused: ReadonlyArray<readonly [NotificationOutbox.TemplatePush, RegExp]> = [
          [total.make({ n: NaN }), /JSON preserves, unlike data\.n$/],
          [total.make({ n: -Infinity }), /JSON preserves, unlike data\.n$/],
          [byDate.make(new Date(0)), /JSON preserves, unlike data$/],
          [any.make(undefined), /conforms to the Schema of its template, in data$/],
          [any.make({ list: ["a", undefined] }), /unlike data\.list\.1$/],
          [any.make(Array(1)), /unlike data\.0$/],
          [any.make({ deep: [{ at: new Date(0) }] }), /unlike data\.deep\.0\.at$/],
          [any.make({ call: () => 1 }), /unlike data\.call$/],
          [any.make(new Map()), /unlike data$/],
          [any.make(1n), /conforms to the Schema of its template, in data$/],
          [any.make(cyclic), /conforms to the Schema of its template, in data$/],
          [handMade({ _tag: "TemplatePush" }), /push must be a text/],
          [handMade({ _tag: "TemplatePush", template: "any" }), /push must be a text/],
          [handMade({ _tag: "TemplatePush", template: "any", data: "1" }), /push must be a text/],
          [{ _tag: "TemplatePush", template: "paid", data: Either.right("{}") }, /template, in data\.at$/]
        ]
        for (const [push, rule] of refused) {
          const error = yield* Effect.flip(outbox.enqueue("anna", { event: {}, push }))
          assert.isTrue(error._tag === "NotificationOutboxError" && error.reason === "InvalidNotification")
          assert.match(error.message, rule)
        }
        assert.strictEqual(yield* count, 0)
        yield* outbox.enqueue("anna", {
          event: {},
          push: any.make({ zero: -0, none: null, gone: undefined, list: [true, "a"] })
        })
        assert.strictEqual(yield* outbox.drain, 1)
        const sent = `{"zero":0,"none":null,"list":[true,"a"]}`
        assert.deepStrictEqual((yield* texts).map((text) => text.split(" ")[0]), [sent, sent])
      })
    ))

  it.effect("tries a device again whose template does not end in time", () =>
    run(({ advance, laptop, phone, storage }) =>
      Effect.gen(function*() {
        const started = yield* Deferred.make<void>()
        const clock = ManualClock.make()
        let interrupted = 0
        const slow = NotificationOutbox.template(
          "slow",
          Schema.String,
          (text) =>
            interrupted === 0
              ? Deferred.succeed(started, undefined).pipe(
                Effect.zipRight(Effect.never),
                Effect.onInterrupt(() => Effect.sync(() => interrupted++))
              )
              : Effect.succeed(text)
        )
        const outbox = yield* NotificationOutbox.make(Effect.succeed(storage), { templates: [slow] })
        yield* outbox.enqueue("anna", { event: {}, push: slow.make("paid") }, { exclude: [laptop.endpoint] })
        // The tokens are valid, and the notification is due.
        yield* clock.advance(Date.now())
        const draining = yield* Effect.fork(Effect.withClock(outbox.drain, clock))
        yield* Deferred.await(started)
        // The default of `timeout`.
        yield* clock.advance("10 seconds")
        assert.strictEqual(yield* Fiber.join(draining), 1)
        assert.strictEqual(interrupted, 1)
        yield* advance(30_000)
        assert.strictEqual(yield* outbox.drain, 1)
        assert.strictEqual(yield* count, 0)
        assert.deepStrictEqual(yield* texts, [`paid ${phone.endpointId}`])
      })
    ))

  it.effect("sends to no excluded device, in any attempt", () =>
    run(({ advance, laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        yield* service.answer({ status: 503 }, phone)
        yield* outbox.enqueue("anna", news, { exclude: [laptop.endpoint] })
        yield* outbox.drain
        // The phone subscribes anew, and the laptop renews its subscription in the meantime.
        yield* SubscriptionStore.upsert("anna", laptop)
        yield* SubscriptionStore.upsert("anna", yield* service.subscribe(), { replaces: phone.endpoint })
        yield* advance(3_600_000)
        yield* outbox.drain
        assert.strictEqual(yield* count, 0)
        const reached = (yield* service.received).map(({ subscription }) => subscription.endpoint)
        assert.strictEqual(reached.length, 2)
        assert.notInclude(reached, laptop.endpoint)
      })
    ))

  it.effect("does not delay the others for a slow notification", () =>
    run(({ laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        // No page acknowledges the event.
        yield* outbox.enqueue("anna", news, { delay: "1 hour" })
        const draining = yield* Effect.fork(outbox.drain)
        yield* Effect.repeat(outbox.enqueue("anna", { event: {}, push: "quick" }), { times: 9 })
        yield* Effect.repeat(Effect.delay(service.received, "10 millis"), { until: ({ length }) => length === 20 })
        assert.sameMembers(
          Arr.dedupe(yield* texts),
          [phone, laptop].map(({ endpointId }) => `quick ${endpointId}`)
        )
        yield* Effect.repeat(Effect.delay(count, "10 millis"), { until: (left) => left === 1 })
        yield* Fiber.interrupt(draining)
      })
    ))

  it.effect("accepts an infinite ttl and timeout", () =>
    run(({ outbox }) =>
      Effect.gen(function*() {
        yield* outbox.enqueue("anna", news, { timeout: Infinity, ttl: Infinity })
        assert.strictEqual(yield* outbox.drain, 1)
        assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Stream.runCollect(outbox.deadLetters)), [])
        assert.strictEqual(yield* outbox.drain, 0)
      })
    ))

  it.effect("refuses an event that cannot be sent", () =>
    run(({ outbox }) =>
      Effect.gen(function*() {
        const byField = yield* Effect.flip(outbox.enqueue("anna", { event: { event: "a\nb" }, push: "" }))
        assert.deepInclude(byField, { field: "event", reason: "ControlCharacter" })
        const byName = yield* Effect.flip(outbox.enqueue("anna", { event: { event: "gap" }, push: "" }))
        assert.deepInclude(byName, { field: "event", reason: "Reserved" })
        const byId = yield* Effect.flip(outbox.enqueue("anna", { event: { id: "1" }, push: "" }))
        assert.deepInclude(byId, { field: "id", reason: "Assigned" })
        assert.strictEqual(yield* count, 0)
      })
    ))

  it.effect("refuses at enqueue a notification that could never be sent, and stores nothing", () =>
    run(({ outbox }) =>
      Effect.gen(function*() {
        const refusal = (owner: string, push: WebPush.Message, options: object) =>
          Effect.flip(outbox.enqueue(owner, { event: {}, push }, options))
        const refused: ReadonlyArray<readonly [owner: string, push: WebPush.Message, options: object, detail: RegExp]> =
          [
            ["anna", new Uint8Array(5_000_000), {}, /^push /],
            ["anna", new Uint8Array(3994), {}, /^push /],
            ["anna", "", { urgency: "urgent" }, /^urgency /],
            ["anna", "", { policy: "never" }, /^policy /],
            ["anna", "", { ttl: "soon" }, /^ttl /],
            ["anna", "", { ttl: NaN }, /^ttl /],
            ["anna", "", { timeout: -1 }, /^timeout /],
            ["anna", "", { timeout: 0 }, /^timeout /],
            ["anna", "", { delay: "2 minutes", ttl: "60 seconds" }, /^delay /],
            ["anna", "", { delay: "-1 seconds" }, /^delay /],
            ["anna", "", { delay: Infinity }, /^delay /],
            ["anna", "", { padding: 1.5 }, /^padding /],
            ["anna", "", { topic: 7 }, /^topic /],
            ["a\0b", "", {}, /^owner /],
            ["\ud800", "", {}, /^owner /]
          ]
        for (const [owner, push, options, detail] of refused) {
          const error = yield* refusal(owner, push, options)
          if (error._tag !== "NotificationOutboxError") return assert.fail(error._tag)
          assert.strictEqual(error.reason, "InvalidNotification")
          assert.match(error.detail, detail)
        }
        assert.strictEqual(yield* count, 0)
        yield* outbox.enqueue("anna", { event: {}, push: new Uint8Array(3993) }, { padding: 0, ttl: 0, delay: 0 })
        assert.strictEqual(yield* outbox.drain, 1)
      })
    ))

  it.effect("preserves a byte order mark", () =>
    run(({ outbox, service }) =>
      Effect.gen(function*() {
        const broker = yield* EventBroker.EventBroker
        const page = yield* broker.subscribe("notifications/anna")
        const bytes = new TextEncoder().encode("\ufeffolá")
        yield* outbox.enqueue("anna", { event: { event: "paid", data: bytes }, push: bytes }, { policy: "always" })
        assert.strictEqual(yield* outbox.drain, 1)
        assert.deepStrictEqual((yield* service.received).map(({ bytes }) => [...bytes]), [[...bytes], [...bytes]])
        yield* EventStream.end(page)
        const events = yield* Stream.runCollect(ServerSentEvent.decode(EventStream.toStream(page)))
        assert.include(Array.from(events, ({ data }) => data), "\ufeffolá")
      })
    ))

  it.effect("counts the ttl from enqueue, and names the devices for which a notification has expired", () =>
    run(({ advance, laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        const head = yield* Effect.flatMap(EventLog.EventLog, ({ head }) => head)
        const expired = yield* outbox.enqueue("anna", news, { ttl: "60 seconds" })
        const unknown = yield* outbox.enqueue("ben", news, { ttl: 0 })
        yield* advance(600_000)
        assert.strictEqual(yield* outbox.drain, 2)
        assert.deepStrictEqual(yield* service.received, [])
        assert.deepStrictEqual(yield* Effect.flatMap(EventLog.EventLog, ({ head }) => head), head)
        const letters = Chunk.toReadonlyArray(yield* Stream.runCollect(outbox.deadLetters))
        assert.sameMembers(letters.map(({ id }) => id), [expired, unknown])
        assert.sameDeepMembers(letters.find(({ id }) => id === expired)?.failures.slice() ?? [], [
          { device: phone.endpointId, reason: "Expired", isFinal: true },
          { device: laptop.endpointId, reason: "Expired", isFinal: true }
        ])
        // The ttl has still passed after retry.
        assert.isTrue(yield* outbox.retry(expired))
        assert.strictEqual(yield* outbox.drain, 1)
        assert.deepStrictEqual(yield* service.received, [])

        // The push service gets the rest of the ttl, less the delay for acknowledgements.
        yield* outbox.enqueue("anna", news, { ttl: "1 hour" })
        yield* outbox.enqueue("anna", { ...news, push: "late" }, { ttl: "1 hour", delay: "20 millis" })
        yield* advance(600_000)
        assert.strictEqual(yield* outbox.drain, 2)
        for (const { headers } of yield* service.received) {
          assert.isTrue(Number(headers["ttl"]) > 2970 && Number(headers["ttl"]) <= 3000, headers["ttl"])
        }
      })
    ))

  it.effect("counts the ttl of the WebPush layer from enqueue too", () =>
    run(({ advance, outbox: { deadLetters }, service, storage }) =>
      Effect.gen(function*() {
        const push = yield* Layer.build(TestPushService.layerWebPushWith({ ttl: "1 hour" }))
        const outbox = yield* NotificationOutbox.make(Effect.succeed(storage)).pipe(Effect.provide(push))
        const expired = yield* outbox.enqueue("anna", news)
        const own = yield* outbox.enqueue("anna", { ...news, push: "own" }, { ttl: "1 day" })
        yield* advance(3 * 3_600_000)
        assert.strictEqual(yield* outbox.drain, 2)
        assert.deepStrictEqual((yield* service.received).map(({ text }) => text), ["own", "own"])
        assert.notStrictEqual(own, expired)
        assert.deepStrictEqual(Array.from(yield* Stream.runCollect(deadLetters), ({ id }) => id), [expired])
      })
    ))

  it.effect("stops trying a device at the end of the ttl", () =>
    run(({ advance, outbox, phone, service }) =>
      Effect.gen(function*() {
        yield* service.answer({ status: 503, headers: { "retry-after": "7200" } }, phone)
        yield* outbox.enqueue("anna", news, { ttl: "1 hour" })
        assert.strictEqual(yield* outbox.drain, 1)
        yield* advance(3_600_000)
        assert.strictEqual(yield* outbox.drain, 1)
        const [letter] = yield* Stream.runCollect(outbox.deadLetters)
        assert.deepStrictEqual(letter?.failures, [{ device: phone.endpointId, reason: "Expired", isFinal: true }])
        assert.strictEqual((yield* texts).length, 2)
      })
    ))

  it.effect("retries each device at its own time, within a day", () =>
    run(({ advance, laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        const sentTo = (device: WebPushSubscription) =>
          Effect.map(texts, (texts) => texts.filter((text) => text.includes(device.endpointId)).length)
        yield* service.answer({ status: 429, headers: { "retry-after": "999999999" } }, phone)
        yield* service.answer({ status: 502 }, laptop)
        yield* outbox.enqueue("anna", news)
        assert.strictEqual(yield* outbox.drain, 1)
        yield* advance(10_000)
        assert.strictEqual(yield* outbox.drain, 1)
        assert.deepStrictEqual([yield* sentTo(phone), yield* sentTo(laptop)], [1, 2])
        yield* service.answer({ status: 201 }, laptop)
        yield* advance(10_000)
        assert.strictEqual(yield* outbox.drain, 1)
        assert.deepStrictEqual([yield* sentTo(phone), yield* sentTo(laptop)], [1, 3])
        // The clock stops here: the push service would refuse a token that was signed a day later.
        const [row] = yield* rows
        const wait = Number(row?.dueAt) - (yield* Clock.currentTimeMillis)
        assert.isTrue(wait > 86_000_000 && wait <= 86_400_000, `${wait}`)
      })
    ))

  it.effect("counts the attempts of each device on its own", () =>
    run(({ advance, laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        yield* service.answer({ status: 429, headers: { "retry-after": "36000" } }, phone)
        yield* service.answer({ status: 502 }, laptop)
        const id = yield* outbox.enqueue("anna", news)
        for (const attempts of [1, 1, 1, 0]) {
          assert.strictEqual(yield* outbox.drain, attempts)
          yield* advance(60_000)
        }
        yield* service.answer({ status: 201 }, phone)
        yield* advance(36_000_000)
        assert.strictEqual(yield* outbox.drain, 1)
        const [letter] = yield* Stream.runCollect(outbox.deadLetters)
        assert.strictEqual(letter?.id, id)
        assert.deepStrictEqual(letter?.failures, [{ device: laptop.endpointId, reason: "Unavailable", isFinal: false }])
      })
    ))

  it.effect("sends to an endpoint that replaces another one between two attempts, also after retry", () =>
    run(({ advance, laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        const replace = (old: WebPushSubscription) =>
          Effect.gen(function*() {
            const fresh = yield* service.subscribe()
            yield* SubscriptionStore.upsert("anna", fresh, { replaces: old.endpoint })
            return fresh
          })
        yield* service.answer({ status: 503 }, phone)
        yield* outbox.enqueue("anna", news)
        assert.strictEqual(yield* outbox.drain, 1)
        const phone2 = yield* replace(phone)
        yield* service.answer({ status: 503 }, phone2)
        yield* advance(10_000)
        assert.strictEqual(yield* outbox.drain, 1)
        yield* advance(10_000)
        const phone3 = yield* replace(phone2)
        assert.strictEqual(yield* outbox.drain, 1)
        assert.strictEqual(yield* count, 0)

        yield* service.answer({ status: 413 }, phone3)
        const id = yield* outbox.enqueue("anna", { ...news, push: "by hand" })
        assert.strictEqual(yield* outbox.drain, 1)
        const phone4 = yield* replace(phone3)
        assert.isTrue(yield* outbox.retry(id))
        assert.strictEqual(yield* outbox.drain, 1)
        assert.strictEqual(yield* count, 0)
        // Each device gets each notification once.
        assert.deepStrictEqual(yield* texts, [
          ...(yield* texts).slice(0, 2),
          `SECRET-PUSH ${phone2.endpointId}`,
          `SECRET-PUSH ${phone3.endpointId}`,
          ...(yield* texts).slice(4, 6),
          `by hand ${phone4.endpointId}`
        ])
        assert.sameMembers((yield* texts).slice(0, 2), [
          `SECRET-PUSH ${phone.endpointId}`,
          `SECRET-PUSH ${laptop.endpointId}`
        ])
        assert.sameMembers((yield* texts).slice(4, 6), [`by hand ${phone3.endpointId}`, `by hand ${laptop.endpointId}`])
      })
    ))

  it.effect("reports a device that was removed between two attempts", () =>
    run(({ advance, outbox, phone, service }) =>
      Effect.gen(function*() {
        yield* service.answer({ status: 503 }, phone)
        yield* outbox.enqueue("anna", news)
        assert.strictEqual(yield* outbox.drain, 1)
        yield* SubscriptionStore.remove("anna", phone.endpoint)
        yield* advance(10_000)
        assert.strictEqual(yield* outbox.drain, 1)
        const [letter] = yield* Stream.runCollect(outbox.deadLetters)
        assert.deepStrictEqual(letter?.failures, [{ device: phone.endpointId, reason: "Removed", isFinal: true }])
      })
    ))

  it.effect("sends to an endpoint that replaces another one while the push service reports it as gone", () =>
    run(({ laptop, outbox, phone, service, storage }) =>
      Effect.gen(function*() {
        const fresh = yield* service.subscribe()
        yield* service.answer({ status: 410 }, phone)
        const context = yield* Effect.context<Layer.Layer.Success<typeof Live>>()
        const store = Context.get(context, SubscriptionStore.SubscriptionStore)
        const replacing = yield* Effect.provideService(
          Notifier.make,
          SubscriptionStore.SubscriptionStore,
          SubscriptionStore.SubscriptionStore.of({
            ...store,
            prune: (gone) =>
              Effect.zipRight(store.upsert("anna", fresh, { replaces: phone.endpoint }), store.prune(gone))
          })
        )
        const other = yield* Effect.provideService(
          NotificationOutbox.make(Effect.succeed(storage)),
          Notifier.Notifier,
          replacing
        )
        yield* outbox.enqueue("anna", news)
        assert.strictEqual(yield* other.drain, 1)
        assert.sameMembers(
          yield* texts,
          [phone, laptop, fresh].map(({ endpointId }) => `SECRET-PUSH ${endpointId}`)
        )
        assert.strictEqual(yield* count, 0)
      })
    ))

  it.effect("sets a topic from the second attempt on, and at the first one only if the options have it", () =>
    run(({ advance, laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        yield* service.answer({ status: 503 }, phone)
        yield* outbox.enqueue("anna", news)
        assert.strictEqual(yield* outbox.drain, 1)
        yield* advance(10_000)
        assert.strictEqual(yield* outbox.drain, 1)
        const topics = (device: WebPushSubscription) =>
          Effect.map(service.received, (received) =>
            received.filter(({ subscription }) =>
              subscription.endpointId === device.endpointId
            )
              .map(({ headers }) => headers["topic"]))
        assert.deepStrictEqual(yield* topics(laptop), [undefined])
        const [first, second] = yield* topics(phone)
        assert.isUndefined(first)
        assert.match(second ?? "", /^[\w-]{32}$/)
      })
    ))

  it.effect("retries a device whose host resolved to a blocked address", () =>
    run(({ advance, outbox, service, storage }) =>
      Effect.gen(function*() {
        const context = yield* Effect.context<Layer.Layer.Success<typeof Live>>()
        const real = Context.get(context, WebPush.WebPush)
        let detail: string | undefined = "ERR_BLOCKED_ADDRESS"
        const blocked = WebPush.WebPush.of({
          ...real,
          sendMany: (subscriptions, ...rest) =>
            Effect.map(real.sendMany([], ...rest), (report) => ({
              ...report,
              outcomes: Arr.map([...subscriptions], (subscription) => ({
                subscription,
                result: Either.left(
                  new WebPushFailure({ reason: "Blocked", endpointId: subscription.endpointId, detail })
                )
              }))
            }))
        })
        const notifier = yield* Effect.provideService(Notifier.make, WebPush.WebPush, blocked)
        const other = yield* NotificationOutbox.make(Effect.succeed(storage)).pipe(
          Effect.provideService(Notifier.Notifier, notifier),
          Effect.provideService(WebPush.WebPush, blocked)
        )
        yield* other.enqueue("anna", news)
        assert.strictEqual(yield* other.drain, 1)
        yield* advance(10_000)
        assert.strictEqual(yield* outbox.drain, 1)
        assert.strictEqual((yield* service.received).length, 2)
        // An endpoint that the policy blocks is a final failure.
        detail = undefined
        const id = yield* other.enqueue("anna", news)
        assert.strictEqual(yield* other.drain, 1)
        assert.isTrue(yield* other.discard(id))
      })
    ))

  it.effect("renews the lease of an attempt that takes longer than the lease", () =>
    run(({ outbox, storage }) =>
      Effect.gen(function*() {
        const context = yield* Effect.context<Layer.Layer.Success<typeof Live>>()
        const stuck = Notifier.Notifier.of({ ...Context.get(context, Notifier.Notifier), notify: () => Effect.never })
        const other = yield* Effect.provideService(
          NotificationOutbox.make(Effect.succeed(storage), { lease: "3 seconds" }),
          Notifier.Notifier,
          stuck
        )
        yield* outbox.enqueue("anna", news)
        const fiber = yield* Effect.fork(other.drain)
        const lease = Effect.map(
          rows,
          (rows) => rows.find(({ claim }) => claim !== null)?.dueAt
        )
        const first = yield* Effect.repeat(Effect.delay(lease, "5 millis"), { until: (dueAt) => dueAt !== undefined })
        yield* Effect.repeat(Effect.delay(lease, "50 millis"), { until: (dueAt) => dueAt !== first }).pipe(
          Effect.timeout("20 seconds")
        )
        // A second claim would have changed dueAt too.
        assert.deepStrictEqual((yield* rows).map(({ attempts }) => attempts), [1])
        yield* Fiber.interrupt(fiber)
      })
    ))

  it.effect("dies if an option is out of its range", () =>
    Effect.gen(function*() {
      const { storage } = yield* TestStorage
      const refused: ReadonlyArray<NotificationOutbox.Options> = [
        { concurrency: 0 },
        { concurrency: NaN },
        { maxAttempts: 1.5 },
        { lease: NaN },
        { lease: 0 },
        { lease: Infinity },
        { pollInterval: -1 }
      ]
      for (const options of refused) {
        const cause = yield* Effect.flip(Effect.sandbox(NotificationOutbox.make(Effect.succeed(storage), options)))
        assert.isTrue(
          Cause.isDie(cause) && Cause.pretty(cause).includes(Object.keys(options)[0] ?? "?"),
          inspect(options)
        )
      }
    }).pipe(Effect.provide(Live)))

  it.effect("retries a device after its Retry-After, and notifies no other device twice", () =>
    run(({ advance, laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        const page = yield* EventBroker.subscribe("notifications/ben")
        const broker = yield* EventBroker.EventBroker
        assert.isDefined(page)
        yield* service.answer({ status: 429, headers: { "retry-after": "600" } }, phone)
        yield* outbox.enqueue("anna", news)
        const head = yield* Effect.flatMap(EventLog.EventLog, ({ head }) => head)
        assert.strictEqual(yield* outbox.drain, 1)
        yield* service.answer({ status: 201 }, phone)
        yield* advance(599_000)
        assert.strictEqual(yield* outbox.drain, 0)
        yield* advance(2_000)
        assert.strictEqual(yield* outbox.drain, 1)
        assert.deepStrictEqual((yield* texts).filter((text) => text.includes(laptop.endpointId)).length, 1)
        assert.deepStrictEqual((yield* texts).filter((text) => text.includes(phone.endpointId)).length, 2)
        // The event was published once.
        const after = yield* Effect.flatMap(EventLog.EventLog, ({ head }) => head)
        assert.strictEqual(after.seq, head.seq + 1)
        assert.strictEqual(yield* count, 0)
        yield* broker.drain
      })
    ))

  it.effect("makes a dead letter after maxAttempts, and retries it on request", () =>
    run(({ advance, laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        yield* service.answer({ status: 503 }, phone)
        yield* service.answer({ status: 413 }, laptop)
        const id = yield* outbox.enqueue("anna", news)
        for (const attempts of [1, 1, 1, 0]) {
          assert.strictEqual(yield* outbox.drain, attempts)
          yield* advance(2 * 3_600_000)
        }
        // A final failure was not retried.
        assert.strictEqual((yield* texts).filter((text) => text.includes(laptop.endpointId)).length, 1)
        const [letter, ...others] = Chunk.toReadonlyArray(yield* Stream.runCollect(outbox.deadLetters))
        assert.deepStrictEqual(others, [])
        assert.deepInclude(letter, { id, owner: "anna", attempts: 3 })
        assert.sameDeepMembers([...letter?.failures ?? []], [
          { device: phone.endpointId, reason: "Unavailable", isFinal: false },
          { device: laptop.endpointId, reason: "PayloadTooLarge", isFinal: true }
        ])
        assert.notInclude(inspect(letter, { depth: 9 }), "SECRET")

        yield* service.answer({ status: 201 }, phone)
        assert.isTrue(yield* outbox.retry(id))
        assert.isFalse(yield* outbox.retry(id))
        assert.isFalse(yield* outbox.discard(id))
        yield* service.answer({ status: 413 }, laptop)
        assert.strictEqual(yield* outbox.drain, 1)
        assert.isTrue(yield* outbox.discard(id))
        assert.isFalse(yield* outbox.discard(id))
        assert.strictEqual(yield* count, 0)
      })
    ))

  it.effect("retries for about three hours by default", () =>
    run(({ advance, service, storage }) =>
      Effect.gen(function*() {
        const outbox = yield* NotificationOutbox.make(Effect.succeed(storage))
        yield* service.answer({ status: 503 })
        yield* outbox.enqueue("anna", news)
        const start = yield* Clock.currentTimeMillis
        // The backoff of the 13 attempts before the last one: 2, 4, … 2048 seconds, then an hour at most, each
        // multiplied by 0.5 to 1.5.
        for (let attempts = 1; attempts <= 14; attempts++) {
          assert.strictEqual(yield* outbox.drain, 1)
          const [row] = yield* rows
          yield* advance(Math.max(0, Number(row?.dueAt) - (yield* Clock.currentTimeMillis)))
        }
        assert.strictEqual(yield* outbox.drain, 0)
        assert.strictEqual((yield* Stream.runCollect(outbox.deadLetters)).length, 1)
        const hours = ((yield* Clock.currentTimeMillis) - start) / 3_600_000
        assert.isTrue(hours > 1.5 && hours < 4.75, `${hours} hours`)
      })
    ))

  it.effect("lets several nodes drain one storage, and sends each notification once", () =>
    run(({ outbox, service, storage }) =>
      Effect.gen(function*() {
        const others = yield* Effect.replicateEffect(
          NotificationOutbox.make(Effect.succeed(storage), { concurrency: 3 }),
          3
        )
        yield* Effect.forEach(Arr.range(1, 40), (n) => outbox.enqueue("anna", { ...news, push: `${n}` }), {
          discard: true
        })
        const drained = yield* Effect.forEach([outbox, ...others], ({ drain }) => drain, { concurrency: "unbounded" })
        assert.strictEqual(drained.reduce((sum, n) => sum + n, 0), 40)
        assert.strictEqual((yield* service.received).length, 80)
        assert.strictEqual(new Set(yield* texts).size, 80)
      })
    ))

  it.effect("takes over from a node that died after its lease, and from an interrupted one at once", () =>
    run(({ advance, outbox, service, storage }) =>
      Effect.gen(function*() {
        const { change } = yield* TestStorage
        yield* outbox.enqueue("anna", news)
        const context = yield* Effect.context<Layer.Layer.Success<typeof Live>>()
        const sending = yield* Deferred.make<void>()
        const stuck = Notifier.Notifier.of({
          ...Context.get(context, Notifier.Notifier),
          notify: () => Effect.zipRight(Deferred.succeed(sending, undefined), Effect.never)
        })
        const other = yield* Effect.provideService(
          NotificationOutbox.make(Effect.succeed(storage)),
          Notifier.Notifier,
          stuck
        )
        const fiber = yield* Effect.fork(other.drain)
        yield* Deferred.await(sending)
        assert.strictEqual(yield* outbox.drain, 0)
        yield* Fiber.interrupt(fiber)
        // The interrupted attempt does not count.
        assert.deepStrictEqual((yield* rows).map(({ attempts }) => attempts), [0])
        assert.strictEqual(yield* outbox.drain, 1)

        yield* outbox.enqueue("anna", news)
        const now = yield* Clock.currentTimeMillis
        yield* change({ claim: "dead", attempts: 1, dueAt: now + 30_000 })
        assert.strictEqual(yield* outbox.drain, 0)
        yield* advance(30_001)
        assert.strictEqual(yield* outbox.drain, 1)

        // Each attempt ended with the death of its node.
        const id = yield* outbox.enqueue("anna", news)
        yield* change({ claim: "dead", attempts: 3 })
        assert.strictEqual(yield* outbox.drain, 1)
        assert.isTrue(yield* outbox.discard(id))
        assert.strictEqual((yield* service.received).length, 4)
      })
    ))

  it.effect("sends no claimed notification after the node was suspended for longer than its lease", () =>
    run(({ advance, outbox, service, storage }) =>
      Effect.gen(function*() {
        const ids = yield* Effect.forEach(["1", "2", "3", "4"], (push) => outbox.enqueue("anna", { ...news, push }))
        const context = yield* Effect.context<Layer.Layer.Success<typeof Live>>()
        const real = Context.get(context, Notifier.Notifier)
        const [sending, proceed] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const slow = Notifier.Notifier.of({
          ...real,
          notify: (...notification) =>
            Deferred.succeed(sending, undefined).pipe(
              Effect.zipRight(Deferred.await(proceed)),
              Effect.zipRight(real.notify(...notification))
            )
        })
        const stopped = yield* Effect.provideService(
          NotificationOutbox.make(Effect.succeed(storage), { concurrency: 2 }),
          Notifier.Notifier,
          slow
        )
        const fiber = yield* Effect.fork(stopped.drain)
        yield* Deferred.await(sending)
        // The node claims more notifications than it sends at once.
        yield* Effect.repeat(
          Effect.delay(rows, "5 millis"),
          { until: (rows) => rows.filter(({ claim }) => claim !== null).length > 2 }
        )
        yield* advance(30_001)
        assert.strictEqual(yield* outbox.drain, ids.length)
        yield* Deferred.succeed(proceed, undefined)
        yield* Fiber.join(fiber)
        // Each notification went to two devices, and the two that were being sent went out twice.
        assert.strictEqual((yield* service.received).length, 2 * (ids.length + 2))
        assert.strictEqual(yield* count, 0)
      })
    ))

  it.effect("makes a dead letter of an unreadable entry, and sends the others", () =>
    run(({ outbox, service }) =>
      Effect.gen(function*() {
        const { change } = yield* TestStorage
        const id = yield* outbox.enqueue("anna", news)
        yield* change({ message: "{\"SECRET\":1}" })
        yield* outbox.enqueue("anna", news)
        yield* outbox.drain
        assert.strictEqual((yield* service.received).length, 2)
        assert.deepStrictEqual(
          Array.from(yield* Stream.runCollect(outbox.deadLetters), ({ id }) => id),
          [id]
        )
      })
    ))

  it.effect("logs only the reason when the storage fails or dies, and the code of a failure", () =>
    run(({ storage }) =>
      Effect.gen(function*() {
        const lines: Array<string> = []
        const logger = Logger.make(({ cause, message }) =>
          void lines.push(`${inspect(message)} ${Cause.pretty(cause)}`)
        )
        const claims = [
          [
            "(Unavailable, 42P01)",
            new NotificationOutbox.NotificationOutboxError({ reason: "Unavailable", detail: "42P01" })
          ],
          ["(defect)", Effect.die(new Error("SECRET"))],
          ["(interruption)", Effect.interrupt]
        ] as const
        for (const [reason, claim] of claims) {
          yield* Effect.repeat(Effect.delay(Effect.sync(() => lines.length), "5 millis"), { until: (n) => n > 1 }).pipe(
            Effect.provide(
              NotificationOutbox.layerWith(Effect.succeed({ ...storage, claim: () => claim }), { pollInterval: 1 })
                .pipe(
                  Layer.provide(Logger.replace(Logger.defaultLogger, logger))
                )
            )
          )
          assert.isTrue(lines.every((line) => line.includes(`could not drain the storage ${reason}`)))
          assert.notInclude(lines.splice(0).join(), "SECRET")
        }
      })
    ))

  it.effect("is drained all the time by its layer", () =>
    run(({ service }) =>
      Effect.gen(function*() {
        const outbox = yield* NotificationOutbox.NotificationOutbox
        yield* outbox.enqueue("anna", news)
        yield* Effect.repeat(Effect.delay(service.received, "10 millis"), { until: ({ length }) => length === 2 })
        yield* Effect.repeat(Effect.delay(count, "10 millis"), { until: (count) => count === 0 })
      }).pipe(Effect.provide(
        NotificationOutbox.layerWith(Effect.map(TestStorage, ({ storage }) => storage), { pollInterval: "1 hour" })
      ))
    ))
}
