import { createHash } from "node:crypto"

import * as Reactivity from "@effect/experimental/Reactivity"
import { SqlClient, SqlError, Statement } from "@effect/sql"
import type { Vitest } from "@effect/vitest"
import { assert, describe, layer } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Either, Fiber, Layer, Stream } from "effect"
import { Notifier, SubscriptionStore, WebPush } from "effect-realtime"
import { SqlNotificationOutbox, SqlSubscriptionStore } from "effect-realtime/sql"

import { collectGarbage } from "../support/garbage.js"
import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"
import { newSubscription } from "../support/subscriptions.js"

const realClock = { excludeTestServices: true, timeout: "60 seconds" } as const

/** A client of a database that accepts every statement, and answers it with the rows of `query`. */
const clientOf = (
  dialect: Statement.Dialect,
  query: (statement: string, params: ReadonlyArray<unknown>) => Effect.Effect<ReadonlyArray<object>> = () =>
    Effect.succeed([])
) =>
  SqlClient.make({
    acquirer: Effect.succeed({
      execute: query,
      executeRaw: () => Effect.succeed([]),
      executeStream: () => Stream.empty,
      executeUnprepared: () => Effect.succeed([]),
      executeValues: () => Effect.succeed([])
    }),
    compiler: Statement.makeCompiler({
      dialect,
      placeholder: () => "?",
      onIdentifier: (name) => name,
      onRecordUpdate: () => ["", []],
      onCustom: () => ["", []]
    }),
    spanAttributes: []
  }).pipe(Effect.provide(Reactivity.layer))

const none = Effect.dieMessage("is not used")

const migrationSuite = <R, E>(it: Vitest.MethodsNonLive<R, true>, client: Layer.Layer<SqlClient.SqlClient, E, R>) => {
  const owned = (store: SubscriptionStore.SubscriptionStore.Service) =>
    Effect.map(
      Stream.runCollect(store.all),
      (devices) => [...devices].map(({ endpoint, owner }) => `${owner} ${endpoint}`).sort()
    )

  it.effect("adds the new columns to an existing table, whose devices it preserves", () =>
    Effect.gen(function*() {
      const { "0001_create_subscriptions": create, "0002_create_pruned": createPruned } =
        SqlSubscriptionStore.migrations
      if (create === undefined || createPruned === undefined) return assert.fail("other names")
      yield* create
      yield* createPruned
      const sql = yield* SqlClient.SqlClient
      const { endpoint, keys } = newSubscription()
      const endpoint_hash = createHash("sha256").update(endpoint).digest("base64url")
      yield* sql`INSERT INTO web_push_subscriptions ${
        sql.insert({ endpoint_hash, endpoint, owner: "anna", ...keys, created_at: 1, updated_at: 2 })
      }`
      for (const owners of ["one", "one", "several", "several"] as const) {
        const store = yield* SqlSubscriptionStore.make({ owners })
        assert.deepStrictEqual(yield* owned(store), [`anna ${endpoint}`])
        const subscription = newSubscription({ endpoint, keys })
        yield* store.upsert("anna", subscription, { locale: "de", attributes: { owners } })
        const [device] = yield* store.forOwner("anna")
        assert.deepStrictEqual([device?.locale, device?.attributes], ["de", { owners }])
        assert.strictEqual(device?.createdAt.epochMillis, 1)
      }
    }).pipe(Effect.provide(client)))

  it.effect("adopts the rows of one owner, and refuses those of several for one", () =>
    Effect.gen(function*() {
      const [first, second] = [newSubscription(), newSubscription()]
      const one = yield* SqlSubscriptionStore.make()
      yield* one.upsert("anna", first)
      const several = yield* SqlSubscriptionStore.make({ owners: "several" })
      yield* several.upsert("ben", first)
      // A node that still runs with one owner stores the device of anna, and another one.
      yield* one.upsert("anna", first)
      yield* one.upsert("clara", second)
      const again = yield* SqlSubscriptionStore.make({ owners: "several" })
      assert.deepStrictEqual(
        yield* owned(again),
        [`anna ${first.endpoint}`, `ben ${first.endpoint}`, `clara ${second.endpoint}`].sort()
      )
      const cause = yield* Effect.flip(Effect.sandbox(SqlSubscriptionStore.make()))
      const [defect] = Cause.defects(cause)
      if (!Cause.isIllegalArgumentException(defect)) return assert.fail(Cause.pretty(cause))
      assert.include(defect.message, "owners must be several")
      assert.strictEqual(yield* again.prune([first, second]), 3)
      assert.deepStrictEqual(yield* owned(yield* SqlSubscriptionStore.make()), [])
    }).pipe(Effect.provide(client)))
}

describe("SqlSubscriptionStore", () => {
  describe.skipIf(Postgres.isMissing)(
    "with a server",
    () => layer(Postgres.Postgres.layer, realClock)("PostgreSQL", (it) => migrationSuite(it, Postgres.layerClient))
  )

  layer(Layer.empty, realClock)("SQLite", (it) => {
    migrationSuite(it, Sqlite.layerClient)

    it.effect("refuses a client of another database, in each layer, and names its dialect", () =>
      Effect.gen(function*() {
        for (const dialect of ["mysql", "mssql", "clickhouse"] as const) {
          const client = Layer.effect(SqlClient.SqlClient, clientOf(dialect))
          const layers = [
            Layer.discard(SqlSubscriptionStore.layer),
            SqlNotificationOutbox.layer.pipe(
              Layer.discard,
              Layer.provide(Layer.mergeAll(
                SubscriptionStore.layerMemory,
                Layer.succeed(Notifier.Notifier, {
                  notify: () => none,
                  notifyMany: () => Stream.empty,
                  push: () => none,
                  acknowledge: () => none
                }),
                Layer.succeed(WebPush.WebPush, {
                  publicKey: "",
                  publicKeys: [],
                  isAllowed: () => true,
                  send: () => none,
                  sendMany: () => none,
                  broadcast: () => Stream.empty
                })
              ))
            )
          ]
          for (const layer of layers) {
            const cause = yield* Effect.flip(Effect.sandbox(Effect.scoped(Layer.build(Layer.provide(layer, client)))))
            const [defect] = Cause.defects(cause)
            if (!Cause.isIllegalArgumentException(defect)) return assert.fail(Cause.pretty(cause))
            assert.include(defect.message, dialect)
          }
        }
      }))

    /** A client of a database, and `lock` with which another client acquires the lock until it is released. */
    const lockedDatabase = Effect.gen(function*() {
      const url = yield* Sqlite.database
      const [here, other] = yield* Effect.all([Layer.build(Sqlite.layerOf(url)), Layer.build(Sqlite.layerOf(url))])
      const there = Context.get(other, SqlClient.SqlClient)
      const lock = Effect.gen(function*() {
        const [locked, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const holder = yield* Effect.fork(there.withTransaction(Effect.gen(function*() {
          yield* there`CREATE TABLE locked (id INTEGER)`
          yield* Deferred.succeed(locked, undefined)
          yield* Deferred.await(release)
        })))
        yield* Deferred.await(locked)
        return Effect.zipRight(Deferred.succeed(release, undefined), Fiber.join(holder))
      })
      return { here, there, lock }
    })

    it.scoped("does not block the event loop while another connection holds the lock", () =>
      Effect.gen(function*() {
        const { here, lock, there } = yield* lockedDatabase
        const store = yield* Effect.provide(SqlSubscriptionStore.make(), here)
        const release = yield* lock
        const writers = yield* Effect.fork(
          Effect.forEach(["a", "b", "c"], (owner) => store.upsert(owner, newSubscription()), { concurrency: 3 })
        )
        // A new node finds its tables without the lock.
        yield* Effect.provide(SqlSubscriptionStore.make(), here)
        // During a wait inside of SQLite no timer fires.
        const start = performance.now()
        let longest = 0
        for (let i = 0, last = start; last < start + 500; i++) {
          yield* Effect.sleep("5 millis")
          const now = performance.now()
          longest = Math.max(longest, now - last)
          last = now
        }
        assert.isBelow(longest, 2000)
        assert.deepStrictEqual(yield* store.forOwner("a"), [])
        yield* release
        yield* Fiber.join(writers)
        assert.strictEqual((yield* there`SELECT owner FROM web_push_subscriptions`).length, 3)
      }))

    it.scoped("restores the busy_timeout of the connection after each statement", () =>
      Effect.gen(function*() {
        const { here, lock } = yield* lockedDatabase
        const sql = Context.get(here, SqlClient.SqlClient)
        const busyTimeout = Effect.map(
          sql<{ readonly timeout: number }>`PRAGMA busy_timeout`,
          ([row]) => row?.timeout
        )
        const byDefault = yield* busyTimeout
        const store = yield* Effect.provide(SqlSubscriptionStore.make(), here)
        assert.strictEqual(yield* busyTimeout, byDefault)
        yield* sql`PRAGMA busy_timeout = 1234`
        yield* Effect.forEach(["a", "b", "c", "d"], (owner) =>
          Effect.zipRight(store.upsert(owner, newSubscription()), store.forOwner(owner)), { concurrency: 4 })
        assert.strictEqual(yield* busyTimeout, 1234)
        // It is 0 while a write tries the lock that another connection holds.
        const release = yield* lock
        const writer = yield* Effect.fork(store.upsert("a", newSubscription()))
        yield* Effect.sleep("100 millis")
        yield* store.forOwner("a")
        yield* Fiber.interrupt(writer)
        assert.strictEqual(yield* busyTimeout, 1234)
        yield* release
      }))

    it.scoped("restores the busy_timeout of a client that is not of libsql", () =>
      Effect.gen(function*() {
        const statements: Array<string> = []
        const client = yield* clientOf("sqlite", (statement) =>
          Effect.sync(() => {
            statements.push(statement)
            return statement === "PRAGMA busy_timeout" ? [{ timeout: 250 }] : []
          }))
        const store = yield* Effect.provideService(SqlSubscriptionStore.make(), SqlClient.SqlClient, client)
        statements.length = 0
        yield* store.forOwner("anna")
        assert.deepStrictEqual(statements.map((statement) => statement.trim().slice(0, 24)), [
          "PRAGMA temp.synchronous ",
          "PRAGMA busy_timeout",
          "PRAGMA busy_timeout = 0",
          "SELECT * FROM web_push_s",
          "PRAGMA busy_timeout = 25"
        ])
      }))

    it.scoped("reads while another read of the client is not answered", () =>
      Effect.gen(function*() {
        const client = yield* clientOf("sqlite", (_, params) =>
          params.includes("bob") ? Effect.never : Effect.succeed([]))
        const store = yield* Effect.provideService(SqlSubscriptionStore.make(), SqlClient.SqlClient, client)
        yield* Effect.fork(store.forOwner("bob"))
        yield* Effect.yieldNow()
        assert.deepStrictEqual(yield* store.forOwner("anna"), [])
      }))

    it.scoped("reports no write as stored while a failed statement prevents its commit", () =>
      Effect.gen(function*() {
        const { here, lock, there } = yield* lockedDatabase
        const sql = Context.get(here, SqlClient.SqlClient)
        const store = yield* Effect.provide(SqlSubscriptionStore.make(), here)
        yield* sql`CREATE TABLE orders (id INTEGER)`
        const release = yield* lock
        yield* sql`PRAGMA busy_timeout = 0`
        // libsql does not reset this statement before it is collected.
        assert.instanceOf(yield* Effect.flip(sql`INSERT INTO orders VALUES (2)`), SqlError.SqlError)
        yield* release
        const garbage = yield* Effect.fork(Effect.forever(Effect.delay(Effect.sync(collectGarbage), "100 millis")))
        const result = yield* Effect.either(store.upsert("anna", newSubscription()))
        yield* Fiber.interrupt(garbage)
        const stored = yield* there`SELECT owner FROM web_push_subscriptions`
        assert.strictEqual(stored.length, Either.isRight(result) ? 1 : 0)
      }))
  })
})
