import { HttpClient, HttpClientResponse } from "@effect/platform"
import { NodeContext, NodeHttpClient } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Array, Console, Effect, Layer, Schedule, Schema } from "effect"
import { TestEventSource } from "effect-realtime/testing"

import { freePort } from "../support/freePort.js"
import { startServer } from "../support/processes.js"

const count = 5_000

it.scopedLive("5,000 clients of a server that restarts come back one by one", () =>
  Effect.gen(function*() {
    const start = startServer({ file: "test/processes/servers/restart.ts", args: [String(yield* freePort)] })
    const first = yield* start
    const sources = yield* Effect.forEach(
      Array.range(1, count),
      () =>
        Effect.tap(
          TestEventSource.make(`${first.url}/events`),
          TestEventSource.awaitText((text) => /^id: /m.test(text))
        ),
      { concurrency: 50 }
    )
    yield* first.child.kill("SIGTERM")
    const { url } = yield* start
    // As a browser, each source reconnects after its own `retry`, and again until the server is there.
    const resyncs = yield* Effect.forEach(sources, (source) =>
      Effect.gen(function*() {
        const retry = yield* TestEventSource.retry(source)
        const again = yield* Effect.retry(TestEventSource.reconnect(source), Schedule.spaced(retry))
        return yield* TestEventSource.next(again)
      }), { concurrency: "unbounded" })
    assert.isTrue(resyncs.every(({ data, event }) => event === "resync" && data === "{\"reason\":\"OtherEpoch\"}"))

    const accepted = yield* HttpClient.get(`${url}/accepted`).pipe(
      Effect.flatMap(HttpClientResponse.schemaBodyJson(Schema.Array(Schema.Number))),
      Effect.map(Array.take(count))
    )
    const [from = NaN, to = NaN] = [accepted[0], accepted.at(-1)]
    // The jitter spreads them evenly over 12 seconds, half of them over 6. A machine that stands still takes from that.
    const half = Math.min(...Array.zipWith(accepted, Array.drop(accepted, count / 2), (first, last) => last - first))
    yield* Console.log(
      `${count} clients came back within ${Math.round(to - from)} ms, and any half of them in ${
        Math.round(half)
      } ms or more`
    )
    assert.isAbove(half, 3000)
    assert.isAbove(to - from, 9000)
  }).pipe(Effect.provide(Layer.merge(NodeContext.layer, NodeHttpClient.layer))), 300_000)
