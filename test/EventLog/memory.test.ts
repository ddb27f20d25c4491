import { layer } from "@effect/vitest"
import { Layer } from "effect"
import * as EventLog from "effect-realtime/EventLog"

import { suite } from "./suite.js"

layer(Layer.empty, { excludeTestServices: true })("EventLog: memory", (it) => {
  suite(it, { layer: EventLog.layerMemoryWith, runs: 200 })
})
