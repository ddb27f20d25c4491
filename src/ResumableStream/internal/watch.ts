import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

import type { EventLogError } from "../../EventLog.js"
import { EventLog } from "../../EventLog.js"
import { annotateWith } from "../../internal/logging.js"
import type { Runs, Source } from "./runs.js"
import * as Stored from "./stored.js"

/** A stream of another node, of which this one has readers. */
interface Watched {
  readonly keep: number
  restart: Source["restart"]
  /** The time of the first look that found no lease, if the last one did not either. */
  absentSince: number | undefined
}

/**
 * The streams that this node watches until they end. Of one whose lease is gone, the node has died: this node continues
 * it if it can, or ends it. A node that can is given the time of another lease for that.
 */
export interface Watch {
  readonly add: (channel: string, keep: number, restart: Source["restart"]) => void
}

export const make = Effect.fnUntraced(function*(runs: Runs, lease: number) {
  const log = yield* EventLog
  const watched = new Map<string, Watched>()
  const some = Effect.unsafeMakeLatch(false)

  const remove = (channel: string) =>
    Effect.sync(() => {
      watched.delete(channel)
      if (watched.size === 0) some.unsafeClose()
    })

  const look = (channel: string, stream: Watched): Effect.Effect<unknown, EventLogError> =>
    Effect.gen(function*() {
      if (yield* runs.isLeased(channel)) {
        stream.absentSince = undefined
        return
      }
      const state = yield* Stored.readState(log, channel)
      if (state._tag !== "Running") {
        if (state._tag === "Ended" && !state.isComplete) yield* runs.complete(channel, state.end.place, stream.keep)
        return yield* remove(channel)
      }
      const now = yield* Clock.currentTimeMillis
      stream.absentSince ??= now
      if (now - stream.absentSince < lease * (stream.restart === undefined ? 2 : 1)) return
      yield* stream.restart === undefined
        ? runs.stop(channel, "NodeLost", stream.keep)
        : Effect.flatMap(stream.restart, (source) => runs.takeOver(source, state.last.place)).pipe(
          Effect.catchAllDefect(() =>
            Effect.zipRight(
              logWarning(
                "ResumableStream cannot continue a stream whose node has died, since restart has died: it ends"
              ),
              runs.stop(channel, "NodeLost", stream.keep)
            )
          )
        )
    }).pipe(
      // Nothing is known of the lease.
      Effect.tapError(() =>
        Effect.sync(() => {
          stream.absentSince = undefined
        })
      )
    )

  yield* some.await.pipe(
    Effect.zipRight(Effect.sleep(lease / 3)),
    Effect.zipRight(Effect.suspend(() =>
      Effect.forEach(
        Array.from(watched),
        ([channel, stream]) =>
          look(channel, stream).pipe(
            Effect.ignore,
            Effect.catchAllDefect(() =>
              logWarning("ResumableStream could not look for the node of a stream: it tries again")
            )
          ),
        { concurrency: 8, discard: true }
      )
    )),
    Effect.forever,
    Effect.forkScoped
  )

  const watch: Watch = {
    add: (channel, keep, restart) => {
      const known = watched.get(channel)
      if (known !== undefined) known.restart ??= restart
      else watched.set(channel, { keep, restart, absentSince: undefined })
      some.unsafeOpen()
    }
  }
  return watch
})

const logWarning = (message: string) => annotateWith("ResumableStream")(Effect.logWarning(message))
