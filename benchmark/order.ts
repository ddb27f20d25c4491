/**
 * Measures two ways to give the events of transactions one order in PostgreSQL: a counter row, which a transaction
 * holds from its publish to its commit, and the outbox of `SqlEventLog`. Publishes in small transactions, alone and
 * while another transaction that has published stays open: `tsx benchmark/order.ts`.
 */
import { SqlClient } from "@effect/sql"
import { Context, Deferred, Effect, Fiber, Layer } from "effect"
import { EventLog } from "effect-realtime"
import { SqlEventLog } from "effect-realtime/sql"

import * as Postgres from "../test/support/postgres.js"

const seconds = Number(process.env["SECONDS"] ?? 3)
const publishers = 8
const data = new Uint8Array(200)

const main = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const log = Context.get(yield* Layer.build(SqlEventLog.layer), EventLog.EventLog)
  yield* sql`CREATE TABLE orders (id BIGSERIAL PRIMARY KEY, at DOUBLE PRECISION)`
  yield* sql`CREATE TABLE counter (seq BIGINT NOT NULL)`
  yield* sql`INSERT INTO counter VALUES (0)`
  yield* sql`CREATE TABLE counted (seq BIGINT PRIMARY KEY, channel TEXT NOT NULL, data BYTEA NOT NULL)`

  const byCounter = sql`
    WITH next AS (UPDATE counter SET seq = seq + 1 RETURNING seq), stored AS (
      INSERT INTO counted SELECT seq, 'bench/1', ${data} FROM next RETURNING seq
    ) SELECT pg_notify('counted', seq::TEXT) FROM stored
  `
  const ways = { "counter row": byCounter, outbox: log.append("bench/1", data) }
  for (const [name, publish] of Object.entries<Effect.Effect<unknown, unknown>>(ways)) {
    const transaction = sql.withTransaction(Effect.zipRight(sql`INSERT INTO orders (at) VALUES (1)`, publish))
    const rate = Effect.gen(function*() {
      let count = 0
      const one = Effect.forever(Effect.tap(transaction, () => Effect.sync(() => count++)))
      yield* Effect.all(Array.from({ length: publishers }, () => one), { concurrency: "unbounded" }).pipe(
        Effect.timeoutOption(seconds * 1000)
      )
      return (count / seconds).toFixed(0)
    })
    const alone = yield* rate
    const published = yield* Deferred.make<void>()
    const ends = yield* Deferred.make<void>()
    const long = yield* Effect.fork(sql.withTransaction(
      publish.pipe(Effect.zipRight(Deferred.succeed(published, undefined)), Effect.zipRight(Deferred.await(ends)))
    ))
    yield* Deferred.await(published)
    const beside = yield* rate
    yield* Deferred.succeed(ends, undefined)
    yield* Fiber.join(long)
    console.log(`${name}: ${alone} transactions a second, ${beside} while another one is open`)
  }
}).pipe(
  Effect.scoped,
  Effect.provide(Layer.provideMerge(Postgres.layerClient, Postgres.Postgres.layer))
)

await Effect.runPromise(main).then(() => process.exit())
