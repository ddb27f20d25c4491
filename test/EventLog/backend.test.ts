import { layer } from "@effect/vitest"
import { Layer } from "effect"

import * as Backend from "../../examples/backend.js"
import { suite as brokerSuite } from "../EventBroker/suite.js"
import { suite } from "./suite.js"

layer(Layer.empty, { excludeTestServices: true })("EventLog: the smallest backend", (it) => {
  suite(it, { layer: Backend.layer, runs: 10 })
  brokerSuite(it, { layer: Backend.layer, runs: { streams: 12, sockets: 4 } })
})
