import { describe, layer } from "@effect/vitest"
import { Layer } from "effect"
import { SqlEventLog } from "effect-realtime/sql"

import { suite } from "../EventLog/suite.js"
import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

const runs = Number(process.env.SCHEDULES ?? 10)

describe("SqlEventLog over SQLite", () => {
  layer(Layer.empty, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    suite(it, {
      layer: (options) => Layer.provide(SqlEventLog.layerWith(options), Layer.orDie(Sqlite.layerClient)),
      runs
    })
  })
})

describe.skipIf(Postgres.isMissing)("SqlEventLog over PostgreSQL", () => {
  layer(Layer.provideMerge(Postgres.layerClient, Postgres.Postgres.layer), {
    excludeTestServices: true,
    timeout: "60 seconds"
  })((it) => {
    let logs = 0
    suite(it, {
      layer: (options) => Layer.suspend(() => SqlEventLog.layerWith({ ...options, tableName: `log_${logs++}` })),
      runs
    })
  })
})
