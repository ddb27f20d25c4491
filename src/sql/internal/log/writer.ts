/**
 * The appends of a node that belong to no transaction. Those that wait while one is under way are appended together.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"

import type { Cursor, NewEntry } from "../../../EventLog.js"
import { EventLogError } from "../../../EventLog.js"

interface Request {
  readonly events: ReadonlyArray<NewEntry>
  readonly done: Deferred.Deferred<ReadonlyArray<Cursor>, EventLogError>
}

/** Makes the function that appends, until the scope is closed. */
export const make = Effect.fnUntraced(function*(
  append: (events: ReadonlyArray<NewEntry>) => Effect.Effect<ReadonlyArray<Cursor>, EventLogError>
) {
  let pending: Array<Request> = []
  let current: ReadonlyArray<Request> = []
  let isClosed = false
  const wake = Effect.unsafeMakeLatch(false)

  /** Takes the requests of the next statement. */
  const takeBatch = (): ReadonlyArray<Request> => {
    let count = 0
    let bytes = 0
    const end = pending.findIndex(({ events }, i) => {
      count += events.length
      for (const { data } of events) bytes += data.length
      return i > 0 && (count > maxBatch || bytes > maxBatchBytes)
    })
    const batch = end === -1 ? pending : pending.slice(0, end)
    pending = end === -1 ? [] : pending.slice(end)
    return batch
  }

  const appendBatch = (batch: ReadonlyArray<Request>) => {
    current = batch
    return append(batch.flatMap(({ events }) => events)).pipe(
      Effect.exit,
      Effect.map((exit) => {
        let next = 0
        for (const { done, events } of batch) {
          const from = next
          next += events.length
          const to = next
          Deferred.unsafeDone(done, Effect.map(exit, (cursors) => cursors.slice(from, to)))
        }
        current = []
      })
    )
  }

  yield* Effect.gen(function*() {
    while (true) {
      yield* wake.await
      wake.unsafeClose()
      for (let batch = takeBatch(); batch.length > 0; batch = takeBatch()) yield* appendBatch(batch)
    }
  }).pipe(Effect.forkScoped)
  // Before the interruption, which may wait for a database that does not answer.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isClosed = true
      for (const { done } of current) Deferred.unsafeDone(done, timeout("the log has been closed before the answer"))
      for (const { done } of pending) Deferred.unsafeDone(done, closed)
      pending = []
    })
  )

  return (events: ReadonlyArray<NewEntry>): Effect.Effect<ReadonlyArray<Cursor>, EventLogError> =>
    Effect.suspend(() => {
      if (isClosed) return closed
      const request: Request = { events, done: Deferred.unsafeMake(FiberId.none) }
      pending.push(request)
      wake.unsafeOpen()
      return Deferred.await(request.done).pipe(
        Effect.timeoutFail({
          duration: "15 seconds",
          onTimeout: () => {
            const isPending = pending.includes(request)
            remove(request)
            return (isPending ? unavailable : timeout)("the database has not answered in time")
          }
        }),
        // An append that is not under way yet is not made.
        Effect.onInterrupt(() => Effect.sync(() => remove(request)))
      )
    })

  function remove(request: Request) {
    pending = pending.filter((other) => other !== request)
  }
})

const unavailable = (detail: string) => new EventLogError({ reason: "Unavailable", detail })
const timeout = (detail: string) => new EventLogError({ reason: "Timeout", detail })
const closed = unavailable("the log has been closed")

const maxBatch = 256
const maxBatchBytes = 1024 * 1024
