import { SqlClient } from "@effect/sql"
import { Effect, Layer } from "effect"
import { SqlEventLog } from "effect-realtime/sql"

/**
 * Returns a function that makes layers of empty logs in one database. A log that is closed leaves its tables to the
 * next one: to create them takes longer than a short test.
 */
export const makeLayers = () => {
  const free: Array<string> = []
  let count = 0
  return (options: SqlEventLog.Options) =>
    Layer.unwrapScoped(Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => free.pop() ?? `log_${count++}`),
        (tableName) => Effect.zipRight(Effect.orDie(clear(tableName)), Effect.sync(() => free.push(tableName)))
      ),
      (tableName) => SqlEventLog.layerWith({ ...options, tableName })
    ))
}

/** Deletes all rows of a log, and begins an epoch. */
const clear = (tableName: string) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const table = sql.literal(tableName)
    const tables = ["", "_channels", "_keys", "_nodes", "_presence"]
    for (const suffix of tables) yield* sql`DELETE FROM ${table}${sql.literal(suffix)}`
    yield* sql.onDialectOrElse({
      pg: () => sql`DELETE FROM ${table}_outbox`,
      orElse: () => sql`DELETE FROM sqlite_sequence WHERE name = ${tableName}`
    })
    const epoch = crypto.randomUUID().slice(0, 8)
    yield* sql`UPDATE ${table}_state SET epoch = ${epoch}, seq = 0, floor = 0, forgotten = 0`
  })
