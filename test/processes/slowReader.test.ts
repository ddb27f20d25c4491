import { HttpClient, HttpClientResponse } from "@effect/platform"
import { NodeContext, NodeHttpClient } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Console, Effect, Layer, Number, Schedule, Schema } from "effect"
import { TestEventSource } from "effect-realtime/testing"

import { startServer } from "../support/processes.js"

// The default maxBytes, and what the socket's own buffer and the runtime may come to.
const bound = 1024 * 1024 + 512 * 1024

it.scopedLive("a client that stops reading costs no more than its queue, is cut off, and disturbs nobody", () =>
  Effect.gen(function*() {
    const { url } = yield* startServer({ file: "test/processes/servers/slowReader.ts" })
    const measure = HttpClient.get(`${url}/measure`).pipe(
      Effect.flatMap(HttpClientResponse.schemaBodyJson(
        Schema.Struct({ bytes: Schema.Number, dropped: Schema.Array(Schema.Number) })
      ))
    )
    const healthy = yield* TestEventSource.make(`${url}/events`)
    const publishHundred = HttpClient.post(`${url}/publish`).pipe(
      Effect.zipRight(TestEventSource.take(healthy, 100))
    )
    // Memory that a process allocates once, when it does this for the first time, does not count for a client.
    yield* Effect.replicateEffect(publishHundred, 40)
    yield* Effect.replicateEffect(measure, 5)

    const stalled = yield* TestEventSource.make(`${url}/events`)
    yield* TestEventSource.awaitText(stalled, (text) => text.length > 0)
    yield* TestEventSource.stall(stalled)
    const before = yield* measure
    // 4,000 events, measured again and again when the other client has what was published.
    const measures = yield* Effect.replicateEffect(publishHundred, 2).pipe(
      Effect.zipRight(measure),
      Effect.replicateEffect(20)
    )
    const growth = measures.map(({ bytes }) => bytes - before.bytes).reduce(Number.max)
    const dropped = measures.map(({ dropped: [_ = 0, stalled = 0] }) => stalled).reduce(Number.max)
    yield* Console.log(`grew by ${growth} bytes at most, and dropped ${dropped} events for the slow client`)
    assert.isAbove(dropped, 0)
    assert.isBelow(growth, bound)
    assert.strictEqual((yield* measure).dropped[0], 0)

    const isCutOff = Effect.map(measure, ({ dropped }) => dropped.length === 1)
    yield* Effect.repeat(isCutOff, { until: (is) => is, schedule: Schedule.spaced("100 millis") })
    yield* TestEventSource.resume(stalled)
    assert.strictEqual(yield* TestEventSource.end(stalled), "truncated")
  }).pipe(Effect.provide(Layer.merge(NodeContext.layer, NodeHttpClient.layer))))
