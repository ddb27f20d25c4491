import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"

/**
 * The code of a failure. Nothing else of it may be shown: PostgreSQL repeats the values of a row in its `detail`.
 */
export const failureCode = (error: unknown): string =>
  !Predicate.isRecord(error)
    ? "unknown"
    : Predicate.isString(error.code) && /^[A-Z0-9_]{3,64}$/.test(error.code)
    ? error.code
    : failureCode(error.cause)

// SQLite does not wait for another writer, and PostgreSQL picks one of two that wait for each other.
const isConflict = (error: SqlError): boolean => /^(SQLITE_BUSY|SQLITE_LOCKED|40001|40P01)/.test(failureCode(error))

const untilFree = Schedule.exponential("5 millis", 1.5).pipe(
  Schedule.jittered,
  Schedule.either(Schedule.spaced("200 millis")),
  Schedule.upTo("15 seconds")
)

/**
 * Runs a statement, again if it only lost against a concurrent one. SQLite is told to wait by itself first: a statement that libsql
 * fails with SQLITE_BUSY may keep a snapshot open until it is collected, and no write of that connection succeeds until then.
 * It is told each time, because a libsql client has a new connection after a transaction.
 */
export const run = <A>(
  sql: SqlClient.SqlClient,
  statement: Effect.Effect<A, SqlError, never>
): Effect.Effect<A, SqlError> => {
  const retried = Effect.retry(statement, { schedule: untilFree, while: isConflict })
  return sql.onDialectOrElse({
    sqlite: () => Effect.zipRight(Effect.ignore(sql`PRAGMA busy_timeout = 5000`), retried),
    orElse: () => retried
  })
}

/**
 * Creates what is missing. Two nodes that start at once may meet in any statement of it, so it is tried again.
 *
 * On SQLite it uses no transaction: a client of `@effect/sql-libsql` that does not get the lock at its BEGIN never gives its only
 * connection back. The migrations do nothing when run again.
 */
export const migrate = (
  table: string,
  migrations: Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>>
): Effect.Effect<void, SqlError | Migrator.MigrationError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.onDialectOrElse({
      sqlite: () =>
        Effect.forEach(
          Object.values(migrations),
          (migration) => run(sql, Effect.provideService(migration, SqlClient.SqlClient, sql)),
          { discard: true }
        ),
      orElse: () =>
        Migrator.make({})({ loader: Migrator.fromRecord(migrations), table }).pipe(
          Effect.sandbox,
          Effect.retry({ times: 5, schedule: Schedule.jittered(Schedule.exponential("50 millis")) }),
          Effect.unsandbox,
          Effect.asVoid
        )
    }))
