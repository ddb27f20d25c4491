import { EventLog } from "effect-realtime"

import { suite } from "./EventBroker.suite.js"

suite("memory", { layer: EventLog.layerMemory, runs: { streams: 10_000, sockets: 300 } })
