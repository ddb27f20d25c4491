import { HttpServerRequest } from "@effect/platform"
import { NodeHttpServerRequest } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Layer } from "effect"
import { EventBroker, EventLog, EventStream } from "effect-realtime"
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

const socket = Effect.map(
  HttpServerRequest.HttpServerRequest,
  (request) => NodeHttpServerRequest.toIncomingMessage(request).socket
)

/** Lets other fibers run, but not the event loop. */
const yieldOften = Effect.replicateEffect(Effect.yieldNow(), 20, { discard: true })

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

  it.live("sends an event while its producer computes, and yields to other fibers only", () =>
    Effect.gen(function*() {
      const written = yield* Deferred.make<number>()
      const url = yield* serveNode(EventStream.respond((stream) =>
        Effect.gen(function*() {
          const { bytesWritten } = yield* Effect.delay(socket, "20 millis")
          yield* EventStream.publish(stream, { data: "now" })
          yield* yieldOften
          yield* Deferred.succeed(written, (yield* socket).bytesWritten - bytesWritten)
        })
      ))
      yield* TestEventSource.make(url)
      assert.isAbove(yield* Deferred.await(written), 0)
    }).pipe(Effect.scoped, LeakCheck.run))

  it.live("sends each event of a broker in a turn of the event loop that is long", () =>
    Effect.gen(function*() {
      const opened = yield* Deferred.make<Effect.Effect.Success<typeof socket>>()
      const broker = yield* EventBroker.EventBroker
      const url = yield* serveNode(
        Effect.zipRight(
          Effect.tap(socket, (socket) => Deferred.succeed(opened, socket)),
          Effect.provideService(EventBroker.respond("orders"), EventBroker.EventBroker, broker)
        )
      )
      const source = yield* TestEventSource.make(url)
      yield* TestEventSource.awaitText(source, (text) => text.includes("id: "))
      const connection = yield* Effect.delay(Deferred.await(opened), "20 millis")
      const written: Array<boolean> = []
      for (let i = 0; i < 3; i++) {
        const { bytesWritten } = connection
        yield* EventBroker.publish("orders", { data: "now" })
        yield* yieldOften
        written.push(connection.bytesWritten > bytesWritten)
        for (const at = performance.now(); performance.now() - at < 10;);
      }
      assert.deepStrictEqual(written, [true, true, true])
    }).pipe(
      Effect.scoped,
      Effect.provide(EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))),
      LeakCheck.run
    ))

  it.live("keeps the order of events of one turn of the event loop, some of which are written at once", () =>
    Effect.gen(function*() {
      const broker = yield* EventBroker.EventBroker
      const url = yield* serveNode(
        Effect.provideService(EventBroker.respond("orders"), EventBroker.EventBroker, broker)
      )
      const source = yield* TestEventSource.make(url)
      yield* TestEventSource.awaitText(source, (text) => text.includes("id: "))
      for (let i = 0; i < 6; i++) {
        yield* EventBroker.publish("orders", { data: String(i) })
        yield* yieldOften
        if (i % 2 === 1) { for (const at = performance.now(); performance.now() - at < 10;); }
      }
      const text = yield* TestEventSource.awaitText(source, (text) => text.includes("data: 5\n"))
      assert.deepStrictEqual(Array.from(text.matchAll(/^data: (.*)$/gm), ([, data]) => data), [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5"
      ])
    }).pipe(
      Effect.scoped,
      Effect.provide(EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))),
      LeakCheck.run
    ))
})
