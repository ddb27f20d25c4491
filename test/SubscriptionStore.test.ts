import { describe, layer } from "@effect/vitest"
import { Layer } from "effect"
import { SqlSubscriptionStore } from "effect-realtime/sql"
import * as SubscriptionStore from "effect-realtime/SubscriptionStore"

import { suite } from "./SubscriptionStore/suite.js"
import * as Postgres from "./support/postgres.js"
import * as Sqlite from "./support/sqlite.js"

const realClock = { excludeTestServices: true, timeout: "60 seconds" } as const

describe("SubscriptionStore", () => {
  layer(Layer.empty, realClock)("memory", (it) => suite(it, SubscriptionStore.layerMemoryWith))

  layer(Layer.empty, realClock)("SQLite", (it) => {
    suite(it, (options) => Layer.provide(SqlSubscriptionStore.layerWith(options), Sqlite.layerClient))
  })

  describe.skipIf(Postgres.isMissing)(
    "with a server",
    () =>
      layer(Postgres.Postgres.layer, realClock)("PostgreSQL", (it) => {
        suite(it, (options) => Layer.provide(SqlSubscriptionStore.layerWith(options), Postgres.layerClient))
      })
  )
})
