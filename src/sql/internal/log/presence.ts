/**
 * The presence of the nodes of this process: each announces how many subscribers it has on each channel, shortly after
 * each change, and renews its lease. The numbers of a node whose lease has expired do not count.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"

import type { EventLogError, Presence } from "../../../EventLog.js"
import { annotateWith } from "../../../internal/logging.js"
import { leaseMillis, type Statements } from "./statements.js"

/** Opens the presence of a node, until the scope is closed. */
export const open = (
  { announce, enter, leave, others, renew }: Statements
): Effect.Effect<Presence, EventLogError, Scope.Scope> =>
  Effect.gen(function*() {
    // Another one with each lease, so that a delayed announcement of an earlier lease does not count.
    let node = crypto.randomUUID()
    const counts = new Map<string, number>()
    const changed = new Set<string>()
    const wake = Effect.unsafeMakeLatch(false)
    let announcements = 0
    // The number of the last announcement that the database has stored, of this lease.
    let announced = 0
    let hasEntered = false

    const { withPermits } = yield* Effect.makeSemaphore(1)
    const announceChanges = Effect.gen(function*() {
      while (changed.size > 0 || hasEntered) {
        const channels = Array.from(changed).slice(0, maxBatch)
        for (const channel of channels) changed.delete(channel)
        const announcement = ++announcements
        yield* Effect.onError(
          announce(node, announcement, channels.map((channel) => [channel, counts.get(channel) ?? 0])),
          () =>
            Effect.sync(() => {
              for (const channel of channels) changed.add(channel)
            })
        )
        announced = announcement
        hasEntered = false
      }
    })
    // Other nodes delete the numbers of a node that did not renew its lease for long, and a database that is restored
    // may lack the last ones.
    const renewLease = Effect.gen(function*() {
      if (!(yield* renew(node, announced))) {
        yield* leave(node)
        node = crypto.randomUUID()
        yield* enter(node)
        hasEntered = true
        for (const channel of counts.keys()) changed.add(channel)
      }
      yield* announceChanges
    })
    /** Runs a step at a time, and logs its failure: the next one announces what this one did not. */
    const tried = (step: Effect.Effect<void, EventLogError>) =>
      Effect.catchAll(withPermits(1)(step), (error) =>
        Effect.logWarning(`SqlEventLog did not announce its subscribers: trying again. ${error.detail}`).pipe(
          annotateWith("SqlEventLog")
        ))

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() =>
        leave(node)
      ).pipe(Effect.interruptible, Effect.timeout("1 second"), Effect.ignore)
    )
    yield* Effect.forkScoped(Effect.zipRight(
      // A node without subscribers has no lease.
      wake.await,
      Effect.all([
        Effect.repeat(tried(renewLease), Schedule.spaced(leaseMillis / 3)),
        wake.await.pipe(
          Effect.zipRight(wake.close),
          Effect.zipRight(tried(announceChanges)),
          Effect.zipRight(Effect.sleep("20 millis")),
          Effect.forever
        )
      ], { concurrency: "unbounded", discard: true })
    ))
    return {
      set: (channel, count) =>
        Effect.sync(() => {
          if (count === 0) counts.delete(channel)
          else counts.set(channel, count)
          changed.add(channel)
          wake.unsafeOpen()
        }),
      others: (channel) => Effect.suspend(() => others(node, channel))
    }
  })

const maxBatch = 500
