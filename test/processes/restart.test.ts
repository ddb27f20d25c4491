import { HttpClient, HttpClientResponse } from "@effect/platform"
import { NodeContext, NodeHttpClient } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Array, Console, Effect, Layer, Schedule, Schema } from "effect"
import { TestEventSource } from "effect-realtime/testing"

import { freePort } from "../support/freePort.js"
import { startServer } from "../support/processes.js"

const count = 5_000
const windowMillis = 500

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
    const windows = Object.values(Array.groupBy(accepted, (at) => String(Math.floor((at - from) / windowMillis))))
    // Of ten windows one may be larger: a machine that stands still for a moment joins two of them.
    const most = windows.map(({ length }) => length).sort((a, b) => a - b)[Math.floor(windows.length * 0.9)] ?? NaN
    const mean = count / ((to - from) / windowMillis)
    yield* Console.log(
      `${count} clients came back within ${
        Math.round(to - from)
      } ms, at most ${most} in ${windowMillis} ms of nine in ten, ` +
        `${mean.toFixed(0)} in the mean`
    )
    assert.isBelow(most, 2 * mean)
    // Evenly over the 12 seconds between the least and the most that the jitter makes of it.
    assert.isAbove(to - from, 10_000)
  }).pipe(Effect.provide(Layer.merge(NodeContext.layer, NodeHttpClient.layer))))
