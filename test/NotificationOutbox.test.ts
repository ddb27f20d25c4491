import { describe, layer } from "@effect/vitest"
import { Layer } from "effect"
import { SubscriptionStore } from "effect-realtime"

import { suite, TestStorage } from "./NotificationOutbox/suite.js"
import { makeMemoryStorage } from "./support/memoryStorage.js"

describe("NotificationOutbox", () => {
  layer(Layer.empty, { excludeTestServices: true, timeout: "60 seconds" })("memory", (it) => {
    suite(it, Layer.merge(Layer.effect(TestStorage, makeMemoryStorage), SubscriptionStore.layerMemory))
  })
})
