import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

import * as Statement from "./statement.js"

/** Dies if the dialect of the client is neither that of SQLite nor that of PostgreSQL. */
const requireDialect = (sql: SqlClient.SqlClient, component: string): Effect.Effect<void> => {
  const refuse = (dialect: string) => () =>
    Effect.die(
      new Cause.IllegalArgumentException(
        `${component}: the dialect of the SqlClient must be sqlite or pg, and is ${dialect}`
      )
    )
  const accept = () => Effect.void
  return sql.onDialect({
    sqlite: accept,
    pg: accept,
    mysql: refuse("mysql"),
    mssql: refuse("mssql"),
    clickhouse: refuse("clickhouse")
  })
}

// The names of indexes are longer, and PostgreSQL cuts a name off after 63 bytes.
const requireTableName = (tableName: string, component: string): Effect.Effect<void> =>
  /^[a-z_][a-z0-9_]{0,39}$/.test(tableName)
    ? Effect.void
    : Effect.die(
      new Cause.IllegalArgumentException(
        `${component}: tableName must be lower-case letters, digits and underscores, at most 40`
      )
    )

/**
 * Runs the migrations that the database lacks. Two nodes that start at once may conflict in each of them, so a failure
 * is retried.
 *
 * On SQLite it uses no transaction: a client of `@effect/sql-libsql` whose BEGIN does not get the lock never releases
 * its only connection. The migrations do nothing when they run again. They are left out, without a lock, if `last`
 * finds the result of the last one.
 */
export const migrate = Effect.fnUntraced(function*({ component, last, migrations, tableName }: {
  readonly component: string
  readonly tableName: string
  readonly migrations: Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>>
  readonly last: (sql: SqlClient.SqlClient) => Effect.Effect<ReadonlyArray<unknown>, SqlError>
}): Effect.fn.Return<void, SqlError | Migrator.MigrationError, SqlClient.SqlClient> {
  const sql = yield* SqlClient.SqlClient
  yield* requireDialect(sql, component)
  yield* requireTableName(tableName, component)
  yield* sql.onDialectOrElse({
    sqlite: () =>
      Effect.gen(function*() {
        const found = yield* Statement.run(sql, "read", last(sql))
        if (found.length > 0) return
        for (const migration of Object.values(migrations)) {
          yield* Statement.run(sql, "write", Effect.provideService(migration, SqlClient.SqlClient, sql))
        }
      }),
    orElse: () =>
      Migrator.make({})({ loader: Migrator.fromRecord(migrations), table: `${tableName}_migrations` }).pipe(
        Effect.sandbox,
        Effect.retry({ times: 5, schedule: Schedule.jittered(Schedule.exponential("50 millis")) }),
        Effect.unsandbox,
        Effect.asVoid
      )
  })
})

/** Selects a row if a table of SQLite has the column. */
export const findColumn = (sql: SqlClient.SqlClient, tableName: string, name: string) =>
  sql`SELECT name FROM pragma_table_info(${tableName}) WHERE name = ${name}`

/** Adds a column of the type TEXT to a table, unless the table has it. */
export const addColumn = (
  sql: SqlClient.SqlClient,
  tableName: string,
  name: string
): Effect.Effect<void, SqlError> => {
  const add = (guard: string) =>
    sql`ALTER TABLE ${sql.literal(tableName)} ADD COLUMN ${sql.literal(`${guard}${name}`)} TEXT`
  const exists = Effect.map(findColumn(sql, tableName, name), Arr.isNonEmptyReadonlyArray)
  return sql.onDialectOrElse({
    pg: () => Effect.asVoid(add("IF NOT EXISTS ")),
    // Another node may have added the column in the meantime.
    orElse: () =>
      Effect.asVoid(
        Effect.unlessEffect(
          Effect.catchAll(add(""), (error) => Effect.unlessEffect(error, exists)),
          exists
        )
      )
  })
}
