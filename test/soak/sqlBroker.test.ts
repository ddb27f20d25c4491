import { SqlClient } from "@effect/sql"
import { describe, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"

import { eventLoopTurn, suite } from "../EventBroker/suite.js"
import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"
import * as SqlLogs from "../support/sqlLogs.js"

// `npm run test:soak:full` runs more of them.
const streams = Number(process.env.SQL_SCHEDULES ?? 200)
const runs = { streams, sockets: Math.ceil(streams / 10) }

const concurrency = 16

// Nothing in this process outlives a crash of the machine.
const layerSqlite = Layer.tap(
  Layer.orDie(Sqlite.layerClient),
  (context) => Effect.orDie(Context.get(context, SqlClient.SqlClient)`PRAGMA synchronous = OFF`)
)

describe("EventBroker over SQLite", () => {
  layer(layerSqlite, { excludeTestServices: true })((it) => {
    suite(it, { layer: SqlLogs.makeLayers(), runs, answer: eventLoopTurn, concurrency })
  })
})

describe.skipIf(Postgres.isMissing)("EventBroker over PostgreSQL", () => {
  layer(Layer.provideMerge(Postgres.layerClient, Postgres.Postgres.layer), {
    excludeTestServices: true,
    timeout: "60 seconds"
  })((it) => {
    suite(it, {
      layer: SqlLogs.makeLayers(),
      runs,
      answer: Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.orDie(Effect.asVoid(sql`SELECT 1`))),
      concurrency
    })
  })
})
