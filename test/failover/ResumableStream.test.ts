import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { RedisEventLog } from "effect-realtime/redis"
import type { TestEventLog } from "effect-realtime/testing"

import { schedules } from "../ResumableStream/schedules.js"
import { suite } from "../ResumableStream/suite.js"
import { describeRedis } from "../support/describeRedis.js"
import * as Redis from "../support/redis.js"

describeRedis("ResumableStream over Redis", () => {
  layer(Redis.SharedRedis.layer, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    let logs = 0
    const make = (limits: TestEventLog.Limits) =>
      Layer.unwrapEffect(
        Effect.map(
          Redis.SharedRedis,
          ({ url }) => RedisEventLog.layer({ ...limits, url, prefix: `streams-${logs++}` })
        )
      )
    suite(it, { layer: make })
    schedules(it, { layer: make, runs: 16 })
  })
})
