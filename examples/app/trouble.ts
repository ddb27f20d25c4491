/** Buttons that make what a library like this is for: a client that stops reading, a lost connection, a burst. */
import { Array, Effect, FiberSet } from "effect"
import { EventBroker } from "effect-realtime"
import { TestEventSource } from "effect-realtime/testing"

import { port } from "./port.js"
import { Burst } from "./topics.js"

/** For the client that stops reading: its queue drops the oldest, and after ten seconds it is cut off. */
export const feed = EventBroker.respond("burst", { strategy: "sliding", capacity: 200, writeTimeout: "10 seconds" })

/** Connects to this server, over a socket like any other client, and stops reading. */
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

/** Ends the connections of a customer, on every node. They come back, and miss nothing. */
export const drop = (customer: string) => EventBroker.revoke(customer)

const filler = "x".repeat(4_000)

/** 3,000 events of 4 KB, a hundred at a time. */
export const burst = Effect.forEach(Array.range(0, 29), (batch) =>
  Effect.forEach(
    Array.range(1, 100),
    (i) => EventBroker.publish(Burst, {}, "drop", { n: batch * 100 + i, of: 3_000, filler })
  ).pipe(Effect.delay("20 millis")), { discard: true })
