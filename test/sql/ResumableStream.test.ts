import { describe, layer } from "@effect/vitest"
import { Layer } from "effect"
import { SqlEventLog } from "effect-realtime/sql"

import { suite } from "../ResumableStream/suite.js"
import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

describe("ResumableStream over SQLite", () => {
  layer(Layer.empty, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    suite(it, {
      layer: (options) => Layer.orDie(Layer.provide(SqlEventLog.layerWith(options), Sqlite.layerClient))
    })
  })
})

describe.skipIf(Postgres.isMissing)("ResumableStream over PostgreSQL", () => {
  layer(Layer.provideMerge(Postgres.layerClient, Postgres.Postgres.layer), {
    excludeTestServices: true,
    timeout: "60 seconds"
  })((it) => {
    let logs = 0
    suite(it, {
      layer: (options) => Layer.suspend(() => SqlEventLog.layerWith({ ...options, tableName: `streams_${logs++}` }))
    })
  })
})
