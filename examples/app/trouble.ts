/** Handlers of the buttons that cause trouble: a client that stops reading, a lost connection, a burst. */
import { Array, Effect, FiberSet } from "effect"
import { EventBroker, Topic } from "effect-realtime"
import { TestEventSource } from "effect-realtime/testing"

import { port } from "./port.js"
import { Burst } from "./topics.js"

/**
 * Stream for the client that stops reading. Its queue drops the oldest events, and after ten seconds it is
 * disconnected.
 */
export const feed = EventBroker.respond("burst", { strategy: "sliding", capacity: 200, writeTimeout: "10 seconds" })

/** Makes a client of this server that connects over a socket, and stops reading. */
export const makeSlowClient = Effect.gen(function*() {
  const run = yield* FiberSet.makeRuntime()
  const stall = TestEventSource.make(`http://localhost:${yield* port}/trouble/feed`).pipe(
    Effect.tap(TestEventSource.stall),
    Effect.zipRight(Effect.sleep("20 seconds")),
    Effect.scoped,
    Effect.ignoreLogged
  )
  return { connect: Effect.sync(() => void run(stall)) }
})

/** Ends the connections of a customer, on every node. The pages reconnect, and miss nothing. */
export const drop = (customer: string) => EventBroker.disconnectOwner(customer)

const filler = "x".repeat(4_000)

/** Publishes 3,000 events of 4 KB, a hundred at a time. */
export const burst = Effect.forEach(
  Array.range(0, 29),
  (batch) =>
    EventBroker.publishAll(
      Array.makeBy(100, (i) =>
        EventBroker.event(Topic.channel(Burst, {}), "drop", { n: batch * 100 + i + 1, of: 3_000, filler }))
    ).pipe(
      Effect.delay("20 millis")
    ),
  { discard: true }
)
