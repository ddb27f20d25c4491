import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { RedisEventLog } from "effect-realtime/redis"

import { suite } from "../ResumableStream/suite.js"
import { describeRedis } from "../support/describeRedis.js"
import * as Redis from "../support/redis.js"

describeRedis("ResumableStream over Redis", () => {
  layer(Redis.SharedRedis.layer, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    let logs = 0
    suite(it, {
      layer: (limits) =>
        Layer.unwrapEffect(
          Effect.map(
            Redis.SharedRedis,
            ({ url }) => RedisEventLog.layer({ ...limits, url, prefix: `streams-${logs++}` })
          )
        )
    })
  })
})
