import { SqlClient } from "@effect/sql"
import { describe, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlEventLog } from "effect-realtime/sql"

import { suite } from "../EventBroker/suite.js"
import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

const streams = Number(process.env.SQL_SCHEDULES ?? 20)
const runs = { streams, sockets: Math.ceil(streams / 10) }
const turn = Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.orDie(Effect.asVoid(sql`SELECT 1`)))

describe("EventBroker over SQLite", () => {
  layer(Layer.orDie(Sqlite.layerClient), { excludeTestServices: true })((it) => {
    let logs = 0
    suite(it, {
      layer: (limits) => Layer.suspend(() => SqlEventLog.layerWith({ ...limits, tableName: `log_${logs++}` })),
      runs,
      turn
    })
  })
})

describe.skipIf(Postgres.isMissing)("EventBroker over PostgreSQL", () => {
  layer(Layer.provideMerge(Postgres.layerClient, Postgres.Postgres.layer), {
    excludeTestServices: true,
    timeout: "60 seconds"
  })((it) => {
    let logs = 0
    suite(it, {
      layer: (limits) => Layer.suspend(() => SqlEventLog.layerWith({ ...limits, tableName: `log_${logs++}` })),
      runs,
      turn
    })
  })
})
