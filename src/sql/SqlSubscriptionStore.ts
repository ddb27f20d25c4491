/**
 * A `SubscriptionStore` in a database: SQLite or PostgreSQL, through any `@effect/sql` client.
 *
 * @since 0.1.0
 */
import type { MigrationError } from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { Fragment } from "@effect/sql/Statement"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

import { hashOf } from "../internal/hash.js"
import * as Store from "../SubscriptionStore.js"
import { Device, SubscriptionStore, SubscriptionStoreError } from "../SubscriptionStore.js"
import type { WebPushSubscription } from "../WebPushSubscription.js"
import { identityHashOf } from "../WebPushSubscription.js"
import { addColumn, migrate } from "./internal/migrate.js"
import * as Statement from "./internal/statement.js"

const column = <A, I>(schema: Schema.Schema<A, I>, name: string) =>
  Schema.propertySignature(schema).pipe(Schema.fromKey(name))

const Time = Schema.DateTimeUtcFromNumber

/**
 * A row of the table. Times are in milliseconds since 1970. The endpoint is stored byte for byte and found by its hash,
 * because it may be longer than an index allows. If an endpoint may have several owners, a blank and the owner follow
 * the hash. `attributes` is JSON.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Row = Schema.Struct({
  endpointHash: column(Schema.String, "endpoint_hash"),
  endpoint: Schema.String,
  owner: Schema.String,
  p256dh: Schema.String,
  auth: Schema.String,
  expiresAt: column(Schema.NullOr(Schema.Number), "expiration_time"),
  applicationServerKey: column(Schema.NullOr(Schema.String), "application_server_key"),
  userAgent: column(Schema.NullOr(Schema.String), "user_agent"),
  locale: Schema.NullOr(Schema.String),
  attributes: Schema.NullOr(Store.AttributesFromJson),
  createdAt: column(Time, "created_at"),
  updatedAt: column(Time, "updated_at"),
  lastSuccessAt: column(Schema.NullOr(Time), "last_success_at")
})

/**
 * Options of a store in a database.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends Store.Options {
  /**
   * Name of the table: lower-case letters, digits and underscores. A second table, of the subscriptions that were
   * pruned, has the suffix `_pruned`. `web_push_subscriptions` by default.
   */
  readonly tableName?: string | undefined
}

const defaultTableName = "web_push_subscriptions"

/**
 * Returns the migrations of a store with these options. They do nothing when they run again.
 *
 * @since 0.1.0
 * @category migrations
 */
export const migrationsWith = (
  { tableName = defaultTableName }: Pick<Options, "tableName">
): Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>> => ({
  "0001_create_subscriptions": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const table = sql.literal(tableName)
    yield* sql`CREATE TABLE IF NOT EXISTS ${table} (
      endpoint_hash TEXT PRIMARY KEY,
      endpoint TEXT NOT NULL,
      owner TEXT NOT NULL,
      p256dh TEXT NOT NULL,
      auth TEXT NOT NULL,
      expiration_time DOUBLE PRECISION,
      application_server_key TEXT,
      user_agent TEXT,
      created_at DOUBLE PRECISION NOT NULL,
      updated_at DOUBLE PRECISION NOT NULL,
      last_success_at DOUBLE PRECISION
    )`
    yield* sql`CREATE INDEX IF NOT EXISTS ${table}_by_owner ON ${table} (owner)`
  }),
  "0002_create_pruned": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const table = sql.literal(tableName)
    yield* sql`CREATE TABLE IF NOT EXISTS ${table}_pruned (
      subscription_hash TEXT PRIMARY KEY,
      pruned_at DOUBLE PRECISION NOT NULL
    )`
    yield* sql`CREATE INDEX IF NOT EXISTS ${table}_pruned_by_time ON ${table}_pruned (pruned_at)`
  }),
  "0003_add_locale": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const table = sql.literal(tableName)
    yield* addColumn(sql, tableName, "locale")
    yield* addColumn(sql, tableName, "attributes")
    // Contains the rows of endpoints that may have several owners.
    yield* sql`CREATE INDEX IF NOT EXISTS ${table}_shared ON ${table} (substr(endpoint_hash, 1, 43))
      WHERE length(endpoint_hash) > 43`
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

const toDevice = ({ auth, endpointHash: _, p256dh, ...row }: typeof Row.Type): Device => {
  const { applicationServerKey, attributes, lastSuccessAt, locale, userAgent, ...required } = row
  return new Device({
    ...required,
    keys: { p256dh, auth },
    ...(applicationServerKey === null ? undefined : { applicationServerKey }),
    ...(userAgent === null ? undefined : { userAgent }),
    ...(locale === null ? undefined : { locale }),
    ...(attributes === null ? undefined : { attributes }),
    ...(lastSuccessAt === null ? undefined : { lastSuccessAt })
  })
}

const decodeRows = Schema.decodeUnknown(Schema.Array(Row))

// The message of a schema quotes the row.
const invalidRow = () =>
  new SubscriptionStoreError({ reason: "InvalidRow", detail: "a row of the table is not a device" })

const toRows = (rows: ReadonlyArray<unknown>) => Effect.mapError(decodeRows(rows), invalidRow)

const toDevices = (
  rows: ReadonlyArray<typeof Row.Type>
): Effect.Effect<ReadonlyArray<Device>, SubscriptionStoreError> =>
  Effect.try({ try: () => Arr.map(rows, toDevice), catch: invalidRow })

/**
 * Prepares the rows for the mode. With one owner for an endpoint it dies if rows of several are in the table, since
 * none of them may be deleted. With several, the rows that were stored with one get the key of that mode.
 */
const requireMode = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  tableName: string,
  owners: Store.Options["owners"]
) {
  const table = sql.literal(tableName)
  if (owners !== "several") {
    // The first condition lets the database use the index of these rows, which is empty.
    const shared = sql`
      SELECT 1 FROM ${table} WHERE substr(endpoint_hash, 1, 43) >= '' AND length(endpoint_hash) > 43 LIMIT 1
    `
    if ((yield* Statement.run(sql, "read", shared)).length === 0) return
    return yield* Effect.die(
      new Cause.IllegalArgumentException(
        "SqlSubscriptionStore: owners must be several, since the table has endpoints of several owners"
      )
    )
  }
  const single = sql`SELECT 1 FROM ${table} WHERE length(endpoint_hash) = 43 LIMIT 1`
  if ((yield* Statement.run(sql, "read", single)).length === 0) return
  const statements = [
    // Stored again, in this mode, before a node of the other mode stored it.
    sql`
      DELETE FROM ${table} WHERE length(endpoint_hash) = 43 AND EXISTS (
        SELECT 1 FROM ${table} AS shared
        WHERE shared.endpoint_hash = ${table}.endpoint_hash || ' ' || ${table}.owner
      )
    `,
    sql`UPDATE ${table} SET endpoint_hash = endpoint_hash || ' ' || owner WHERE length(endpoint_hash) = 43`
  ]
  for (const statement of statements) yield* Statement.run(sql, "write", statement)
})

// SQLite accepts 32,766 parameters, and a key is three of them.
const maxKeysPerStatement = 5000

/**
 * Makes a store in the database of the `SqlClient`. Creates its tables if the database has none.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { SqlSubscriptionStore } from "effect-realtime/sql"
 *
 * const devices = Effect.flatMap(
 *   SqlSubscriptionStore.make({ maxDevicesPerOwner: 5 }),
 *   (store) => store.forOwner("anna")
 * )
 * ```
 */
export const make = (
  options: Options = {}
): Effect.Effect<SubscriptionStore.Service, SqlError | MigrationError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const { maxDevicesPerOwner = Store.defaultMaxDevices, owners = "one", tableName = defaultTableName } = options
    const sql = yield* SqlClient.SqlClient
    yield* migrate({
      component: "SqlSubscriptionStore",
      tableName,
      migrations: migrationsWith(options),
      last: (sql) => sql`SELECT name FROM sqlite_master WHERE name = ${`${tableName}_shared`}`
    })
    const table = sql.literal(tableName)

    const { read, write } = Statement.queries(
      sql,
      (code) => new SubscriptionStoreError({ reason: "Unavailable", detail: code })
    )

    const isShared = sql`length(endpoint_hash) > 43`
    const hashColumn = owners === "one" ? sql`endpoint_hash` : sql`substr(endpoint_hash, 1, 43)`
    const ofMode = owners === "one" ? sql`` : sql`${isShared} AND `
    const keyOf = (endpoint: string, owner: string) =>
      owners === "one" ? hashOf(endpoint) : `${hashOf(endpoint)} ${owner}`

    const areStored = (subscriptions: Iterable<WebPushSubscription>) =>
      sql`${ofMode}(${hashColumn}, p256dh, auth) IN (VALUES ${
        sql.csv(
          Arr.map(
            Arr.fromIterable(subscriptions),
            ({ endpoint, keys }) => sql`(${hashOf(endpoint)}, ${keys.p256dh}, ${keys.auth})`
          )
        )
      })`

    yield* requireMode(sql, tableName, owners)

    const inChunks = <A>(
      subscriptions: Iterable<WebPushSubscription>,
      f: (chunk: ReadonlyArray<WebPushSubscription>) => Effect.Effect<A, SubscriptionStoreError>
    ) => Effect.forEach(Arr.chunksOf(subscriptions, maxKeysPerStatement), f)

    const hasAttributes = (attributes: Store.Attributes) => {
      const json = Schema.encodeSync(Store.AttributesFromJson)(attributes)
      return sql.onDialectOrElse({
        pg: () => sql`COALESCE(CAST(attributes AS JSONB), '{}') @> CAST(${json} AS JSONB)`,
        orElse: () =>
          sql`NOT EXISTS (
            SELECT key, type, atom FROM json_each(${json})
            EXCEPT SELECT key, type, atom FROM json_each(${table}.attributes)
          )`
      })
    }

    const rowsOf = (condition: Fragment) => Effect.flatMap(read(sql`SELECT * FROM ${table} WHERE ${condition}`), toRows)

    return yield* Store.make({
      upsert: (owner, subscription, { applicationServerKey, attributes, locale, replaces, userAgent } = {}) =>
        Effect.gen(function*() {
          const { endpoint, expiresAt = null, keys } = subscription
          const now = yield* DateTime.now
          const endpointHash = keyOf(endpoint, owner)
          const replaced = replaces === undefined || replaces === endpoint ? "" : keyOf(replaces, owner)
          const pruned = yield* read(
            sql`SELECT pruned_at FROM ${table}_pruned WHERE subscription_hash = ${identityHashOf(subscription)}`
          )
          if (pruned.length > 0) return yield* Store.gone
          const shared = owners === "one" ? [] : yield* rowsOf(sql`${ofMode}${hashColumn} = ${hashOf(endpoint)}`)
          const same = shared.find(({ auth, p256dh }) => auth === keys.auth && p256dh === keys.p256dh)
          if (shared.length > 0 && same === undefined && !shared.some((row) => row.owner === owner)) {
            return yield* Store.endpointTaken
          }
          const [before] = replaced === "" ? [] : yield* rowsOf(
            sql`endpoint_hash = ${replaced} AND owner = ${owner}`
          )
          const madeWith = subscription.applicationServerKey ?? same?.applicationServerKey ?? null
          const row = Schema.encodeSync(Row)({
            endpointHash,
            endpoint,
            owner,
            ...keys,
            expiresAt,
            applicationServerKey: madeWith ?? applicationServerKey ?? null,
            userAgent: userAgent ?? null,
            locale: locale ?? before?.locale ?? null,
            attributes: attributes ?? before?.attributes ?? null,
            createdAt: now,
            updatedAt: now,
            lastSuccessAt: same?.lastSuccessAt ?? null
          })
          const isSameDevice = sql`(stored.p256dh = excluded.p256dh AND stored.auth = excluded.auth)`
          const isKnown = sql`stored.owner = excluded.owner`
          // The value of the options, that of this device, or that of the replaced one.
          const kept = (name: string, value: string | null | undefined) => {
            const column = sql.literal(name)
            return sql`COALESCE(
              CAST(${value ?? null} AS TEXT), CASE WHEN ${isKnown} THEN stored.${column} END, excluded.${column}
            )`
          }
          const stored = yield* write(sql`
            INSERT INTO ${table} AS stored ${sql.insert(row)}
            ON CONFLICT (endpoint_hash) DO UPDATE SET
              owner = excluded.owner,
              p256dh = excluded.p256dh,
              auth = excluded.auth,
              expiration_time = excluded.expiration_time,
              application_server_key = COALESCE(
                CAST(${madeWith} AS TEXT),
                CASE WHEN ${isSameDevice} THEN stored.application_server_key END,
                excluded.application_server_key
              ),
              user_agent = COALESCE(excluded.user_agent, CASE WHEN ${isKnown} THEN stored.user_agent END),
              locale = ${kept("locale", locale)},
              attributes = ${kept("attributes", attributes && row.attributes)},
              created_at = CASE WHEN ${isKnown} THEN stored.created_at ELSE excluded.created_at END,
              updated_at = excluded.updated_at,
              last_success_at = COALESCE(
                CASE WHEN ${isSameDevice} THEN stored.last_success_at END, excluded.last_success_at
              )
            WHERE ${isKnown} OR ${isSameDevice}
            RETURNING endpoint_hash
          `)
          if (stored.length === 0) return yield* Store.endpointTaken
          // The new device is never deleted: the clock of this node may be behind the clock of another one.
          yield* write(sql`
            DELETE FROM ${table} WHERE owner = ${owner} AND (
              endpoint_hash = ${replaced} OR endpoint_hash IN (
                SELECT endpoint_hash FROM ${table}
                WHERE owner = ${owner} AND endpoint_hash <> ${replaced}
                ORDER BY endpoint_hash = ${endpointHash} DESC, updated_at DESC, endpoint_hash
                LIMIT 1000000 OFFSET ${maxDevicesPerOwner}
              )
            )
          `)
        }).pipe(Effect.withSpan("SubscriptionStore.upsert", { captureStackTrace: false })),
      remove: (owner, endpoint) =>
        write(sql`
          DELETE FROM ${table} WHERE owner = ${owner} AND endpoint_hash = ${keyOf(endpoint, owner)}
          RETURNING endpoint_hash
        `).pipe(
          Effect.map(Arr.isNonEmptyReadonlyArray),
          Effect.withSpan("SubscriptionStore.remove", { captureStackTrace: false })
        ),
      forOwner: (owner) =>
        read(sql`
          SELECT * FROM ${table} WHERE owner = ${owner} ORDER BY updated_at DESC, endpoint_hash
        `).pipe(
          Effect.flatMap(toRows),
          Effect.flatMap(toDevices),
          Effect.withSpan("SubscriptionStore.forOwner", { captureStackTrace: false })
        ),
      page: ({ attributes, locale }, after, limit) =>
        Effect.gen(function*() {
          const conditions = [
            sql`endpoint_hash > ${Option.getOrElse(after, () => "")}`,
            ...(locale === undefined ? [] : [sql`locale || '-' LIKE ${`${locale}-%`}`]),
            ...(attributes === undefined ? [] : [hasAttributes(attributes)])
          ]
          // One more than the limit shows that another page follows.
          const found = yield* read(sql`
            SELECT * FROM ${table} WHERE ${sql.and(conditions)} ORDER BY endpoint_hash LIMIT ${limit + 1}
          `)
          const rows = yield* toRows(found.slice(0, limit))
          const last = found.length > limit ? Arr.last(rows) : Option.none()
          return {
            devices: yield* toDevices(rows),
            next: Option.map(last, ({ endpointHash }) => endpointHash)
          }
        }),
      prune: (gone) =>
        Effect.flatMap(DateTime.now, (now) =>
          inChunks(gone, (gone) =>
            Effect.gen(function*() {
              // Recorded before the deletion: a device that is deleted without a record would be subscribed again.
              const rows = Arr.map(gone, (subscription) => ({
                subscription_hash: identityHashOf(subscription),
                pruned_at: DateTime.toEpochMillis(now)
              }))
              yield* write(sql`INSERT INTO ${table}_pruned ${sql.insert(rows)} ON CONFLICT DO NOTHING`)
              yield* write(sql`
                DELETE FROM ${table}_pruned WHERE subscription_hash IN (
                  SELECT subscription_hash FROM ${table}_pruned
                  ORDER BY pruned_at DESC, subscription_hash LIMIT 1000000 OFFSET ${Store.maxPruned}
                )
              `)
              return yield* write(
                sql`DELETE FROM ${table} WHERE ${areStored(gone)} RETURNING endpoint_hash`
              )
            }))).pipe(
            Effect.map((pruned) => Arr.flatten(pruned).length),
            Effect.withSpan("SubscriptionStore.prune", { captureStackTrace: false })
          ),
      touch: (subscriptions) =>
        Effect.flatMap(DateTime.now, (now) =>
          inChunks(subscriptions, (subscriptions) =>
            write(sql`
              UPDATE ${table} SET last_success_at = ${DateTime.toEpochMillis(now)}
              WHERE ${areStored(subscriptions)}
            `))).pipe(
            Effect.asVoid,
            Effect.withSpan("SubscriptionStore.touch", { captureStackTrace: false })
          )
    }, options)
  })

/**
 * Provides a store in the database of the `SqlClient`. Creates its tables if the database has none.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { LibsqlClient } from "@effect/sql-libsql"
 * import { Layer } from "effect"
 * import { SqlSubscriptionStore } from "effect-realtime/sql"
 *
 * const SubscriptionStoreLive = SqlSubscriptionStore.layer.pipe(
 *   Layer.provide(LibsqlClient.layer({ url: "file:app.db" }))
 * )
 * ```
 */
export const layer: Layer.Layer<SubscriptionStore, SqlError | MigrationError, SqlClient.SqlClient> = Layer.effect(
  SubscriptionStore,
  make()
)

/**
 * Provides a store as `layer` does, with options.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SqlSubscriptionStore } from "effect-realtime/sql"
 *
 * const SubscriptionStoreLive = SqlSubscriptionStore.layerWith({ maxDevicesPerOwner: 10 })
 * ```
 */
export const layerWith = (
  options: Options
): Layer.Layer<SubscriptionStore, SqlError | MigrationError, SqlClient.SqlClient> =>
  Layer.effect(SubscriptionStore, make(options))

/**
 * Provides a store as `layer` does, with options from the configuration.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { SqlSubscriptionStore } from "effect-realtime/sql"
 *
 * const SubscriptionStoreLive = SqlSubscriptionStore.layerConfig({ maxDevicesPerOwner: Config.integer("MAX_DEVICES") })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<SubscriptionStore, SqlError | MigrationError | ConfigError, SqlClient.SqlClient> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerWith))
