import { HttpClient, HttpClientRequest } from "@effect/platform"
import { NodeContext, NodeHttpClient } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Array, Effect, Layer, Schedule } from "effect"
import { TestEventSource } from "effect-realtime/testing"

import { freePort } from "../support/freePort.js"
import { startServer } from "../support/processes.js"
import * as Sqlite from "../support/sqlite.js"

it.scopedLive(
  "a page of the demo misses nothing when the demo is killed and started again",
  () =>
    Effect.gen(function*() {
      const port = String(yield* freePort)
      const start = startServer({
        file: "examples/app/main.ts",
        env: { PORT: port, DATABASE_URL: yield* Sqlite.database }
      })
      const headers = { cookie: "customer=anna" }
      const order = (url: string) =>
        HttpClientRequest.post(`${url}/orders`, { headers }).pipe(
          HttpClientRequest.bodyJson({ name: "Anna", item: "espresso", language: "en" }),
          Effect.flatMap(HttpClient.execute),
          Effect.tap(({ status }) => assert.strictEqual(status, 201))
        )
      const first = yield* start
      const source = yield* TestEventSource.make(`${first.url}/events`, { headers })
      yield* order(first.url)
      yield* TestEventSource.next(source)
      // Orders progress by themselves, in the middle of which the process ends.
      yield* Effect.forEach(Array.range(2, 6), () => order(first.url))
      yield* first.child.kill("SIGKILL")
      const before = yield* TestEventSource.collect(source)
      const second = yield* start
      const again = yield* Effect.retry(
        TestEventSource.reconnect(source),
        Schedule.upTo(Schedule.spaced("100 millis"), "10 seconds")
      )
      yield* order(second.url)
      const isPlaced = ({ data }: TestEventSource.Event) => data?.includes("\"placed\"") === true
      let placed = 1 + before.filter(isPlaced).length
      while (placed < 7) {
        const event = yield* TestEventSource.next(again)
        assert.notStrictEqual(event.event, "resync")
        if (isPlaced(event)) placed++
      }
    }).pipe(Effect.provide(Layer.merge(NodeContext.layer, NodeHttpClient.layer))),
  60_000
)
