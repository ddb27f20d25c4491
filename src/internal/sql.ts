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

/** Runs a statement again if it only lost against a concurrent one. */
export const retryConflict = <A, R>(statement: Effect.Effect<A, SqlError, R>): Effect.Effect<A, SqlError, R> =>
  Effect.retry(statement, { schedule: untilFree, while: isConflict })

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
      sqlite: () => Effect.forEach(Object.values(migrations), retryConflict, { discard: true }),
      orElse: () =>
        Migrator.make({})({ loader: Migrator.fromRecord(migrations), table }).pipe(
          Effect.sandbox,
          Effect.retry({ times: 5, schedule: Schedule.jittered(Schedule.exponential("50 millis")) }),
          Effect.unsandbox,
          Effect.asVoid
        )
    }))
