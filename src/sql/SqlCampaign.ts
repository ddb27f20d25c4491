/**
 * Storage of campaigns in a database: SQLite or PostgreSQL, through any `@effect/sql` client. A campaign starts as part
 * of the caller's transaction if there is one.
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

import * as Campaign from "../Campaign.js"
import type { SubscriptionStore } from "../SubscriptionStore.js"
import type { WebPush } from "../WebPush.js"
import { migrate } from "./internal/migrate.js"
import * as Statement from "./internal/statement.js"

/**
 * Options of a storage in a database.
 *
 * @since 0.1.0
 * @category models
 */
export interface StorageOptions {
  /** Name of the table: lower-case letters, digits and underscores. `web_push_campaigns` by default. */
  readonly tableName?: string | undefined
}

/**
 * Options of campaigns in a database.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends Campaign.Options, StorageOptions {}

const defaultTableName = "web_push_campaigns"

/**
 * Returns the migrations of a storage with these options. They do nothing when they run again.
 *
 * @since 0.1.0
 * @category migrations
 */
export const migrationsWith = (
  { tableName = defaultTableName }: StorageOptions
): Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>> => ({
  "0001_create_campaigns": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const table = sql.literal(tableName)
    yield* sql`CREATE TABLE IF NOT EXISTS ${table} (
      id TEXT PRIMARY KEY,
      content TEXT NOT NULL,
      state TEXT NOT NULL,
      batch_cursor TEXT,
      accepted DOUBLE PRECISION NOT NULL,
      gone DOUBLE PRECISION NOT NULL,
      failed DOUBLE PRECISION NOT NULL,
      due_at DOUBLE PRECISION NOT NULL,
      claim TEXT,
      started_at DOUBLE PRECISION NOT NULL
    )`
    yield* sql`CREATE INDEX IF NOT EXISTS ${table}_by_due ON ${table} (due_at) WHERE state = 'running'`
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

/**
 * Makes a storage in the database of the `SqlClient`, with options. Creates its table if the database has none.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import * as Campaign from "effect-realtime/Campaign"
 * import { SqlCampaign } from "effect-realtime/sql"
 *
 * const campaigns = Campaign.make(SqlCampaign.makeStorageWith({ tableName: "newsletter" }))
 * ```
 */
export const makeStorageWith = (
  options: StorageOptions
): Effect.Effect<Campaign.Storage, SqlError | MigrationError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const { tableName = defaultTableName } = options
    const sql = yield* SqlClient.SqlClient
    yield* migrate({
      component: "SqlCampaign",
      tableName,
      migrations: migrationsWith(options),
      last: (sql) => sql`SELECT name FROM sqlite_master WHERE name = ${`${tableName}_by_due`}`
    })
    const table = sql.literal(tableName)
    const { read, write } = Statement.queries(
      sql,
      (code) => new Campaign.CampaignError({ reason: "Unavailable", detail: code })
    )
    const columns = sql.literal(
      `id, content, state, batch_cursor AS "cursor", accepted, gone, failed, started_at AS "startedAt"`
    )

    const storage: Campaign.Storage = {
      insert: ({ cursor, startedAt, ...campaign }) =>
        write(sql`
          INSERT INTO ${table} ${
          sql.insert({ ...campaign, batch_cursor: cursor, due_at: startedAt, claim: null, started_at: startedAt })
        }
        `),
      find: (id) =>
        Effect.map(
          read(sql<Campaign.StoredCampaign>`SELECT ${columns} FROM ${table} WHERE id = ${id}`),
          Arr.head
        ),
      claim: (claim, now, until) => {
        const due = sql`
          SELECT id FROM ${table} WHERE state = 'running' AND due_at <= ${now} ORDER BY due_at LIMIT 1
        `
        const isDue = sql.onDialectOrElse({
          pg: () => sql`id = ANY(ARRAY(${due} FOR UPDATE SKIP LOCKED))`,
          // SQLite has one writer at a time.
          orElse: () => sql`id IN (${due})`
        })
        return Effect.map(
          write(sql<Campaign.StoredCampaign>`
            UPDATE ${table} SET claim = ${claim}, due_at = ${until} WHERE ${isDue} RETURNING ${columns}
          `),
          Arr.head
        )
      },
      renew: (claim, until) => write(sql`UPDATE ${table} SET due_at = ${until} WHERE claim = ${claim}`),
      release: (claim, dueAt) => write(sql`UPDATE ${table} SET claim = NULL, due_at = ${dueAt} WHERE claim = ${claim}`),
      commit: (claim, { accepted, cursor, failed, gone }, now) =>
        write(sql`
          UPDATE ${table} SET
            batch_cursor = ${cursor},
            accepted = accepted + ${accepted},
            gone = gone + ${gone},
            failed = failed + ${failed},
            state = CASE
              WHEN CAST(${cursor} AS TEXT) IS NULL AND state <> 'cancelled' THEN 'done' ELSE state
            END,
            claim = NULL,
            due_at = ${now}
          WHERE claim = ${claim}
        `),
      transition: (id, from, to) =>
        Effect.map(
          write(sql`
            UPDATE ${table} SET state = ${to} WHERE id = ${id} AND ${sql.in("state", from)} RETURNING id
          `),
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
 * import { Effect } from "effect"
 * import * as Campaign from "effect-realtime/Campaign"
 * import { SqlCampaign } from "effect-realtime/sql"
 *
 * // Sent by a job, not all the time.
 * const job = Effect.flatMap(Campaign.make(SqlCampaign.makeStorage), (campaigns) => campaigns.run)
 * ```
 */
export const makeStorage: Effect.Effect<Campaign.Storage, SqlError | MigrationError, SqlClient.SqlClient> =
  makeStorageWith({})

/**
 * Provides campaigns in the database of the `SqlClient`, which are sent all the time. Any number of nodes may use one
 * database.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { LibsqlClient } from "@effect/sql-libsql"
 * import { Layer } from "effect"
 * import { SqlCampaign, SqlSubscriptionStore } from "effect-realtime/sql"
 *
 * const CampaignLive = SqlCampaign.layer.pipe(
 *   Layer.provide(SqlSubscriptionStore.layer),
 *   Layer.provide(LibsqlClient.layer({ url: "file:app.db" }))
 * )
 * ```
 */
export const layer: Layer.Layer<
  Campaign.Campaign,
  SqlError | MigrationError,
  SqlClient.SqlClient | SubscriptionStore | WebPush
> = Campaign.layerWith(makeStorage)

/**
 * Provides campaigns as `layer` does, with options.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SqlCampaign } from "effect-realtime/sql"
 *
 * const CampaignLive = SqlCampaign.layerWith({ concurrency: 1 })
 * ```
 */
export const layerWith = (
  options: Options
): Layer.Layer<
  Campaign.Campaign,
  SqlError | MigrationError,
  SqlClient.SqlClient | SubscriptionStore | WebPush
> => Campaign.layerWith(makeStorageWith(options), options)

/**
 * Provides campaigns as `layer` does, with options from the configuration.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { SqlCampaign } from "effect-realtime/sql"
 *
 * const CampaignLive = SqlCampaign.layerConfig({ concurrency: Config.integer("CAMPAIGN_CONCURRENCY") })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<
  Campaign.Campaign,
  SqlError | MigrationError | ConfigError,
  SqlClient.SqlClient | SubscriptionStore | WebPush
> => Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerWith))
