import { describe, layer } from "@effect/vitest"
import { Layer } from "effect"
import { SqlEventLog } from "effect-realtime/sql"

import { schedules } from "../ResumableStream/schedules.js"
import { suite } from "../ResumableStream/suite.js"
import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

describe("ResumableStream over SQLite", () => {
  layer(Layer.empty, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    const make = (options: SqlEventLog.Options) =>
      Layer.orDie(Layer.provide(SqlEventLog.layerWith(options), Sqlite.layerClient))
    suite(it, { layer: make })
    schedules(it, { layer: make, runs: 16 })
  })
})

describe.skipIf(Postgres.isMissing)("ResumableStream over PostgreSQL", () => {
  layer(Layer.provideMerge(Postgres.layerClient, Postgres.Postgres.layer), {
    excludeTestServices: true,
    timeout: "60 seconds"
  })((it) => {
    let logs = 0
    const make = (options: SqlEventLog.Options) =>
      Layer.suspend(() => SqlEventLog.layerWith({ ...options, tableName: `streams_${logs++}` }))
    suite(it, { layer: make })
    schedules(it, { layer: make, runs: 16 })
  })
})
