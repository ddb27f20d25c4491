import { SqlClient } from "@effect/sql"
import type { Vitest } from "@effect/vitest"
import { assert, describe, layer } from "@effect/vitest"
import { Array as Arr, Cause, Context, Deferred, Duration, Effect, Layer } from "effect"
import { EventBroker, EventLog, NotificationOutbox, Notifier, SubscriptionStore } from "effect-realtime"
import { SqlNotificationOutbox, SqlSubscriptionStore } from "effect-realtime/sql"
import * as TestPushService from "effect-realtime/testing/TestPushService"

import { suite, TestStorage } from "../NotificationOutbox/suite.js"
import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

const news: Notifier.NotifyContent = { event: { event: "paid" }, push: "paid" }

const EventBrokerLive = Layer.provide(EventBroker.layer, EventLog.layerMemory)

/** The storage of a database, with access to its rows. */
const layerStorage = Layer.effect(
  TestStorage,
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return {
      storage: yield* SqlNotificationOutbox.makeStorage,
      rows: Effect.orDie(
        sql<{ readonly id: string; readonly attempts: number; readonly dueAt: number; readonly claim: string | null }>`
          SELECT id, attempts, due_at AS "dueAt", claim FROM notification_outbox
        `
      ),
      change: ({ attempts = null, claim = null, dueAt = null, message = null }) =>
        Effect.orDie(Effect.asVoid(sql`
          UPDATE notification_outbox SET
            attempts = COALESCE(CAST(${attempts} AS DOUBLE PRECISION), attempts),
            claim = COALESCE(CAST(${claim} AS TEXT), claim),
            due_at = COALESCE(CAST(${dueAt} AS DOUBLE PRECISION), due_at),
            message = COALESCE(CAST(${message} AS TEXT), message)
        `))
    }
  })
)

const sqlSuite = <R, E>(it: Vitest.MethodsNonLive<R, true>, client: Layer.Layer<SqlClient.SqlClient, E, R>): void => {
  suite(it, Layer.merge(layerStorage, SqlSubscriptionStore.layer).pipe(Layer.provide(client)))

  const Live = Notifier.layer.pipe(
    Layer.provideMerge(Layer.merge(SqlSubscriptionStore.layer, EventBrokerLive)),
    Layer.provideMerge(Layer.merge(client, TestPushService.layerWebPush))
  )

  it.effect("reads the rows of an older version, and adds its column once", () =>
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
          // An older version had no limit for Retry-After.
          { ...row, id: "3", owner: "anna", failures, attempts: 1, due_at: now + 999_999_999_000 }
        ])
      }`
      yield* Effect.all(Arr.makeBy(3, () => SqlNotificationOutbox.make()), { concurrency: "unbounded" })
      const outbox = yield* SqlNotificationOutbox.make()
      assert.strictEqual(yield* outbox.drain, 3)
      assert.strictEqual((yield* service.received).length, 4)
      assert.deepStrictEqual(yield* sql`SELECT id FROM notification_outbox`, [])
    }).pipe(Effect.scoped, Effect.provide(Live)))

  it.effect("has tables of the name that the options give, beside those of the default name", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const service = yield* TestPushService.TestPushService
      const phone = yield* service.subscribe()
      const store = yield* SqlSubscriptionStore.make({ tableName: "shop_devices" })
      yield* store.upsert("anna", phone)
      assert.deepStrictEqual(yield* SubscriptionStore.forOwner("anna"), [])
      assert.strictEqual((yield* store.forOwner("anna")).length, 1)
      assert.strictEqual((yield* sql`SELECT owner FROM shop_devices`).length, 1)
      assert.strictEqual(yield* store.prune([phone]), 1)
      assert.strictEqual((yield* sql`SELECT * FROM shop_devices_pruned`).length, 1)
      assert.strictEqual((yield* Effect.flip(store.upsert("anna", phone))).reason, "Gone")
      yield* SubscriptionStore.upsert("anna", phone)

      const shop = yield* SqlNotificationOutbox.make({ tableName: "shop_outbox" })
      const outbox = yield* SqlNotificationOutbox.make()
      const id = yield* shop.enqueue("anna", { event: { event: "paid" }, push: "ok" })
      assert.deepStrictEqual(yield* sql`SELECT id FROM shop_outbox`, [{ id }])
      assert.strictEqual(yield* outbox.drain, 0)
      assert.strictEqual(yield* shop.drain, 1)
      // A second node with these options finds the tables.
      yield* SqlNotificationOutbox.make({ tableName: "shop_outbox" })
      yield* SqlSubscriptionStore.make({ tableName: "shop_devices" })
    }).pipe(Effect.scoped, Effect.provide(Live)))

  it.effect("dies if the name of a table is not one", () =>
    Effect.gen(function*() {
      for (const tableName of ["", "Shop", "a b", "a;--", "1a", "a.b", "a".repeat(41)]) {
        for (
          const make of [
            Effect.asVoid(SqlNotificationOutbox.make({ tableName })),
            Effect.asVoid(SqlSubscriptionStore.make({ tableName }))
          ]
        ) {
          const cause = yield* Effect.flip(Effect.sandbox(make))
          const [defect] = Cause.defects(cause)
          assert.isTrue(Cause.isIllegalArgumentException(defect))
          assert.include(Cause.pretty(cause), "tableName must be")
        }
      }
    }).pipe(Effect.scoped, Effect.provide(Live)))

  it.effect("accepts a notification if the transaction commits", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const outbox = yield* SqlNotificationOutbox.make()
      yield* Effect.flip(
        sql.withTransaction(Effect.zipRight(outbox.enqueue("anna", news), Effect.fail("rolled back")))
      )
      assert.strictEqual(yield* outbox.drain, 0)
      yield* sql.withTransaction(outbox.enqueue("anna", news))
      assert.strictEqual(yield* outbox.drain, 1)
    }).pipe(Effect.provide(Live)))
}

const realClock = { excludeTestServices: true, timeout: "60 seconds" } as const

const layerOutbox = Layer.effect(NotificationOutbox.NotificationOutbox, SqlNotificationOutbox.make()).pipe(
  Layer.provide(Notifier.layer),
  Layer.provide(Layer.mergeAll(SqlSubscriptionStore.layer, EventBrokerLive, TestPushService.layerWebPush))
)

describe("SqlNotificationOutbox", () => {
  layer(Layer.empty, realClock)("SQLite", (it) => {
    sqlSuite(it, Sqlite.layerClient)

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
        // A statement outside of a transaction is retried for 15 seconds.
        assert.isBelow(Duration.toSeconds(duration), 10)
        // The caller can still end its transaction.
        yield* sql`ROLLBACK`
      }))
  })

  describe.skipIf(Postgres.isMissing)(
    "with a server",
    () =>
      layer(Postgres.Postgres.layer, realClock)("PostgreSQL", (it) => {
        sqlSuite(it, Postgres.layerClient)

        it.effect("fails with the code of the deadlock that has ended the transaction of the caller", () =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            const outbox = yield* NotificationOutbox.NotificationOutbox
            yield* sql`CREATE TABLE orders (id INTEGER)`
            const [hasOutbox, hasOrders] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
            const waits = Effect.repeat(
              Effect.delay(sql`SELECT pid FROM pg_locks WHERE NOT granted`, "5 millis"),
              { until: (waiting) => waiting.length > 0 }
            )
            // The other transaction does not detect the deadlock.
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
