import { assert, it } from "@effect/vitest"
import { Array, Console, Effect, Layer, Stream } from "effect"
import { EventBroker, EventLog, EventStream } from "effect-realtime"

import { collectGarbage } from "../support/garbage.js"

const eventLoopTurn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

/** The bytes of buffers that are in use. */
const usedBytes = Effect.sync(collectGarbage).pipe(
  Effect.zipRight(eventLoopTurn),
  Effect.repeatN(3),
  Effect.map(() => process.memoryUsage().arrayBuffers)
)

const count = 2_000
const size = 4_096

it.scopedLive("a log retains each event once, and not its frame", () =>
  Effect.gen(function*() {
    const stream = yield* EventBroker.subscribe("a")
    yield* Effect.forkScoped(Stream.runDrain(EventStream.toStream(stream)))
    const before = yield* usedBytes
    yield* Effect.forEach(Array.range(1, count), () =>
      Effect.zipRight(EventBroker.publish("a", { data: "x".repeat(size) }), eventLoopTurn))
    const kept = ((yield* usedBytes) - before) / (count * size)
    yield* Console.log(`${count} events occupy ${kept.toFixed(2)} times their bytes`)
    assert.isTrue(yield* EventStream.publish(stream, { data: "still here" }))
    assert.isAbove(kept, 0.9)
    assert.isBelow(kept, 1.5)
  }).pipe(
    Effect.provide(
      EventBroker.layer.pipe(
        Layer.provide(EventLog.layerMemoryWith({ capacity: count, maxBytes: 2 * count * size }))
      )
    )
  ))
