import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, Layer } from "effect"
import { EventBroker, EventLog } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

import { serveNode } from "../support/servers.js"

/** A log that appends an event once a replay has read its last page. */
const appendsAtEnd = Layer.effect(
  EventLog.EventLog,
  Effect.map(EventLog.EventLog, (log): EventLog.EventLog.Service => ({
    ...log,
    read: (channels, after, limit, maxBytes) =>
      Effect.tap(log.read(channels, after, limit, maxBytes), ({ entries, more }) =>
        more || entries.length < 2
          ? Effect.void
          : Effect.forkDaemon(log.append("orders", new TextEncoder().encode("data: late\n\n"))))
  }))
)

describe("Delivery over Node's socket", () => {
  it.live("sends an event that is published at the end of a replay after the replay", () =>
    Effect.gen(function*() {
      const lastEventId = yield* EventBroker.publish("orders", { data: "0" })
      yield* EventBroker.publishAll(Arr.makeBy(30, (i) => EventBroker.event("orders", { data: String(i + 1) })))
      const broker = yield* EventBroker.EventBroker
      const url = yield* serveNode(
        Effect.provideService(EventBroker.respond("orders"), EventBroker.EventBroker, broker)
      )
      const source = yield* TestEventSource.make(url, { headers: { "last-event-id": lastEventId } })
      const text = yield* TestEventSource.awaitText(source, (text) => text.includes("data: late\n\n"))
      const data = Array.from(text.matchAll(/^data: (.*)$/gm), ([, data]) => data)
      assert.deepStrictEqual(data, [...Arr.makeBy(30, (i) => String(i + 1)), "late"])
    }).pipe(
      Effect.scoped,
      Effect.provide(EventBroker.layer.pipe(
        Layer.provideMerge(appendsAtEnd),
        Layer.provide(EventLog.layerMemory)
      )),
      LeakCheck.run
    ))
})
