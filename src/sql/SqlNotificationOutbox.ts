/**
 * Storage of a `NotificationOutbox` in a database: SQLite or PostgreSQL, through any `@effect/sql` client. A
 * notification is accepted as part of the caller's transaction if there is one.
 *
 * @since 0.1.0
 */
import type { MigrationError } from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Arr from "effect/Array"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

import * as Outbox from "../NotificationOutbox.js"
import type { Notifier } from "../Notifier.js"
import type { SubscriptionStore } from "../SubscriptionStore.js"
import type { WebPush } from "../WebPush.js"
import { addColumn, findColumn, migrate } from "./internal/migrate.js"
import * as Statement from "./internal/statement.js"

/**
 * Options of a storage in a database.
 *
 * @since 0.1.0
 * @category models
 */
export interface StorageOptions {
  /** Name of the table: lower-case letters, digits and underscores. `notification_outbox` by default. */
  readonly tableName?: string | undefined
}

/**
 * Options of an outbox in a database.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<out R = never> extends Outbox.Options<R>, StorageOptions {}

const defaultTableName = "notification_outbox"

/**
 * Returns the migrations of a storage with these options. They do nothing when they run again.
 *
 * @since 0.1.0
 * @category migrations
 */
export const migrationsWith = (
  { tableName = defaultTableName }: StorageOptions
): Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>> => ({
  "0001_create_outbox": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const table = sql.literal(tableName)
    yield* sql`CREATE TABLE IF NOT EXISTS ${table} (
      id TEXT PRIMARY KEY,
      owner TEXT NOT NULL,
      message TEXT NOT NULL,
      failures TEXT,
      attempts DOUBLE PRECISION NOT NULL,
      due_at DOUBLE PRECISION NOT NULL,
      claim TEXT,
      created_at DOUBLE PRECISION NOT NULL,
      died_at DOUBLE PRECISION
    )`
    yield* sql`CREATE INDEX IF NOT EXISTS ${table}_by_due ON ${table} (due_at) WHERE died_at IS NULL`
  }),
  "0002_add_reached": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* addColumn(sql, tableName, "reached")
  })
})

/**
 * Migrations that the layer runs before it uses the database, for applications that collect their migrations in one
 * place. They do nothing when they run again.
 *
 * @since 0.1.0
 * @category migrations
 */
export const migrations: Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>> = migrationsWith({})

const entryColumns = `id, owner, message, failures, reached, attempts, due_at AS "dueAt", created_at AS "createdAt"`

const deadLetterColumns = `id, owner, failures, attempts, created_at AS "createdAt", died_at AS "diedAt"`

/**
 * Makes a storage in the database of the `SqlClient`, with options. Creates its table if the database has none.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import * as NotificationOutbox from "effect-realtime/NotificationOutbox"
 * import { SqlNotificationOutbox } from "effect-realtime/sql"
 *
 * const outbox = NotificationOutbox.make(SqlNotificationOutbox.makeStorageWith({ tableName: "billing_outbox" }))
 * ```
 */
export const makeStorageWith = (
  options: StorageOptions
): Effect.Effect<Outbox.Storage, SqlError | MigrationError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const { tableName = defaultTableName } = options
    const sql = yield* SqlClient.SqlClient
    yield* migrate({
      component: "SqlNotificationOutbox",
      tableName,
      migrations: migrationsWith(options),
      last: (sql) => findColumn(sql, tableName, "reached")
    })
    const table = sql.literal(tableName)
    const { read, write } = Statement.queries(
      sql,
      (code) => new Outbox.NotificationOutboxError({ reason: "Unavailable", detail: code })
    )
    const deadLetterColumnsOf = sql.literal(deadLetterColumns)

    const storage: Outbox.Storage = {
      insert: ({ createdAt, dueAt, ...entry }) =>
        write(
          sql`INSERT INTO ${table} ${
            sql.insert({ ...entry, due_at: dueAt, claim: null, created_at: createdAt, died_at: null })
          }`
        ),
      claim: ({ claim, latest, limit, now, until }) => {
        const due = sql`
          SELECT id FROM ${table}
          WHERE died_at IS NULL AND (due_at <= ${now} OR due_at > ${latest})
          ORDER BY due_at LIMIT ${limit}
        `
        const isDue = sql.onDialectOrElse({
          pg: () => sql`id = ANY(ARRAY(${due} FOR UPDATE SKIP LOCKED))`,
          // SQLite has one writer at a time.
          orElse: () => sql`id IN (${due})`
        })
        return write(sql<Outbox.StoredEntry>`
          UPDATE ${table} SET claim = ${claim}, due_at = ${until}, attempts = attempts + 1
          WHERE ${isDue} RETURNING ${sql.literal(entryColumns)}
        `)
      },
      renew: (claim, ids, until) =>
        write(sql`
          UPDATE ${table} SET due_at = ${until} WHERE claim = ${claim} AND ${sql.in("id", ids)}
        `),
      release: (claim, now) =>
        write(sql`
          UPDATE ${table} SET claim = NULL, due_at = ${now}, attempts = attempts - 1 WHERE claim = ${claim}
        `),
      settle: (claim, id, settlement) => {
        const isClaimed = sql`id = ${id} AND claim = ${claim}`
        switch (settlement._tag) {
          case "Sent":
            return write(sql`DELETE FROM ${table} WHERE ${isClaimed}`)
          case "Due":
            return write(sql`
              UPDATE ${table} SET
                claim = NULL,
                failures = ${settlement.failures},
                reached = ${settlement.reached},
                attempts = ${settlement.attempts},
                due_at = ${settlement.dueAt}
              WHERE ${isClaimed}
            `)
          case "Dead":
            return write(sql`
              UPDATE ${table} SET
                claim = NULL,
                failures = ${settlement.failures},
                reached = ${settlement.reached},
                died_at = ${settlement.diedAt}
              WHERE ${isClaimed}
            `)
        }
      },
      deadLetters: ({ diedAt, id }, limit) =>
        read(sql<Outbox.StoredDeadLetter>`
          SELECT ${deadLetterColumnsOf} FROM ${table}
          WHERE died_at IS NOT NULL AND (died_at > ${diedAt} OR (died_at = ${diedAt} AND id > ${id}))
          ORDER BY died_at, id LIMIT ${limit}
        `),
      deadLetter: (id) =>
        Effect.map(
          read(sql<Outbox.StoredDeadLetter>`
            SELECT ${deadLetterColumnsOf} FROM ${table} WHERE id = ${id} AND died_at IS NOT NULL
          `),
          Arr.head
        ),
      retry: (id, failures, dueAt) =>
        Effect.map(
          write(sql`
            UPDATE ${table} SET died_at = NULL, attempts = 0, failures = ${failures}, due_at = ${dueAt}
            WHERE id = ${id} AND died_at IS NOT NULL RETURNING id
          `),
          Arr.isNonEmptyReadonlyArray
        ),
      discard: (id) =>
        Effect.map(
          write(sql`DELETE FROM ${table} WHERE id = ${id} AND died_at IS NOT NULL RETURNING id`),
          Arr.isNonEmptyReadonlyArray
        )
    }
    return storage
  })

/**
 * Makes a storage in the database of the `SqlClient`. Creates its table if the database has none.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import * as NotificationOutbox from "effect-realtime/NotificationOutbox"
 * import { SqlNotificationOutbox } from "effect-realtime/sql"
 *
 * const outbox = NotificationOutbox.make(SqlNotificationOutbox.makeStorage)
 * ```
 */
export const makeStorage: Effect.Effect<Outbox.Storage, SqlError | MigrationError, SqlClient.SqlClient> =
  makeStorageWith({})

/**
 * Makes an outbox in the database of the `SqlClient` that sends only while `drain` runs. See `NotificationOutbox.make`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { SqlNotificationOutbox } from "effect-realtime/sql"
 *
 * // Drained by a job, not all the time.
 * const job = Effect.flatMap(SqlNotificationOutbox.make(), (outbox) => outbox.drain)
 * ```
 */
export const make = <R = never>(
  options: Options<R> = {}
): Effect.Effect<
  Outbox.NotificationOutbox.Service,
  SqlError | MigrationError,
  SqlClient.SqlClient | Notifier | SubscriptionStore | WebPush | R
> => Outbox.make(makeStorageWith(options), options)

/**
 * Provides an outbox in the database of the `SqlClient`, which is drained all the time. Any number of nodes may use one
 * database.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { LibsqlClient } from "@effect/sql-libsql"
 * import { Layer } from "effect"
 * import * as Notifier from "effect-realtime/Notifier"
 * import { SqlNotificationOutbox, SqlSubscriptionStore } from "effect-realtime/sql"
 *
 * const OutboxLive = SqlNotificationOutbox.layer.pipe(
 *   Layer.provide(Notifier.layer),
 *   Layer.provide(SqlSubscriptionStore.layer),
 *   Layer.provide(LibsqlClient.layer({ url: "file:app.db" }))
 * )
 * ```
 */
export const layer: Layer.Layer<
  Outbox.NotificationOutbox,
  SqlError | MigrationError,
  SqlClient.SqlClient | Notifier | SubscriptionStore | WebPush
> = Outbox.layerWith(makeStorage)

/**
 * Provides an outbox as `layer` does, with options.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SqlNotificationOutbox } from "effect-realtime/sql"
 *
 * const OutboxLive = SqlNotificationOutbox.layerWith({ maxAttempts: 5 })
 * ```
 */
export const layerWith = <R = never>(
  options: Options<R>
): Layer.Layer<
  Outbox.NotificationOutbox,
  SqlError | MigrationError,
  SqlClient.SqlClient | Notifier | SubscriptionStore | WebPush | Exclude<R, Scope.Scope>
> => Outbox.layerWith(makeStorageWith(options), options)

/**
 * Provides an outbox as `layer` does, with options from the configuration.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { SqlNotificationOutbox } from "effect-realtime/sql"
 *
 * const OutboxLive = SqlNotificationOutbox.layerConfig({ concurrency: Config.integer("OUTBOX_CONCURRENCY") })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<
  Outbox.NotificationOutbox,
  SqlError | MigrationError | ConfigError,
  SqlClient.SqlClient | Notifier | SubscriptionStore | WebPush
> => Layer.unwrapEffect(Effect.map(Config.unwrap(options), (options) => layerWith(options)))
