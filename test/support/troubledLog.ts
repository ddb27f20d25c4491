import { Array as Arr, Effect } from "effect"
import * as EventLog from "effect-realtime/EventLog"

/** The faults of a log that a test switches on and off. */
export interface Trouble {
  /** The numbers of turns that pass before and after the operations, in rotation. */
  readonly pace: ReadonlyArray<number>
  readonly turn: Effect.Effect<void>
  /** True while all operations but the tail fail. */
  isOut: boolean
  /** False while reads fail. */
  isReadable: boolean
  /** True if the tail replaces its next items with a Lost. */
  loses: boolean
  /** The channels that the tail follows. */
  readonly followed: Set<string>
}

export const make = (pace: ReadonlyArray<number> = [], turn: Effect.Effect<void> = Effect.yieldNow()): Trouble => ({
  pace,
  turn,
  isOut: false,
  isReadable: true,
  loses: false,
  followed: new Set()
})

/** Wraps a log so that it is slow, fails, and loses items of its tail, like a log in another process. */
export const wrap = (log: EventLog.EventLog.Service, trouble: Trouble): EventLog.EventLog.Service => {
  let calls = 0
  const pass = Effect.suspend(() => {
    const turns = trouble.pace[calls++ % trouble.pace.length] ?? 0
    return turns === 0 ? Effect.void : Effect.repeatN(trouble.turn, turns - 1)
  })
  const slow = <A, E, R>(operation: Effect.Effect<A, E, R>) => Effect.zipLeft(Effect.zipRight(pass, operation), pass)
  const failing = <A, R>(operation: Effect.Effect<A, EventLog.EventLogError, R>) =>
    slow(
      Effect.suspend(() =>
        trouble.isOut ? new EventLog.EventLogError({ reason: "Unavailable", detail: "it is out" }) : operation
      )
    )
  return EventLog.make({
    appendAll: (events) => failing(log.appendAll(events)),
    head: failing(log.head),
    read: (channels, after, limit, maxBytes) =>
      failing(Effect.suspend(() =>
        trouble.isReadable
          ? log.read(channels, { epoch: after.epoch, seq: after.seq }, limit, maxBytes)
          : new EventLog.EventLogError({ reason: "Unavailable", detail: "it cannot be read" })
      )),
    last: (channels, maxBytes, after) => failing(log.last(channels, maxBytes, after)),
    tail: Effect.map(log.tail, (tail): EventLog.Tail => ({
      follow: (channel) =>
        // The channels of the brokers are followed before the faults begin.
        channel.startsWith("$")
          ? tail.follow(channel)
          : Effect.addFinalizer(() => Effect.zipRight(Effect.sync(() => trouble.followed.delete(channel)), pass)).pipe(
            Effect.zipRight(
              failing(Effect.zipRight(Effect.sync(() => trouble.followed.add(channel)), tail.follow(channel)))
            ),
            Effect.zipRight(Effect.addFinalizer(() => pass))
          ),
      take: Effect.map(tail.take, (items) => {
        if (!trouble.loses) return items
        trouble.loses = false
        const last = Arr.lastNonEmpty(items)
        const { epoch, seq } = last._tag === "Lost" ? last.position : last
        return [{ _tag: "Lost", channels: [...trouble.followed], position: { epoch, seq } }]
      })
    })),
    presence: log.presence
  })
}
