import { layer } from "@effect/vitest"
import { Layer } from "effect"

import * as Backend from "../../examples/backend.js"
import { suite } from "./suite.js"

layer(Layer.empty, { excludeTestServices: true })("EventLog: the smallest backend", (it) => {
  suite(it, { layer: Backend.layer, runs: 10 })
})
