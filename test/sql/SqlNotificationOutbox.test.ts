import { inspect } from "node:util"

import { SqlClient } from "@effect/sql"
import type { Vitest } from "@effect/vitest"
import { assert, describe, layer } from "@effect/vitest"
import type { Scope } from "effect"
import { Array as Arr, Chunk, Clock, Context, Deferred, Effect, Fiber, Layer, Ref, Stream } from "effect"
import { EventBroker, EventLog, Notifier, SubscriptionStore, VapidKeys, WebPush, WebPushPayload } from "effect-realtime"
import { SqlNotificationOutbox, SqlSubscriptionStore } from "effect-realtime/sql"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"

import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

const news: Notifier.Notification = { event: { event: "paid", data: { n: 1 } }, push: "SECRET-PUSH" }

const WebPushLive = Layer.unwrapEffect(
  Effect.map(VapidKeys.generate, (vapid) => WebPush.layer({ vapid, subject: "mailto:ops@example.com" }))
)

const EventBrokerLive = Layer.provideMerge(EventBroker.layer(), EventLog.layerMemory())

const texts = Effect.map(
  Effect.flatMap(TestPushService.TestPushService, ({ received }) => received),
  Arr.map(({ subscription, text }) => `${text} ${subscription.endpointId}`)
)

const count = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => Effect.map(sql`SELECT id FROM notification_outbox`, ({ length }) => length)
)

const suite = <R, E>(it: Vitest.MethodsNonLive<R, true>, client: Layer.Layer<SqlClient.SqlClient, E, R>): void => {
  const Live = Notifier.layer.pipe(
    Layer.provideMerge(Layer.mergeAll(SqlSubscriptionStore.layer(), WebPushLive, EventBrokerLive)),
    Layer.provideMerge(Layer.merge(client, TestPushService.layer()))
  )

  /** With an owner of two devices, and a clock that `advance` sets forward. */
  const run = <A, E2>(
    body: (test: {
      readonly outbox: SqlNotificationOutbox.NotificationOutbox.Service
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
      const outbox = yield* SqlNotificationOutbox.make({ maxAttempts: 3, concurrency: 4 })
      const advance = (millis: number) => Ref.update(offset, (offset) => offset + millis)
      yield* Effect.withClock(body({ outbox, advance, phone, laptop, service }), clock)
      assert.deepStrictEqual(yield* service.violations, [])
    }).pipe(Effect.scoped, Effect.provide(Live))

  it.effect("keeps what is accepted until it is sent, and sends it as it was", () =>
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
        assert.deepInclude(plain?.headers, { urgency: "high", ttl: "60" })
        assert.match(plain?.headers["topic"] ?? "", /^[\w-]{32}$/)
        assert.include(received.map(({ headers }) => headers["topic"]), "t1")
        assert.strictEqual(yield* outbox.drain, 0)
      })
    ))

  it.effect("keeps nobody waiting for one that takes its time", () =>
    run(({ laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        // Nobody is there to acknowledge it.
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

  it.effect("takes a duration without end", () =>
    run(({ outbox }) =>
      Effect.gen(function*() {
        yield* outbox.enqueue("anna", news, { timeout: Infinity, ttl: Infinity })
        assert.strictEqual(yield* outbox.drain, 1)
        assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Stream.runCollect(outbox.deadLetters)), [])
        assert.strictEqual(yield* outbox.drain, 0)
      })
    ))

  it.effect("refuses at once what cannot be sent", () =>
    run(({ outbox }) =>
      Effect.gen(function*() {
        const byField = yield* Effect.flip(outbox.enqueue("anna", { event: { event: "a\nb" }, push: "" }))
        assert.deepInclude(byField, { field: "event", reason: "ControlCharacter" })
        const byId = yield* Effect.flip(outbox.enqueue("anna", { event: { id: "1" }, push: "" }))
        assert.deepInclude(byId, { field: "id", reason: "Assigned" })
        assert.strictEqual(yield* count, 0)
      })
    ))

  it.effect("accepts with the transaction that it is accepted in", () =>
    run(({ outbox }) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.flip(
          sql.withTransaction(Effect.zipRight(outbox.enqueue("anna", news), Effect.fail("rolled back")))
        )
        assert.strictEqual(yield* outbox.drain, 0)
        yield* sql.withTransaction(outbox.enqueue("anna", news))
        assert.strictEqual(yield* outbox.drain, 1)
      })
    ))

  it.effect("tries a device again after its Retry-After, and tells nobody else twice", () =>
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

  it.effect("gives up after so many attempts, and can be told to try again", () =>
    run(({ advance, laptop, outbox, phone, service }) =>
      Effect.gen(function*() {
        yield* service.answer({ status: 503 }, phone)
        yield* service.answer({ status: 413 }, laptop)
        const id = yield* outbox.enqueue("anna", news)
        for (const attempts of [1, 1, 1, 0]) {
          assert.strictEqual(yield* outbox.drain, attempts)
          yield* advance(2 * 3_600_000)
        }
        // What cannot succeed was not tried again.
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

  it.effect("goes on trying for about three hours unless it is told how often", () =>
    run(({ advance, service }) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const outbox = yield* SqlNotificationOutbox.make()
        yield* service.answer({ status: 503 })
        yield* outbox.enqueue("anna", news)
        const start = yield* Clock.currentTimeMillis
        // The backoff of the 13 attempts that are not the last: 2, 4, … 2048 seconds, then an hour at most, each half of it to one and a half.
        for (let attempts = 1; attempts <= 14; attempts++) {
          assert.strictEqual(yield* outbox.drain, 1)
          const [row] = yield* sql<{ readonly due_at: number }>`SELECT due_at FROM notification_outbox`
          yield* advance(Math.max(0, Number(row?.due_at) - (yield* Clock.currentTimeMillis)))
        }
        assert.strictEqual(yield* outbox.drain, 0)
        assert.strictEqual((yield* Stream.runCollect(outbox.deadLetters)).length, 1)
        const hours = ((yield* Clock.currentTimeMillis) - start) / 3_600_000
        assert.isTrue(hours > 1.5 && hours < 4.75, `${hours} hours`)
      })
    ))

  it.effect("is drained by many at once, each notification by one of them", () =>
    run(({ outbox, service }) =>
      Effect.gen(function*() {
        const others = yield* Effect.replicateEffect(SqlNotificationOutbox.make({ concurrency: 3 }), 3)
        yield* Effect.forEach(Arr.range(1, 40), (n) => outbox.enqueue("anna", { ...news, push: `${n}` }), {
          discard: true
        })
        const drained = yield* Effect.forEach([outbox, ...others], ({ drain }) => drain, { concurrency: "unbounded" })
        assert.strictEqual(drained.reduce((sum, n) => sum + n, 0), 40)
        assert.strictEqual((yield* service.received).length, 80)
        assert.strictEqual(new Set(yield* texts).size, 80)
      })
    ))

  it.effect("leaves to others what was claimed by a node that died, and at once by one that was told to stop", () =>
    run(({ advance, outbox, service }) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* outbox.enqueue("anna", news)
        const context = yield* Effect.context<Layer.Layer.Success<typeof Live>>()
        const sending = yield* Deferred.make<void>()
        const stuck = Notifier.Notifier.of({
          ...Context.get(context, Notifier.Notifier),
          notify: () => Effect.zipRight(Deferred.succeed(sending, undefined), Effect.never)
        })
        const other = yield* Effect.provideService(SqlNotificationOutbox.make(), Notifier.Notifier, stuck)
        const fiber = yield* Effect.fork(other.drain)
        yield* Deferred.await(sending)
        assert.strictEqual(yield* outbox.drain, 0)
        yield* Fiber.interrupt(fiber)
        // It was no fault of the notification.
        assert.deepStrictEqual(yield* sql`SELECT attempts FROM notification_outbox`, [{ attempts: 0 }])
        assert.strictEqual(yield* outbox.drain, 1)

        yield* outbox.enqueue("anna", news)
        const now = yield* Clock.currentTimeMillis
        yield* sql`UPDATE notification_outbox SET claim = 'dead', attempts = 1, due_at = ${now + 30_000}`
        assert.strictEqual(yield* outbox.drain, 0)
        yield* advance(30_001)
        assert.strictEqual(yield* outbox.drain, 1)

        // It ended its node each time.
        const id = yield* outbox.enqueue("anna", news)
        yield* sql`UPDATE notification_outbox SET claim = 'dead', attempts = 3`
        assert.strictEqual(yield* outbox.drain, 1)
        assert.isTrue(yield* outbox.discard(id))
        assert.strictEqual((yield* service.received).length, 4)
      })
    ))

  it.effect("sends nothing that it had only claimed when it stood still for longer than its lease", () =>
    run(({ advance, outbox, service }) =>
      Effect.gen(function*() {
        const ids = yield* Effect.forEach(["1", "2", "3", "4"], (push) => outbox.enqueue("anna", { ...news, push }))
        const context = yield* Effect.context<Layer.Layer.Success<typeof Live>>()
        const real = Context.get(context, Notifier.Notifier)
        const [sending, goOn] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const slow = Notifier.Notifier.of({
          ...real,
          notify: (...notification) =>
            Deferred.succeed(sending, undefined).pipe(
              Effect.zipRight(Deferred.await(goOn)),
              Effect.zipRight(real.notify(...notification))
            )
        })
        const sql = yield* SqlClient.SqlClient
        const stopped = yield* Effect.provideService(
          SqlNotificationOutbox.make({ concurrency: 2 }),
          Notifier.Notifier,
          slow
        )
        const fiber = yield* Effect.fork(stopped.drain)
        yield* Deferred.await(sending)
        // It claims ahead of what it sends.
        yield* Effect.repeat(
          Effect.delay(sql`SELECT id FROM notification_outbox WHERE claim IS NOT NULL`, "5 millis"),
          { until: (claimed) => claimed.length > 2 }
        )
        yield* advance(30_001)
        assert.strictEqual(yield* outbox.drain, ids.length)
        yield* Deferred.succeed(goOn, undefined)
        yield* Fiber.join(fiber)
        // Each to two devices, and the two that were on their way twice.
        assert.strictEqual((yield* service.received).length, 2 * (ids.length + 2))
        assert.strictEqual(yield* count, 0)
      })
    ))

  it.effect("buries what is no notification, and sends the rest", () =>
    run(({ outbox, service }) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const id = yield* outbox.enqueue("anna", news)
        yield* sql`UPDATE notification_outbox SET message = '{"SECRET":1}'`
        yield* outbox.enqueue("anna", news)
        yield* outbox.drain
        assert.strictEqual((yield* service.received).length, 2)
        assert.deepStrictEqual(
          Array.from(yield* Stream.runCollect(outbox.deadLetters), ({ id }) => id),
          [id]
        )
      })
    ))

  it.effect("is drained all the time by its layer", () =>
    run(({ service }) =>
      Effect.gen(function*() {
        const outbox = yield* SqlNotificationOutbox.NotificationOutbox
        yield* outbox.enqueue("anna", news)
        yield* Effect.repeat(Effect.delay(service.received, "10 millis"), { until: ({ length }) => length === 2 })
        yield* Effect.repeat(Effect.delay(count, "10 millis"), { until: (count) => count === 0 })
      }).pipe(Effect.provide(SqlNotificationOutbox.layer({ pollInterval: "1 hour" })))
    ))
}

const realClock = { excludeTestServices: true, timeout: "60 seconds" } as const

describe("SqlNotificationOutbox", () => {
  layer(Layer.empty, realClock)("SQLite", (it) => suite(it, Sqlite.layerClient))

  describe.skipIf(Postgres.isMissing)(
    "with a server",
    () => layer(Postgres.Postgres.layer, realClock)("PostgreSQL", (it) => suite(it, Postgres.layerClient))
  )
})
