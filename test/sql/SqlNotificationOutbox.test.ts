import { inspect } from "node:util"

import { SqlClient } from "@effect/sql"
import type { Vitest } from "@effect/vitest"
import { assert, describe, layer } from "@effect/vitest"
import type { Scope } from "effect"
import {
  Array as Arr,
  Cause,
  Chunk,
  Clock,
  Context,
  Deferred,
  Duration,
  Effect,
  Either,
  Fiber,
  Layer,
  Ref,
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
import { SqlNotificationOutbox, SqlSubscriptionStore } from "effect-realtime/sql"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import { WebPushFailure } from "effect-realtime/WebPushError"
import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"

import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

const news: Notifier.Notification = { event: { event: "paid", data: { n: 1 } }, push: "SECRET-PUSH" }

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
    Layer.provideMerge(Layer.merge(SqlSubscriptionStore.layer(), EventBrokerLive)),
    Layer.provideMerge(Layer.merge(client, TestPushService.layerWebPush()))
  )

  /** With an owner of two devices, and a clock that `advance` sets forward. */
  const run = <A, E2>(
    body: (test: {
      readonly outbox: NotificationOutbox.NotificationOutbox.Service
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
        assert.strictEqual(plain?.headers["urgency"], "high")
        // The ttl counts from enqueue.
        assert.isTrue(Number(plain?.headers["ttl"]) > 30 && Number(plain?.headers["ttl"]) <= 60)
        assert.sameMembers(received.map(({ headers }) => headers["topic"]), [undefined, undefined, "t1", "t1"])
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

  it.effect("keeps bytes that begin with a byte order mark as they are", () =>
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

  it.effect("counts the ttl from enqueue, and says of which devices a notification has expired", () =>
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
        // Nothing is left of the ttl by hand either.
        assert.isTrue(yield* outbox.retry(expired))
        assert.strictEqual(yield* outbox.drain, 1)
        assert.deepStrictEqual(yield* service.received, [])

        // Some of it is left, less what the clients get to acknowledge the event.
        yield* outbox.enqueue("anna", news, { ttl: "1 hour" })
        yield* outbox.enqueue("anna", { ...news, push: "late" }, { ttl: "1 hour", delay: "20 millis" })
        yield* advance(600_000)
        assert.strictEqual(yield* outbox.drain, 2)
        for (const { headers } of yield* service.received) {
          assert.isTrue(Number(headers["ttl"]) > 2970 && Number(headers["ttl"]) <= 3000, headers["ttl"])
        }
      })
    ))

  it.effect("counts the ttl of the WebPush layer from enqueue, as its own", () =>
    run(({ advance, outbox: { deadLetters }, service }) =>
      Effect.gen(function*() {
        const push = yield* Layer.build(TestPushService.layerWebPush({ ttl: "1 hour" }))
        const outbox = yield* SqlNotificationOutbox.make().pipe(Effect.provide(push))
        const expired = yield* outbox.enqueue("anna", news)
        const own = yield* outbox.enqueue("anna", { ...news, push: "own" }, { ttl: "1 day" })
        yield* advance(3 * 3_600_000)
        assert.strictEqual(yield* outbox.drain, 2)
        assert.deepStrictEqual((yield* service.received).map(({ text }) => text), ["own", "own"])
        assert.notStrictEqual(own, expired)
        assert.deepStrictEqual(Array.from(yield* Stream.runCollect(deadLetters), ({ id }) => id), [expired])
      })
    ))

  it.effect("gives up at the end of the ttl a device that is still to be tried again", () =>
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

  it.effect("tries each device again at its own time, within a day", () =>
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
        // The token is signed anew by then, which the push service of the test takes for one of tomorrow.
        const sql = yield* SqlClient.SqlClient
        const [row] = yield* sql<{ readonly due_at: number }>`SELECT due_at FROM notification_outbox`
        const wait = Number(row?.due_at) - (yield* Clock.currentTimeMillis)
        assert.isTrue(wait > 86_000_000 && wait <= 86_400_000, `${wait}`)
      })
    ))

  it.effect("gives up one device after its own attempts, and not another that has only begun to wait", () =>
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

  it.effect("sends to the endpoint that has taken the place of another between two attempts, also by hand", () =>
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
        // Each device once, and nothing to the laptop twice.
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

  it.effect("says that a device was removed between two attempts", () =>
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

  it.effect("sends to the endpoint that takes the place of one while that is found to be gone", () =>
    run(({ laptop, outbox, phone, service }) =>
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
        const other = yield* Effect.provideService(SqlNotificationOutbox.make(), Notifier.Notifier, replacing)
        yield* outbox.enqueue("anna", news)
        assert.strictEqual(yield* other.drain, 1)
        assert.sameMembers(
          yield* texts,
          [phone, laptop, fresh].map(({ endpointId }) => `SECRET-PUSH ${endpointId}`)
        )
        assert.strictEqual(yield* count, 0)
      })
    ))

  it.effect("gives a topic to what is repeated, and otherwise only where one is asked for", () =>
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

  it.effect("tries again a device whose host resolved to an address that is blocked", () =>
    run(({ advance, outbox, service }) =>
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
        const other = yield* SqlNotificationOutbox.make().pipe(
          Effect.provideService(Notifier.Notifier, notifier),
          Effect.provideService(WebPush.WebPush, blocked)
        )
        yield* other.enqueue("anna", news)
        assert.strictEqual(yield* other.drain, 1)
        yield* advance(10_000)
        assert.strictEqual(yield* outbox.drain, 1)
        assert.strictEqual((yield* service.received).length, 2)
        // By the policy it is final.
        detail = undefined
        const id = yield* other.enqueue("anna", news)
        assert.strictEqual(yield* other.drain, 1)
        assert.isTrue(yield* other.discard(id))
      })
    ))

  it.effect("renews the lease of what takes longer than it", () =>
    run(({ outbox }) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const context = yield* Effect.context<Layer.Layer.Success<typeof Live>>()
        const stuck = Notifier.Notifier.of({ ...Context.get(context, Notifier.Notifier), notify: () => Effect.never })
        const other = yield* Effect.provideService(
          SqlNotificationOutbox.make({ lease: "3 seconds" }),
          Notifier.Notifier,
          stuck
        )
        yield* outbox.enqueue("anna", news)
        const fiber = yield* Effect.fork(other.drain)
        const lease = Effect.map(
          sql<{ readonly due_at: number }>`SELECT due_at FROM notification_outbox WHERE claim IS NOT NULL`,
          ([row]) => row === undefined ? undefined : Number(row.due_at)
        )
        const first = yield* Effect.repeat(Effect.delay(lease, "5 millis"), { until: (dueAt) => dueAt !== undefined })
        yield* Effect.repeat(Effect.delay(lease, "50 millis"), { until: (dueAt) => dueAt !== first }).pipe(
          Effect.timeout("20 seconds")
        )
        // It was not claimed again, which would set it too.
        assert.deepStrictEqual(yield* sql`SELECT attempts FROM notification_outbox`, [{ attempts: 1 }])
        yield* Fiber.interrupt(fiber)
      })
    ))

  it.effect("takes over the rows of an older version, and adds its column once", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const create = SqlNotificationOutbox.migrations["0001_create_outbox"]
      if (create === undefined) return assert.fail("the first migration has its name")
      yield* create
      const service = yield* TestPushService.TestPushService
      const phone = yield* service.subscribe()
      yield* SubscriptionStore.upsert("anna", phone)
      yield* SubscriptionStore.upsert("anna", yield* service.subscribe())
      const now = Date.now()
      const message = JSON.stringify({ event: { event: "paid" }, push: "b2xk", options: { topic: "old" } })
      const row = { message, claim: null, created_at: now - 60_000, died_at: null }
      const failures = JSON.stringify([{ device: phone.endpointId, reason: "Unavailable", isFinal: false }])
      yield* sql`INSERT INTO notification_outbox ${
        sql.insert([
          { ...row, id: "1", owner: "anna", failures: null, attempts: 0, due_at: now },
          { ...row, id: "2", owner: "anna", failures, attempts: 1, due_at: now },
          // An older version took any Retry-After at its word.
          { ...row, id: "3", owner: "anna", failures, attempts: 1, due_at: now + 999_999_999_000 }
        ])
      }`
      yield* Effect.all(Arr.makeBy(3, () => SqlNotificationOutbox.make()), { concurrency: "unbounded" })
      const outbox = yield* SqlNotificationOutbox.make()
      assert.strictEqual(yield* outbox.drain, 3)
      assert.strictEqual((yield* service.received).length, 4)
      assert.strictEqual(yield* count, 0)
    }).pipe(Effect.scoped, Effect.provide(Live)))

  it.effect("dies of an option that cannot be", () =>
    Effect.gen(function*() {
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
        const cause = yield* Effect.flip(Effect.sandbox(SqlNotificationOutbox.make(options)))
        assert.isTrue(
          Cause.isDie(cause) && Cause.pretty(cause).includes(Object.keys(options)[0] ?? "?"),
          inspect(options)
        )
      }
    }).pipe(Effect.provide(Live)))

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
        const outbox = yield* NotificationOutbox.NotificationOutbox
        yield* outbox.enqueue("anna", news)
        yield* Effect.repeat(Effect.delay(service.received, "10 millis"), { until: ({ length }) => length === 2 })
        yield* Effect.repeat(Effect.delay(count, "10 millis"), { until: (count) => count === 0 })
      }).pipe(Effect.provide(SqlNotificationOutbox.layer({ pollInterval: "1 hour" })))
    ))
}

const realClock = { excludeTestServices: true, timeout: "60 seconds" } as const

const layerOutbox = Layer.effect(NotificationOutbox.NotificationOutbox, SqlNotificationOutbox.make()).pipe(
  Layer.provide(Notifier.layer),
  Layer.provide(Layer.mergeAll(SqlSubscriptionStore.layer(), EventBrokerLive, TestPushService.layerWebPush()))
)

describe("SqlNotificationOutbox", () => {
  layer(Layer.empty, realClock)("SQLite", (it) => {
    suite(it, Sqlite.layerClient)

    it.scoped("fails at once in a transaction whose snapshot is old", () =>
      Effect.gen(function*() {
        const url = yield* Sqlite.database
        const client = yield* Layer.build(Sqlite.layerOf(url))
        const other = Context.get(yield* Layer.build(Sqlite.layerOf(url)), SqlClient.SqlClient)
        const sql = Context.get(client, SqlClient.SqlClient)
        const outbox = Context.get(
          yield* Layer.build(Layer.provide(layerOutbox, Layer.succeedContext(client))),
          NotificationOutbox.NotificationOutbox
        )
        yield* sql`BEGIN`
        yield* sql`SELECT id FROM notification_outbox`
        yield* other`CREATE TABLE orders (id INTEGER)`
        const [duration, error] = yield* Effect.timed(Effect.flip(outbox.enqueue("anna", news)))
        assert.deepInclude(error, { reason: "Unavailable", detail: "SQLITE_BUSY_SNAPSHOT" })
        // It was tried again for 15 seconds.
        assert.isBelow(Duration.toSeconds(duration), 10)
        // The transaction is still the caller's.
        yield* sql`ROLLBACK`
      }))
  })

  describe.skipIf(Postgres.isMissing)(
    "with a server",
    () =>
      layer(Postgres.Postgres.layer, realClock)("PostgreSQL", (it) => {
        suite(it, Postgres.layerClient)

        it.effect("shows the caller the deadlock that has ended its transaction", () =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            const outbox = yield* NotificationOutbox.NotificationOutbox
            yield* sql`CREATE TABLE orders (id INTEGER)`
            const [hasOutbox, hasOrders] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
            const waits = Effect.repeat(
              Effect.delay(sql`SELECT pid FROM pg_locks WHERE NOT granted`, "5 millis"),
              { until: (waiting) => waiting.length > 0 }
            )
            // The other one does not notice the deadlock.
            const other = sql.withTransaction(Effect.gen(function*() {
              yield* sql`SET LOCAL deadlock_timeout = '60s'`
              yield* sql`LOCK TABLE notification_outbox IN EXCLUSIVE MODE`
              yield* Deferred.succeed(hasOutbox, undefined)
              yield* Deferred.await(hasOrders)
              yield* waits
              yield* sql`LOCK TABLE orders IN EXCLUSIVE MODE`
            }))
            const caller = sql.withTransaction(Effect.gen(function*() {
              yield* sql`LOCK TABLE orders IN EXCLUSIVE MODE`
              yield* Deferred.succeed(hasOrders, undefined)
              yield* Deferred.await(hasOutbox)
              yield* outbox.enqueue("anna", news)
            }))
            const [error] = yield* Effect.all([Effect.flip(caller), other], { concurrency: "unbounded" })
            assert.deepInclude(error, { reason: "Unavailable", detail: "40P01" })
          }).pipe(Effect.provide(layerOutbox.pipe(Layer.provideMerge(Postgres.layerClient)))))
      })
  )
})
