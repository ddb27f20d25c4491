import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

import { monotonicMillis } from "../../internal/clock.js"
import * as DurationInput from "../../internal/duration.js"
import type { Admission } from "./admission.js"
import type { Hub } from "./hub.js"
import { grace } from "./lifecycle.js"

/** The end of a broker for its clients. */
export interface Drain {
  /** Ends all connections at once, and cuts off after a second those whose clients have not read their queues. */
  readonly atOnce: Effect.Effect<void>
  /** Ends the connections of clients evenly over a time, the oldest first, and then the rest at once. */
  readonly over: (duration: Duration.DurationInput) => Effect.Effect<void>
}

export const make = (hub: Hub, admission: Admission): Drain => {
  const atOnce = admission.close.pipe(
    Effect.zipRight(Effect.timeoutOption(Effect.interruptible(hub.empty.await), grace)),
    Effect.zipRight(Effect.sync(() => {
      for (const connection of hub.connections()) connection.disconnect()
    }))
  )

  const sendAway = (millis: number) =>
    Effect.gen(function*() {
      yield* admission.refuseClients
      // In the order in which they have joined.
      const clients = Array.from(hub.subscribers).filter(({ isLocal }) => !isLocal)
      const clock = yield* Effect.clock
      const began = monotonicMillis(clock)
      for (let sent = 0; sent < clients.length && hub.clients > 0;) {
        yield* Effect.sleep(step)
        const due = Math.round(clients.length * (monotonicMillis(clock) - began) / millis)
        for (const { connection } of clients.slice(sent, due)) connection.shutdown()
        sent = Math.max(sent, due)
      }
    })

  return {
    atOnce,
    over: (duration) =>
      sendAway(Duration.toMillis(duration)).pipe(
        Effect.onInterrupt(() => admission.close),
        Effect.zipRight(atOnce)
      )
  }
}

/** Throws `IllegalArgumentException` for a time that cannot be. */
export const checkOver = (over: Duration.DurationInput): void => {
  if (
    Option.exists(
      DurationInput.decode(over),
      (duration) => Duration.isFinite(duration) && Duration.toMillis(duration) > 0
    )
  ) {
    return
  }
  throw new Cause.IllegalArgumentException("EventBroker: over must be finite and longer than zero")
}

/** The time between two steps in milliseconds. */
const step = 100
