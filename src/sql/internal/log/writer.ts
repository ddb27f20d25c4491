/**
 * The appends of a node that belong to no transaction. Those that wait while one is under way are appended together.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"

import type { Cursor, EventLogError, NewEntry } from "../../../EventLog.js"
import { closed, notAnswered, timeout, unavailable, waitMillis } from "./errors.js"

interface Request {
  readonly events: ReadonlyArray<NewEntry>
  readonly done: Deferred.Deferred<ReadonlyArray<Cursor>, EventLogError>
}

type Append = (events: ReadonlyArray<NewEntry>) => Effect.Effect<ReadonlyArray<Cursor>, EventLogError>

export interface Writer {
  readonly write: Append
  readonly run: Effect.Effect<never>
  /** Fails pending and later appends. */
  readonly close: () => void
}

export const make = (append: Append): Writer => {
  let pending: Array<Request> = []
  let current: ReadonlyArray<Request> = []
  let isClosed = false
  const wake = Effect.unsafeMakeLatch(false)

  /** Returns the channels with an event that is appended after another: a statement has one event of each. */
  const fencedChannels = () =>
    new Set(
      pending.flatMap(({ events }) => events.flatMap((event) => event.after === undefined ? [] : [event.channel]))
    )

  /** Takes the requests of the next statement. */
  const takeBatch = (): ReadonlyArray<Request> => {
    let count = 0
    let bytes = 0
    const channels = fencedChannels()
    const taken = new Set<string>()
    const end = pending.findIndex(({ events }, i) => {
      count += events.length
      for (const { data } of events) bytes += data.length
      const own = channels.size === 0 ? [] : events.flatMap(({ channel }) => channels.has(channel) ? [channel] : [])
      if (i > 0 && (count > maxBatch || bytes > maxBatchBytes || own.some((channel) => taken.has(channel)))) return true
      for (const channel of own) taken.add(channel)
      return false
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

  const run = Effect.gen(function*() {
    yield* wake.await
    wake.unsafeClose()
    for (let batch = takeBatch(); batch.length > 0; batch = takeBatch()) yield* appendBatch(batch)
  }).pipe(Effect.forever)

  const write: Append = (events) =>
    Effect.suspend(() => {
      if (isClosed) return closed
      const request: Request = { events, done: Deferred.unsafeMake(FiberId.none) }
      pending.push(request)
      wake.unsafeOpen()
      return Deferred.await(request.done).pipe(
        Effect.timeoutFail({
          duration: waitMillis,
          onTimeout: () => {
            const isPending = pending.includes(request)
            remove(request)
            return (isPending ? unavailable : timeout)(notAnswered)
          }
        }),
        // An append that is not under way yet is not made.
        Effect.onInterrupt(() => Effect.sync(() => remove(request)))
      )
    })

  const remove = (request: Request) => {
    pending = pending.filter((other) => other !== request)
  }

  return {
    write,
    run,
    close: () => {
      isClosed = true
      for (const { done } of current) Deferred.unsafeDone(done, timeout("the log has been closed before the answer"))
      for (const { done } of pending) Deferred.unsafeDone(done, closed)
      pending = []
    }
  }
}

const maxBatch = 256
const maxBatchBytes = 1024 * 1024
