/**
 * A stream as the log has it: the events of one channel, in this order. A producer that takes over begins with
 * `started`.
 *
 *     started  elements ...  [ started  elements ... ]  succeeded | failed | stopped  end
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

import type { Cursor, Entry, EventLog, EventLogError } from "../../EventLog.js"
import { hashOf } from "../../internal/hash.js"
import type { Fields } from "../../ServerSentEvent.js"
import * as ServerSentEvent from "../../ServerSentEvent.js"

/** The reason why a producer was stopped before its end. */
export type StopReason = "Requested" | "Shutdown" | "TimeLimit" | "NodeLost" | "LogLost"

/** An event of the channel. `data` is JSON. */
export interface Event {
  readonly place: Cursor
  readonly name: string
  readonly data: string
}

/**
 * - `None`: the log has no event of the channel. `seq` is the last place that it has evicted, or one of another channel
 *   if it does not know this one.
 * - `Running`: no producer has appended an end.
 * - `Ended`: `isComplete` if the event `end` of the broker follows the end, so that readers do not come back.
 */
export type State =
  | { readonly _tag: "None"; readonly seq: number }
  | { readonly _tag: "Running"; readonly last: Event }
  | { readonly _tag: "Ended"; readonly end: Event; readonly isComplete: boolean }

const base = "$effect-realtime/streams"

/** The channel by which a node learns that another one has ended or taken over one of its streams. */
export const controlChannel = base

/** The name whose presence is the lease of a producer. */
export const leaseOf = (channel: string): string => `${base}/lease/${hashOf(channel)}`

/** The channel with the names of the streams of an owner. */
export const channelOfOwner = (owner: string): string => `${base}/owner/${hashOf(owner)}`

/** Encodes an event that is valid in every case. */
export const encode = (event: Fields): Uint8Array => Either.getOrThrow(ServerSentEvent.encode(event))

/** The event after which a broker ends the channel, as `EventBroker.complete` appends it. */
export const endOfChannel: Uint8Array = encode({ event: "end", data: "" })

export const stopped = (reason: StopReason): Uint8Array => encode({ event: "stopped", data: { reason } })

export const defect: Uint8Array = encode({ event: "failed", data: { _tag: "Defect" } })

export const isEnd = (name: string): boolean => name === "succeeded" || name === "failed" || name === "stopped"

const decode = (entries: ReadonlyArray<Entry>): Effect.Effect<ReadonlyArray<Event>> =>
  Stream.fromIterable(entries).pipe(
    Stream.map(({ data }) => data),
    ServerSentEvent.decode({ maxSize: Number.POSITIVE_INFINITY }),
    Stream.runCollect,
    Effect.orDie,
    Effect.map((frames) =>
      Array.from(frames).flatMap(({ data, event = "" }, i) => {
        const entry = entries[i]
        return entry === undefined ? [] : [{ place: entry, name: event, data: typeof data === "string" ? data : "" }]
      })
    )
  )

/** Reads the channel after a place, page by page. A page that is incomplete ends the stream. */
const pagesAfter = (
  log: EventLog.Service,
  channel: string,
  after: Cursor
): Stream.Stream<ReadonlyArray<Entry>, EventLogError> =>
  Stream.paginateEffect(after, (after) =>
    Effect.map(
      log.read([channel], after, pageSize),
      ({ entries, more, position }) => [entries, more ? Option.some(position) : Option.none()] as const
    ))

/** Reads the events of the channel after a place, page by page. */
const eventsAfter = (log: EventLog.Service, channel: string, after: Cursor) =>
  Stream.mapEffect(pagesAfter(log, channel, after), decode)

/** Reads all events of the channel, page by page. */
export const eventsOf = (
  log: EventLog.Service,
  channel: string
): Stream.Stream<ReadonlyArray<Event>, EventLogError> =>
  Stream.unwrap(Effect.map(log.seek([channel], {}), (start) => eventsAfter(log, channel, start)))

/** Returns the channels of the streams of an owner, in the order of their starts. */
export const namesOf = (
  log: EventLog.Service,
  owner: string
): Effect.Effect<ReadonlyArray<string>, EventLogError> => {
  const channel = channelOfOwner(owner)
  return Stream.unwrap(Effect.map(log.seek([channel], {}), (start) => pagesAfter(log, channel, start))).pipe(
    Stream.mapConcat((entries) => entries),
    Stream.runCollect,
    Effect.map((entries) => Array.from(new Set(Array.from(entries, ({ data }) => textDecoder.decode(data)))))
  )
}

/** Reads the last two events of the channel. */
export const readState = (log: EventLog.Service, channel: string): Effect.Effect<State, EventLogError> =>
  Effect.gen(function*() {
    const start = yield* log.seek([channel], { last: 2 })
    const events = (yield* Stream.runCollect(eventsAfter(log, channel, start))).pipe((pages) =>
      Array.from(pages).flat()
    )
    const last = events.at(-1)
    if (last === undefined) return { _tag: "None", seq: start.seq }
    if (isEnd(last.name)) return { _tag: "Ended", end: last, isComplete: false }
    if (last.name !== "end") return { _tag: "Running", last }
    const end = events.at(-2)
    return end === undefined ? { _tag: "None", seq: last.place.seq } : { _tag: "Ended", end, isComplete: true }
  })

const pageSize = 256
const textDecoder = new TextDecoder()
