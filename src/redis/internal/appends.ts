/**
 * The appends of a node. Those of one turn of the event loop are one script: it costs Redis less than a script for
 * each. No append waits for the answer to an earlier one.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"

import type { Cursor, EventLogError, NewEntry } from "../../EventLog.js"
import { nextTurn } from "../../internal/nextTurn.js"

type Append = (events: ReadonlyArray<NewEntry>) => Effect.Effect<ReadonlyArray<Cursor>, EventLogError>

interface Request {
  readonly events: ReadonlyArray<NewEntry>
  readonly done: Deferred.Deferred<ReadonlyArray<Cursor>, EventLogError>
}

interface Batch {
  readonly requests: Array<Request>
  bytes: number
}

/** Returns `append` for calls that come at the same time. */
export const make = (append: Append): Append => {
  let open: Batch | undefined

  const send = ({ requests }: Batch) =>
    Effect.map(Effect.exit(append(requests.flatMap(({ events }) => events))), (exit) => {
      let next = 0
      for (const { done, events } of requests) {
        const from = next
        next += events.length
        Deferred.unsafeDone(done, Effect.map(exit, (cursors) => cursors.slice(from, from + events.length)))
      }
    })

  /** Sends a batch in the next turn. An interruption of its first request does not end the others. */
  const lead = (batch: Batch) =>
    nextTurn.pipe(
      Effect.zipRight(Effect.suspend(() => {
        if (open === batch) open = undefined
        return send(batch)
      })),
      Effect.uninterruptible,
      Effect.disconnect
    )

  return (events) =>
    Effect.suspend(() => {
      const request: Request = { events, done: Deferred.unsafeMake(FiberId.none) }
      const isFirst = open === undefined
      const batch = open ??= { requests: [], bytes: 0 }
      batch.requests.push(request)
      for (const { data } of events) batch.bytes += data.length
      if (batch.requests.length === maxRequests || batch.bytes > maxBytes) open = undefined
      const answer = Deferred.await(request.done)
      return isFirst ? Effect.zipRight(lead(batch), answer) : answer
    })
}

const maxRequests = 256
const maxBytes = 1024 * 1024
