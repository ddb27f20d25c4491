/**
 * Reads 100,000 subscriptions in pages, and checks that memory does not grow with them. Run with
 *
 *     npm run test:subscriptions
 */
import * as assert from "node:assert/strict"
import { createHash } from "node:crypto"

import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Array as Arr, Console, Duration, Effect, Layer, Stream } from "effect"
import { SubscriptionStore } from "effect-realtime"
import { SqlSubscriptionStore } from "effect-realtime/sql"

import { collectGarbage } from "../support/garbage.js"
import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"
import { newEndpoint, newKeys } from "../support/subscriptions.js"

const rows = 100_000

const heapUsed = Effect.sync(() => {
  collectGarbage()
  return process.memoryUsage().heapUsed / 1024 / 1024
})

const program = (name: string) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const keys = newKeys()
    const newRow = (n: number) => {
      const endpoint = newEndpoint()
      const endpoint_hash = createHash("sha256").update(endpoint).digest("base64url")
      return { endpoint_hash, endpoint, owner: `owner ${n}`, ...keys, created_at: n, updated_at: n }
    }
    yield* sql.withTransaction(
      Effect.forEach(Arr.chunksOf(Arr.range(1, rows), 2000), (chunk) =>
        sql`INSERT INTO web_push_subscriptions ${sql.insert(chunk.map(newRow))}`, { discard: true })
    )

    const before = yield* heapUsed
    let most = 0
    const [duration, count] = yield* Effect.timed(
      SubscriptionStore.all.pipe(
        Stream.zipWithIndex,
        Stream.tap(([, n]) =>
          n % 10_000 === 0
            ? Effect.map(heapUsed, (used) =>
              most = Math.max(most, used))
            : Effect.void
        ),
        Stream.runCount
      )
    )
    const growth = (most - before).toFixed(1)
    yield* Console.log(`${name}: ${count} devices in ${Duration.format(duration)}, at most ${growth} MiB more`)
    assert.equal(count, rows)
    assert.ok(most - before < 20, "memory does not grow with the rows")
  })

const StoreLive = SqlSubscriptionStore.layer

const withSqlite = program("SQLite").pipe(Effect.provide(Layer.provideMerge(StoreLive, Sqlite.layerClient)))

const withPostgres = program("PostgreSQL").pipe(
  Effect.provide(StoreLive.pipe(Layer.provideMerge(Postgres.layerClient), Layer.provide(Postgres.Postgres.layer)))
)

NodeRuntime.runMain(Effect.zipRight(withSqlite, withPostgres))
