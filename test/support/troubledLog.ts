import { Array as Arr, Effect } from "effect"
import * as EventLog from "effect-realtime/EventLog"

/** What a test does to a log. */
export interface Trouble {
  /** Before and after each operation this many turns pass, one number after the other. */
  readonly pace: ReadonlyArray<number>
  readonly turn: Effect.Effect<void>
  /** While it is out, everything but the tail fails. */
  isOut: boolean
  /** While it is not, only what reads entries fails. */
  isReadable: boolean
  /** The next that the tail has to give is lost. */
  loses: boolean
  /** What the tail follows now. */
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

/** A log that is slow, fails, and loses what its tail should give: as one in another process does. */
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
    append: (channel, data) => failing(log.append(channel, data)),
    head: failing(log.head),
    read: (channels, after, limit, maxBytes) =>
      failing(Effect.suspend(() =>
        trouble.isReadable
          ? log.read(channels, { epoch: after.epoch, seq: after.seq }, limit, maxBytes)
          : new EventLog.EventLogError({ reason: "Unavailable", detail: "it cannot be read" })
      )),
    tail: Effect.map(log.tail, (tail): EventLog.Tail => ({
      follow: (channel) =>
        // What the brokers tell each other is followed before there is any trouble.
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
