import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { globalValue } from "effect/GlobalValue"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import type { Scope } from "effect/Scope"

import { backoff } from "../../internal/backoff.js"

/** A statement of a `SqlClient`, and its rows without the client's transformation of names. */
export interface Statement<A> {
  readonly withoutTransform: Effect.Effect<ReadonlyArray<A>, SqlError>
}

/**
 * Access to the tables of an adapter, whose names are in snake case already. `toError` gets only the code of a failure,
 * because PostgreSQL repeats the values of a row in its `detail`.
 */
export const queries = <E>(sql: SqlClient.SqlClient, toError: (code: string) => E) => {
  const query = (access: Access) => <A>(statement: Statement<A>): Effect.Effect<ReadonlyArray<A>, E> =>
    Effect.mapError(run(sql, access, statement.withoutTransform), (error) => toError(failureCode(error)))
  return { read: query("read"), write: query("write") }
}

/** Returns the code of a failure. The rest is not shown: it may repeat the values of a row. */
export const failureCode = (error: unknown): string =>
  !Predicate.isRecord(error)
    ? "unknown"
    : Predicate.isString(error.code) && /^[A-Z0-9_]{3,64}$/.test(error.code)
    ? error.code
    : failureCode(error.cause)

// SQLite does not wait for another writer, and PostgreSQL ends one of two transactions that wait for each other.
const isConflict = (error: SqlError): boolean => /^(SQLITE_BUSY|SQLITE_LOCKED|40001|40P01)/.test(failureCode(error))

const untilFree = Schedule.upTo(backoff("5 millis", "200 millis", 1.5), "15 seconds")

interface LocalLibsql {
  readonly reserve: Effect.Effect<unknown, SqlError, Scope>
  readonly sdk: {
    readonly execute: (
      statement: string
    ) => Promise<{ readonly rows: ReadonlyArray<Readonly<Record<string, unknown>>> }>
    readonly executeMultiple: (statements: string) => Promise<unknown>
  }
}

const isLocalLibsql = (sql: unknown): sql is LocalLibsql =>
  Predicate.hasProperty(sql, "sdk") &&
  Predicate.hasProperty(sql.sdk, "protocol") && sql.sdk.protocol === "file" &&
  Predicate.hasProperty(sql.sdk, "execute") && Predicate.isFunction(sql.sdk.execute) &&
  Predicate.hasProperty(sql.sdk, "executeMultiple") && Predicate.isFunction(sql.sdk.executeMultiple)

// Without a WAL, EXCLUSIVE also needs all readers to have ended.
const lockStatements = { read: "SELECT 1 FROM sqlite_master LIMIT 1", write: "BEGIN EXCLUSIVE; COMMIT" }

type Access = keyof typeof lockStatements

const untraced = <A, E, R>(statement: Effect.Effect<A, E, R>) => Effect.withTracerEnabled(statement, false)

/**
 * Runs a statement of SQLite that gets the lock or fails at once: a wait inside of SQLite blocks the event loop. Of the
 * statements that run at the same time, the last one restores the `busy_timeout` of the connection.
 *
 * libsql does not reset a statement that failed with SQLITE_BUSY. Until it is collected, a write of the same connection
 * that succeeds is not committed, and is rolled back in the end. So the lock is tried first by `executeMultiple`, which
 * resets its statements. `executeMultiple` also fails while another statement is in that state. The statement itself
 * may wait: only a connection that takes the lock in between delays it.
 *
 * The timeout is read and set each time, because a libsql client has a new connection after a transaction. The `sdk`
 * costs less than a statement of the client, and does not wait for a transaction of another fiber.
 */
const runSqlite = <A>(
  sql: SqlClient.SqlClient,
  timeout: BusyTimeout,
  access: Access,
  statement: Effect.Effect<A, SqlError>
): Effect.Effect<A, SqlError> => {
  const setBusyTimeout = (millis: string) => Effect.ignore(untraced(sql`PRAGMA busy_timeout = ${sql.literal(millis)}`))
  return isLocalLibsql(sql)
    ? withRestored(
      timeout,
      Effect.map(Effect.tryPromise(() => sql.sdk.execute("PRAGMA busy_timeout")), ({ rows }) => rows),
      Effect.tryPromise({
        try: () =>
          sql.sdk.executeMultiple(`PRAGMA busy_timeout = 0; ${lockStatements[access]}; PRAGMA busy_timeout = 5000`),
        catch: (cause) => new SqlError({ cause, message: "Failed to acquire the lock" })
      }).pipe(Effect.zipRight(statement)),
      (millis) => Effect.ignore(Effect.tryPromise(() => sql.sdk.execute(`PRAGMA busy_timeout = ${millis}`)))
    )
    : withRestored(
      timeout,
      untraced(sql<Readonly<Record<string, unknown>>>`PRAGMA busy_timeout`.withoutTransform),
      Effect.zipRight(setBusyTimeout("0"), statement),
      setBusyTimeout
    )
}

/** The `busy_timeout` of a connection while statements that change it are running. */
interface BusyTimeout {
  /** The permit to read or restore it, so that no statement reads the value of another one. */
  readonly permit: Effect.Semaphore
  statements: number
  /** The value before the first of them, if the client can read it. */
  original: string | undefined
}

const withRestored = <A>(
  timeout: BusyTimeout,
  rows: Effect.Effect<ReadonlyArray<Readonly<Record<string, unknown>>>, unknown>,
  statement: Effect.Effect<A, SqlError>,
  restore: (millis: string) => Effect.Effect<void>
): Effect.Effect<A, SqlError> => {
  const read = rows.pipe(
    Effect.map(([row]) => Predicate.isNotNullable(row?.["timeout"]) ? String(row["timeout"]) : undefined),
    Effect.orElseSucceed(() => undefined)
  )
  return Effect.uninterruptibleMask((interruptible) =>
    Effect.gen(function*() {
      yield* interruptible(timeout.permit.take(1))
      yield* Effect.ensuring(
        timeout.statements > 0 ? Effect.void : Effect.map(interruptible(read), (original) => {
          timeout.original = original
        }),
        timeout.permit.release(1)
      )
      timeout.statements++
      return yield* Effect.ensuring(
        interruptible(statement),
        timeout.permit.withPermits(1)(Effect.suspend(() =>
          --timeout.statements > 0 || timeout.original === undefined ? Effect.void : restore(timeout.original)
        ))
      )
    })
  )
}

// `LibsqlClient` does not export the tag of its transactions, which are none of a client that has no `sdk`.
const libsqlTransaction = "@effect/sql-libsql/LibsqlClient/LibsqlTransaction"

/** True inside of `withTransaction`. No statement is needed to find out. */
export const isInTransaction = (sql: SqlClient.SqlClient): Effect.Effect<boolean> =>
  Effect.contextWith(({ unsafeMap }: Context.Context<never>) =>
    unsafeMap.has(Predicate.hasProperty(sql, "sdk") ? libsqlTransaction : SqlClient.TransactionConnection.key)
  )

/**
 * True inside of a transaction that the caller has begun by a statement, too. SQLite refuses the pragma inside any
 * transaction. Outside of a transaction the pragma has no effect. `reserve` of a libsql client waits for the
 * transaction of another fiber: until it ends, a write would try the lock in vain, and for 15 seconds at most.
 */
const isInAnyTransaction = (sql: SqlClient.SqlClient): Effect.Effect<boolean> =>
  sql.onDialectOrElse({
    sqlite: () =>
      Effect.if(isInTransaction(sql), {
        onTrue: () => Effect.succeed(true),
        onFalse: () =>
          Effect.isFailure<unknown, unknown, never>(
            isLocalLibsql(sql)
              ? Effect.zipRight(Effect.scoped(sql.reserve), Effect.tryPromise(() => sql.sdk.execute(probe)))
              : Effect.asVoid(untraced(sql.unsafe(probe)))
          )
      }),
    orElse: () => isInTransaction(sql)
  })

const probe = "PRAGMA temp.synchronous = 1"

/** The state that all statements of a client share, whichever adapter runs them. */
interface Shared {
  /** Order of the writes: of those that wait for the lock of SQLite, one at a time tries it. */
  readonly writes: Effect.Semaphore
  readonly timeout: BusyTimeout
}

const shared = globalValue("effect-realtime/sql/statement/shared", () => new WeakMap<SqlClient.SqlClient, Shared>())

const sharedOf = (sql: SqlClient.SqlClient): Shared => {
  const known = shared.get(sql) ?? {
    writes: Effect.unsafeMakeSemaphore(1),
    timeout: { permit: Effect.unsafeMakeSemaphore(1), statements: 0, original: undefined }
  }
  shared.set(sql, known)
  return known
}

/** Runs a write when the earlier ones have ended, or fails with SQLITE_BUSY if it cannot begin within 15 seconds. */
const afterEarlierWrites = <A>(gate: Effect.Semaphore, write: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> =>
  Effect.suspend(() => {
    let hasBegun = false
    const begin = Effect.suspend(() => {
      hasBegun = true
      return write
    })
    const tooLate = Effect.suspend(() =>
      hasBegun
        ? Effect.never
        : new SqlError({ cause: { code: "SQLITE_BUSY" }, message: "Failed to acquire the lock" })
    )
    // The wait and the write are one fiber: an interruption between two fibers would never release the permit.
    // Interruptible: a race in a finalizer would wait for its loser otherwise.
    return Effect.raceFirst(gate.withPermits(1)(begin), Effect.interruptible(Effect.delay(tooLate, "15 seconds")))
  })

/**
 * Runs a statement, and retries it for up to 15 seconds if it conflicts with a concurrent one. Inside a transaction of
 * the caller it runs once: the first failure ends the transaction, and the caller gets its code.
 */
export const run = <A>(
  sql: SqlClient.SqlClient,
  access: Access,
  statement: Effect.Effect<A, SqlError>
): Effect.Effect<A, SqlError> => {
  const retry = (statement: Effect.Effect<A, SqlError>) =>
    Effect.retry(statement, { schedule: untilFree, while: isConflict })
  return Effect.if(isInAnyTransaction(sql), {
    onTrue: () => statement,
    onFalse: () =>
      sql.onDialectOrElse({
        sqlite: () => {
          const { timeout, writes } = sharedOf(sql)
          const retried = retry(runSqlite(sql, timeout, access, statement))
          return access === "write" ? afterEarlierWrites(writes, retried) : retried
        },
        orElse: () => retry(statement)
      })
  })
}
