import { EventLog } from "effect-realtime"

import { suite } from "./suite.js"

// `npm run test:soak` runs more of them.
const streams = Number(process.env.SCHEDULES ?? 200)

suite("memory", { layer: EventLog.layerMemoryWith, runs: { streams, sockets: streams / 20 } })
