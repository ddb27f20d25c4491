import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
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

/** A statement of a `SqlClient`, whatever that makes of the names in its rows. */
export interface Statement {
  readonly withoutTransform: Effect.Effect<ReadonlyArray<unknown>, SqlError>
}

interface LocalLibsql {
  readonly sdk: { readonly executeMultiple: (statements: string) => Promise<unknown> }
}

const isLocalLibsql = (sql: unknown): sql is LocalLibsql =>
  Predicate.hasProperty(sql, "sdk") &&
  Predicate.hasProperty(sql.sdk, "protocol") && sql.sdk.protocol === "file" &&
  Predicate.hasProperty(sql.sdk, "executeMultiple") && Predicate.isFunction(sql.sdk.executeMultiple)

// EXCLUSIVE waits for readers too, where the journal is no WAL.
const locks = { read: "SELECT 1 FROM sqlite_master LIMIT 1", write: "BEGIN EXCLUSIVE; COMMIT" }

type Access = keyof typeof locks

/**
 * Runs a statement of SQLite that finds the lock free or fails at once: a wait of SQLite is one of the event loop.
 *
 * libsql does not reset a statement that failed with SQLITE_BUSY. Until it is collected, a write of the same connection that succeeds is
 * not committed, and is rolled back in the end. So the lock is tried first by `executeMultiple`, which resets its statements; it fails too
 * while another statement is in that state. The statement itself waits for the lock, since it is lost only in between.
 *
 * The timeout is set each time, because a libsql client has a new connection after a transaction.
 */
const runSqlite = <A>(
  sql: SqlClient.SqlClient,
  access: Access,
  statement: Effect.Effect<A, SqlError>
): Effect.Effect<A, SqlError> => {
  const setTimeout = (millis: number) => Effect.ignore(untraced(sql`PRAGMA busy_timeout = ${sql.literal(`${millis}`)}`))
  return isLocalLibsql(sql)
    ? Effect.tryPromise({
      try: () => sql.sdk.executeMultiple(`PRAGMA busy_timeout = 0; ${locks[access]}; PRAGMA busy_timeout = 5000`),
      catch: (cause) => new SqlError({ cause, message: "Failed to acquire the lock" })
    }).pipe(Effect.tapError(() => setTimeout(5000)), Effect.zipRight(statement))
    : setTimeout(0).pipe(Effect.zipRight(statement), Effect.ensuring(setTimeout(5000)))
}

const untraced = <A, E, R>(statement: Effect.Effect<A, E, R>) => Effect.withTracerEnabled(statement, false)

// SQLite refuses the pragma inside a transaction, however that was begun; outside of one the pragma does nothing.
const isInTransaction = (sql: SqlClient.SqlClient): Effect.Effect<boolean> =>
  sql.onDialectOrElse({
    sqlite: () => Effect.isFailure(untraced(sql`PRAGMA temp.synchronous = 1`)),
    orElse: () => Effect.map(Effect.serviceOption(SqlClient.TransactionConnection), Option.isSome)
  })

// Of many writes that wait for the lock of SQLite, one at a time tries it.
const gates = new WeakMap<SqlClient.SqlClient, Effect.Semaphore>()

const inTurn = <A>(sql: SqlClient.SqlClient, write: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> =>
  Effect.suspend(() => {
    const gate = gates.get(sql) ?? Effect.unsafeMakeSemaphore(1)
    gates.set(sql, gate)
    let hasTurn = false
    const turn = Effect.suspend(() => {
      hasTurn = true
      return write
    })
    const tooLate = Effect.suspend(() =>
      hasTurn
        ? Effect.never
        : new SqlError({ cause: { code: "SQLITE_BUSY" }, message: "Failed to acquire the lock" })
    )
    // The wait and the write are one fiber: an interruption between them would keep the turn for ever.
    return Effect.raceFirst(gate.withPermits(1)(turn), Effect.delay(tooLate, "15 seconds"))
  })

/**
 * Runs a statement, again for up to 15 seconds if it only lost against a concurrent one. Inside a transaction of the caller it runs once:
 * the transaction is lost with the first failure, whose code the caller is to see.
 */
export const run = <A>(
  sql: SqlClient.SqlClient,
  access: Access,
  statement: Effect.Effect<A, SqlError>
): Effect.Effect<A, SqlError> => {
  const retry = (statement: Effect.Effect<A, SqlError>) =>
    Effect.retry(statement, { schedule: untilFree, while: isConflict })
  return Effect.if(isInTransaction(sql), {
    onTrue: () => statement,
    onFalse: () =>
      sql.onDialectOrElse({
        sqlite: () => {
          const retried = retry(runSqlite(sql, access, statement))
          return access === "write" ? inTurn(sql, retried) : retried
        },
        orElse: () => retry(statement)
      })
  })
}

/** Dies if the dialect of the client is neither SQLite's nor PostgreSQL's. */
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

/**
 * Creates what is missing. Two nodes that start at once may meet in any statement of it, so it is tried again.
 *
 * On SQLite it uses no transaction: a client of `@effect/sql-libsql` that does not get the lock at its BEGIN never gives its only
 * connection back. The migrations do nothing when run again, and are left out, without a lock, if `last` finds what the last one made.
 */
export const migrate = ({ component, last, migrations, table }: {
  readonly component: string
  readonly table: string
  readonly migrations: Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>>
  readonly last: (sql: SqlClient.SqlClient) => Effect.Effect<ReadonlyArray<unknown>, SqlError>
}): Effect.Effect<void, SqlError | Migrator.MigrationError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* requireDialect(sql, component)
    yield* sql.onDialectOrElse({
      sqlite: () =>
        Effect.gen(function*() {
          const found = yield* run(sql, "read", last(sql))
          if (found.length > 0) return
          for (const migration of Object.values(migrations)) {
            yield* run(sql, "write", Effect.provideService(migration, SqlClient.SqlClient, sql))
          }
        }),
      orElse: () =>
        Migrator.make({})({ loader: Migrator.fromRecord(migrations), table }).pipe(
          Effect.sandbox,
          Effect.retry({ times: 5, schedule: Schedule.jittered(Schedule.exponential("50 millis")) }),
          Effect.unsandbox,
          Effect.asVoid
        )
    })
  })

/**
 * Runs an effect whose interruption takes a second at most. A statement that a database does not answer by then is left to end in the
 * background, with what is left to do after it.
 */
export const endWithinASecond = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      Effect.forkDaemon(restore(self)),
      (fiber) =>
        Effect.onInterrupt(restore(Fiber.join(fiber)), () =>
          Fiber.interrupt(fiber).pipe(Effect.disconnect, Effect.interruptible, Effect.timeoutOption("1 second")))
    )
  )
