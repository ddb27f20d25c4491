/**
 * An `EventLog` in a database: SQLite or PostgreSQL, through any `@effect/sql` client. History survives a restart with
 * the same ids. A publish inside `sql.withTransaction` is part of that transaction: every reader receives the event
 * after the commit, and none after a rollback.
 *
 * **One order.** A reader that has seen `n` never receives an event before `n` later, although transactions commit in
 * another order than they began. A sequence of PostgreSQL does not have this property: it numbers events when they are
 * inserted. A counter row has it, but a transaction that publishes holds the row until its commit, and stops all other
 * publishers. So a transaction only adds its events to an outbox, without a lock. They get their places after the
 * commit, in a short statement of its own, which holds the counter row. All other appends are such a statement, too: it
 * numbers the events of the outbox first, then its own.
 *
 * SQLite has one writer at a time, so its events are numbered where they are inserted.
 *
 * @since 0.1.0
 */
import type { MigrationError } from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

import * as EventLog from "../EventLog.js"
import { toMillis } from "../internal/duration.js"
import { makeRule } from "../internal/rule.js"
import { hasOneConnection, isPgClient } from "./internal/log/listener.js"
import * as Log from "./internal/log/log.js"
import * as Tables from "./internal/log/tables.js"
import { migrate } from "./internal/migrate.js"

/**
 * The table of a log, and its limits. All nodes of a log should have the same ones.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Name of the table: lower-case letters, digits and underscores, at most 40. Further tables have its name with a
   * suffix. `event_log` by default.
   */
  readonly tableName?: string | undefined
  /**
   * The number of events of one channel, a whole number from 1, or Infinity. 1000 by default.
   */
  readonly capacity?: number | undefined
  /**
   * The size of the events of one channel in bytes, a whole number from 1, or Infinity. 1 MiB by default. The last
   * event of a channel is stored even if it is larger.
   */
  readonly maxBytes?: number | undefined
  /**
   * The age of an event, in milliseconds or as a Duration, a millisecond or more. 10 minutes by default. An older event
   * is not read any more, and is deleted about a minute later.
   */
  readonly maxAge?: Duration.DurationInput | undefined
  /**
   * The time between two looks at a file of SQLite for events that another process has appended, in milliseconds or as
   * a Duration, a millisecond or more. 25 milliseconds by default. PostgreSQL notifies the nodes instead.
   */
  readonly pollInterval?: Duration.DurationInput | undefined
}

const defaultTableName = "event_log"

/**
 * Returns the migrations of a log with these options. They do nothing when they run again.
 *
 * @since 0.1.0
 * @category migrations
 */
export const migrationsWith = (
  { tableName = defaultTableName }: Pick<Options, "tableName">
): Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>> => ({
  "0001_create_log": Tables.create(tableName)
})

/**
 * Migrations that the layer runs before it uses the database, for applications that collect their migrations in one
 * place. They do nothing when they run again.
 *
 * @since 0.1.0
 * @category migrations
 */
export const migrations: Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>> = migrationsWith({})

/**
 * Makes a log in the database of the `SqlClient`, until the scope is closed. Creates its tables if the database has
 * none. Dies with `IllegalArgumentException` if an option is out of range, or if the dialect of the client is neither
 * that of SQLite nor that of PostgreSQL.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { SqlEventLog } from "effect-realtime/sql"
 *
 * const head = Effect.scoped(Effect.flatMap(SqlEventLog.make({ capacity: 100 }), (log) => log.head))
 * ```
 */
export const make = (
  options: Options = {}
): Effect.Effect<
  EventLog.EventLog.Service,
  SqlError | MigrationError | EventLog.EventLogError,
  SqlClient.SqlClient | Scope.Scope
> =>
  Effect.gen(function*() {
    const { capacity = 1000, maxBytes = 1024 * 1024, tableName = defaultTableName } = options
    for (const [name, limit] of Object.entries({ capacity, maxBytes })) {
      yield* rule(
        limit === Number.POSITIVE_INFINITY || (Number.isSafeInteger(limit) && limit >= 1),
        `${name} must be a whole number, one or more, or Infinity`
      )
    }
    const maxAge = toMillis(options.maxAge ?? "10 minutes")
    yield* rule(maxAge >= 1, "maxAge must be a millisecond or more")
    const pollInterval = toMillis(options.pollInterval ?? "25 millis")
    yield* rule(pollInterval >= 1, "pollInterval must be a millisecond or more")
    const sql = yield* SqlClient.SqlClient
    yield* migrate({
      component: "SqlEventLog",
      tableName,
      migrations: migrationsWith(options),
      last: (sql) => sql`SELECT name FROM sqlite_master WHERE name = ${`${tableName}_appended`}`
    })
    yield* sql.onDialectOrElse({
      pg: () =>
        Effect.zipRight(
          rule(isPgClient(sql), "the SqlClient of PostgreSQL must be a PgClient, which can listen"),
          rule(!hasOneConnection(sql), "the PgClient must have two connections or more: one listens")
        ),
      // Without a WAL, a reader and a writer exclude each other. A database that has none refuses it.
      orElse: () => Effect.ignore(sql`PRAGMA journal_mode = WAL`)
    })
    return EventLog.make(
      yield* Log.make({
        tableName,
        capacity: Math.min(capacity, Number.MAX_SAFE_INTEGER),
        maxBytes: Math.min(maxBytes, Number.MAX_SAFE_INTEGER),
        maxAge: Math.min(maxAge, Number.MAX_SAFE_INTEGER),
        pollInterval: Duration.millis(pollInterval)
      })
    )
  })

const rule = makeRule("SqlEventLog")

/**
 * Provides a log in the database of the `SqlClient`, shared by all nodes that use the same database. Creates its tables
 * if the database has none.
 *
 * In a transaction of PostgreSQL, `append` returns a place before the event, since its own place is not known before
 * the commit. A `read` after it has the event.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { LibsqlClient } from "@effect/sql-libsql"
 * import { Layer } from "effect"
 * import { EventBroker } from "effect-realtime"
 * import { SqlEventLog } from "effect-realtime/sql"
 *
 * const Broker = EventBroker.layer.pipe(
 *   Layer.provide(SqlEventLog.layer),
 *   Layer.provide(LibsqlClient.layer({ url: "file:app.db" }))
 * )
 * ```
 */
export const layer: Layer.Layer<
  EventLog.EventLog,
  SqlError | MigrationError | EventLog.EventLogError,
  SqlClient.SqlClient
> = Layer.scoped(EventLog.EventLog, make())

/**
 * Provides a log as `layer` does, with options.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SqlEventLog } from "effect-realtime/sql"
 *
 * const Log = SqlEventLog.layerWith({ capacity: 10_000, maxAge: "1 day" })
 * ```
 */
export const layerWith = (
  options: Options
): Layer.Layer<EventLog.EventLog, SqlError | MigrationError | EventLog.EventLogError, SqlClient.SqlClient> =>
  Layer.scoped(EventLog.EventLog, make(options))

/**
 * Provides a log as `layer` does, with options from the configuration.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { SqlEventLog } from "effect-realtime/sql"
 *
 * const Log = SqlEventLog.layerConfig({ maxAge: Config.duration("HISTORY") })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<
  EventLog.EventLog,
  SqlError | MigrationError | EventLog.EventLogError | ConfigError,
  SqlClient.SqlClient
> => Layer.unwrapScoped(Effect.map(Config.unwrap(options), layerWith))
