/**
 * The layers of the demo. Without settings it stores everything in a SQLite file, so that a restart loses nothing. With
 * `DATABASE_URL` (PostgreSQL) any number of nodes share one state, and with `REDIS_URL` Redis stores the events.
 */
import { createServer } from "node:http"

import { HttpApiBuilder } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { SqlClient, type SqlError } from "@effect/sql"
import { LibsqlClient } from "@effect/sql-libsql"
import { PgClient } from "@effect/sql-pg"
import type { ConfigError } from "effect"
import { Config, Effect, Layer, Option, Redacted, Schema } from "effect"
import { EventBroker, Notifier, ResumableStream, VapidKeys, WebPush } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"
import { SqlEventLog, SqlSubscriptionStore } from "effect-realtime/sql"

import { ApiLive } from "./api.js"
import { PageLive } from "./page.js"
import { port } from "./port.js"
import { Shop } from "./shop.js"

const Database = Layer.unwrapEffect(
  Effect.map(
    Config.redacted("DATABASE_URL").pipe(Config.withDefault(Redacted.make("file:demo.db"))),
    (url): Layer.Layer<SqlClient.SqlClient, SqlError.SqlError | ConfigError.ConfigError> =>
      Redacted.value(url).startsWith("postgres")
        ? PgClient.layer({ url })
        : LibsqlClient.layer({ url: Redacted.value(url) })
  )
)

const Broker = ResumableStream.layer.pipe(
  Layer.provideMerge(EventBroker.layer),
  Layer.provide(Layer.unwrapEffect(
    Effect.map(
      Config.option(Config.string("REDIS_URL")),
      Option.match({ onNone: () => SqlEventLog.layer, onSome: (url) => RedisEventLog.layer({ url }) })
    )
  ))
)

const StoredKeys = Schema.Tuple(Schema.Struct({
  publicKey: Schema.propertySignature(Schema.String).pipe(Schema.fromKey("public_key")),
  privateKey: Schema.propertySignature(Schema.Redacted(Schema.String)).pipe(Schema.fromKey("private_key"))
}))

/** Reads the stored keys. The first node makes and stores them at its first start. */
const vapidKeys = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE IF NOT EXISTS vapid_keys (
    id INTEGER PRIMARY KEY, public_key TEXT NOT NULL, private_key TEXT NOT NULL
  )`
  const { privateKey, publicKey } = yield* VapidKeys.generate
  const row = { id: 1, public_key: publicKey, private_key: Redacted.value(privateKey) }
  yield* sql`INSERT INTO vapid_keys ${sql.insert(row)} ON CONFLICT (id) DO NOTHING`
  const [keys] = yield* Schema.decodeUnknown(StoredKeys)(yield* sql`SELECT * FROM vapid_keys`)
  return yield* VapidKeys.check(keys)
})

const Push = Layer.unwrapEffect(
  Effect.map(vapidKeys, (vapid) => WebPush.layerWith({ vapid, subject: "mailto:ops@example.com", ttl: "1 hour" }))
)

const Realtime = Notifier.layer.pipe(Layer.provideMerge(Layer.mergeAll(Broker, SqlSubscriptionStore.layer, Push)))

/** The demo. The server is provided first, so that it listens last: when its handlers are ready. */
export const App = HttpApiBuilder.serve().pipe(
  Layer.provideMerge(NodeHttpServer.layerConfig(createServer, { port })),
  Layer.provide([ApiLive, PageLive]),
  Layer.provide(Shop.layer),
  Layer.provide(Realtime),
  Layer.provide(Database)
)
