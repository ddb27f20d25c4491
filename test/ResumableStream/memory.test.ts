import { layer } from "@effect/vitest"
import { Layer } from "effect"
import { EventLog } from "effect-realtime"

import { schedules } from "./schedules.js"
import { suite } from "./suite.js"

layer(Layer.empty, { excludeTestServices: true })("ResumableStream: memory", (it) => {
  suite(it, { layer: EventLog.layerMemoryWith })
  schedules(it, { layer: EventLog.layerMemoryWith, runs: 40 })
})
