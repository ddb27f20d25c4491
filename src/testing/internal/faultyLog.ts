import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

import * as EventLog from "../../EventLog.js"

type Operation = Exclude<keyof EventLog.EventLog.Service, "appendAll" | "tail" | "presence"> | "follow"

/** Wraps a log so that it is slow, fails, and loses items of its tails, like a log in another process. */
export const make = (log: EventLog.EventLog.Service, delay: Effect.Effect<void>) => {
  const failures: Array<
    { readonly operation: Operation | undefined; readonly error: EventLog.EventLogError; left: number }
  > = []
  const held = new Set<Operation | undefined>()
  const recovered = Effect.unsafeMakeLatch(false)
  /** The names that each tail follows. */
  const followed = new Set<ReadonlySet<string>>()
  let loses = false

  const run = <A, R>(
    operation: Operation,
    use: Effect.Effect<A, EventLog.EventLogError, R>
  ): Effect.Effect<A, EventLog.EventLogError, R> =>
    Effect.suspend(() => {
      if (held.has(operation) || held.has(undefined)) return Effect.zipRight(recovered.await, run(operation, use))
      const failure = failures.find((failure) => failure.operation === undefined || failure.operation === operation)
      if (failure === undefined) return use
      if (--failure.left <= 0) failures.splice(failures.indexOf(failure), 1)
      // The answer to an append is lost, not the append.
      return operation === "append" && failure.error.reason === "Timeout"
        ? Effect.zipRight(use, failure.error)
        : failure.error
    })
  const faulty = <A, R>(operation: Operation, use: Effect.Effect<A, EventLog.EventLogError, R>) =>
    Effect.zipLeft(Effect.zipRight(delay, run(operation, use)), delay)

  return {
    log: EventLog.make({
      appendAll: (events) => faulty("append", log.appendAll(events)),
      head: faulty("head", log.head),
      read: (channels, after, limit, maxBytes) =>
        faulty("read", log.read(channels, { epoch: after.epoch, seq: after.seq }, limit, maxBytes)),
      last: (channels, maxBytes, after) => faulty("last", log.last(channels, maxBytes, after)),
      seek: (channels, bounds) => faulty("seek", log.seek(channels, bounds)),
      tail: Effect.map(log.tail, (tail): EventLog.Tail => {
        const names = new Set<string>()
        followed.add(names)
        const add = (channel: string) => Effect.sync(() => void names.add(channel))
        const remove = (channel: string) => Effect.sync(() => void names.delete(channel))
        return {
          follow: (channel) =>
            // A broker is made by a follow of its own channel, which a test could not let fail on purpose.
            channel.startsWith("$")
              ? tail.follow(channel)
              : Effect.addFinalizer(() => Effect.zipRight(remove(channel), delay)).pipe(
                Effect.zipRight(faulty("follow", Effect.zipRight(add(channel), tail.follow(channel)))),
                Effect.zipRight(Effect.addFinalizer(() => delay))
              ),
          take: Effect.map(tail.take, (items) => {
            if (!loses) return items
            loses = false
            const last = Arr.lastNonEmpty(items)
            const { epoch, seq } = last._tag === "Lost" ? last.position : last
            return [{ _tag: "Lost", channels: Array.from(names), position: { epoch, seq } }]
          })
        }
      }),
      presence: log.presence
    }),
    faults: {
      fail: ({ operation, reason = "Unavailable", times = 1 }: {
        readonly operation?: Operation | undefined
        readonly reason?: "Unavailable" | "Timeout" | undefined
        readonly times?: number | undefined
      } = {}) =>
        Effect.suspend(() => {
          if (!(times === Infinity || (Number.isSafeInteger(times) && times >= 1))) {
            const rule = "times must be a whole number, 1 or more, or Infinity"
            return Effect.die(new Cause.IllegalArgumentException(`TestEventLog: ${rule}`))
          }
          const error = new EventLog.EventLogError({ reason, detail: "a fault of TestEventLog" })
          failures.push({ operation, error, left: times })
          return Effect.void
        }),
      hold: (operation?: Operation) =>
        Effect.sync(() => {
          held.add(operation)
          recovered.unsafeClose()
        }),
      lose: Effect.sync(() => {
        loses = true
      }),
      recover: Effect.sync(() => {
        failures.length = 0
        held.clear()
        recovered.unsafeOpen()
      }),
      followed: Effect.sync((): ReadonlyArray<
        string
      > => [...new Set(Array.from(followed).flatMap((names) => [...names]))])
    }
  }
}
