import { afterAll, beforeAll } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { RedisEventLog } from "effect-realtime/redis"

import { suite } from "../EventLog.suite.js"
import * as Redis from "../support/redis.js"

Redis.describeRedis("RedisEventLog", () => {
  const scope = Effect.runSync(Scope.make())
  let redis: Redis.Redis
  beforeAll(async () => {
    redis = await Effect.runPromise(Scope.extend(Redis.make(), scope))
  }, 20_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  let logs = 0
  suite("Redis", {
    layer: ({ capacity }) =>
      Layer.suspend(() => RedisEventLog.layer({ url: redis.url, prefix: `suite-${logs++}`, capacity })),
    runs: 100
  })
})
