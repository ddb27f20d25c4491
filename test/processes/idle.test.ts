import { NodeContext } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Array, Console, Duration, Effect, Number } from "effect"
import { TestEventSource } from "effect-realtime/testing"

import { startServer } from "../support/processes.js"

const millisToFirstBytes = (url: string) =>
  TestEventSource.make(url).pipe(
    Effect.flatMap(TestEventSource.awaitText((text) => text === ":\n")),
    Effect.timed,
    Effect.map(([duration]) => Duration.toMillis(duration))
  )

const openAll = (n: number, url: string, concurrency: number) =>
  Effect.gen(function*() {
    const times = yield* Effect.forEach(Array.range(1, n), () => millisToFirstBytes(url), { concurrency })
    const sorted = Array.sort(times, Number.Order)
    const median = sorted[Math.floor(n / 2)] ?? NaN
    yield* Console.log(
      `${n} idle streams, ${concurrency} at a time: head and first comment after ${
        median.toFixed(1)
      } ms in the median, ` +
        `${sorted.at(-1)?.toFixed(1)} ms at most`
    )
    return { median, most: sorted.at(-1) ?? NaN }
  })

it.scopedLive("the head and the first comment of an idle stream reach its client at once", () =>
  Effect.gen(function*() {
    const { url } = yield* startServer({ file: "test/processes/servers/idle.ts" })
    const { median, most } = yield* openAll(50, url, 1)
    assert.isBelow(median, 100)
    // The next comment is the heartbeat, after 15 seconds. A busy machine may hold up a single one.
    assert.isBelow(most, 5_000)
    yield* openAll(1_000, url, 50)
  }).pipe(Effect.provide(NodeContext.layer)))
