import { layer } from "@effect/vitest"
import { Layer } from "effect"
import { EventLog } from "effect-realtime"

import { suite } from "./suite.js"

// `npm run test:soak` runs more of them.
const streams = Number(process.env.SCHEDULES ?? 120)

layer(Layer.empty, { excludeTestServices: true })("EventBroker: memory", (it) => {
  suite(it, { layer: EventLog.layerMemoryWith, runs: { streams, sockets: streams / 20 } })
})
