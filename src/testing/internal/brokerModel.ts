import * as Option from "effect/Option"

import * as EventLog from "../../EventLog.js"
import type * as ServerSentEvent from "../../ServerSentEvent.js"

/** An event that was published, or the end of a channel, and the moments between which that happened. */
export interface Published {
  readonly channel: string
  readonly isEnd: boolean
  /** The owner that does not receive it. */
  readonly except: string | undefined
  readonly data: string
  readonly epoch: string
  readonly seq: number
  readonly began: number
  readonly ended: number
}

/** The request of one connection, and the frames that it has received. */
export interface Connection {
  readonly channels: ReadonlyArray<string>
  readonly owner: string | undefined
  /** True for a stream of messages: it has the channel of each, no frames of cursors, and begins at the beginning. */
  readonly isStream: boolean
  readonly drops: boolean
  readonly snapshot: boolean
  readonly lastEventId: string | undefined
  /** The epoch of the log when the connection was opened. */
  epoch: string
  readonly began: number
  /** The moment at which the subscription was made, if it was. */
  subscribed: number | undefined
  readonly received: Array<{ readonly frame: ServerSentEvent.Fields; readonly at: number }>
}

export interface State {
  readonly at: EventLog.EventId | undefined
  /** The seq of the last event that is part of the state. */
  readonly seq: number
}

const isIn = (pattern: string, channel: string) => {
  if (!isPattern(pattern)) return pattern === channel
  const [names, segments] = [pattern.split("/"), channel.split("/")]
  return names.length === segments.length && names.every((name, i) => name === "*" || name === segments[i])
}
export const isInSome = (patterns: ReadonlyArray<string>, channel: string) =>
  patterns.some((pattern) => isIn(pattern, channel))

/** True if the client is sent the channel of each event: unless it asks for exactly one, and not for a pattern. */
const isAttributed = ({ channels, isStream }: Connection) => isStream || channels.length > 1 || channels.some(isPattern)
const isPattern = (name: string) => name.includes("*")

/** Returns the seq at which all of some channels have ended, among the entries up to a seq. A pattern never does. */
export const endOf = (entries: ReadonlyArray<Published>, channels: ReadonlyArray<string>, to = Infinity) => {
  if (channels.some(isPattern)) return undefined
  const last = channels.map((name) => entries.filter(({ channel, seq }) => channel === name && seq <= to).at(-1))
  const ends = last.flatMap((entry) => entry?.isEnd === true ? entry.seq : [])
  return ends.length === channels.length ? Math.max(...ends) : undefined
}

/** Returns the entries of the channels of a connection in their order. */
export const entriesOf = (history: ReadonlyArray<Published>, connection: Pick<Connection, "channels" | "epoch">) =>
  history
    .filter(({ channel, epoch }) => epoch === connection.epoch && isInSome(connection.channels, channel))
    .sort((a, b) => a.seq - b.seq)

/**
 * Returns the first difference between the frames that a connection has received and those that the model allows.
 *
 * @param isWhole - true if the connection should have received everything
 */
export const fault = (
  history: ReadonlyArray<Published>,
  connection: Connection,
  limits: { readonly capacity: number; readonly canExpire: boolean },
  isWhole: boolean
): string | undefined => {
  const { began, channels, epoch, isStream, lastEventId, owner, received, snapshot, subscribed } = connection
  const entries = entriesOf(history, connection)
  const events = entries.filter(({ except, isEnd }) => !isEnd && (except === undefined || except !== owner))
  const asked = lastEventId === undefined ? Option.none() : EventLog.parseEventId(lastEventId)
  const head = (at: number) =>
    history.reduce((seq, e) => e.epoch === epoch && e.began <= at ? Math.max(seq, e.seq) : seq, 0)
  let place: { readonly epoch: string; readonly seq: number } | undefined = Option.getOrUndefined(asked)
  if (isStream && lastEventId === undefined) place = { epoch, seq: 0 }
  // The log may no longer have the first events of a stream that begins at the beginning.
  let isBeginning = isStream && lastEventId === undefined
  let hasEnded = false
  let dropped = 0
  let reason: string | undefined
  let state: State | undefined

  const isEvictable = (after: number, at = Number.POSITIVE_INFINITY) =>
    limits.canExpire ||
    entries.some(({ channel }) =>
      entries.filter((e) => e.channel === channel && e.seq > after && e.began <= at).length > limits.capacity
    )
  const skip = (to: number): string | undefined => {
    if (place === undefined) return undefined
    const { seq } = place
    const skipped = events.filter((event) => event.seq > seq && event.seq <= to)
    const mayBegin = isBeginning
    isBeginning = false
    if (skipped.length === 0 || (mayBegin && isEvictable(seq))) return undefined
    if (dropped === 0) return `lost ${skipped.map((event) => event.data)} after ${seq}`
    if (skipped.length > dropped && !isEvictable(seq)) return `lost ${skipped.length}, a gap of ${dropped}`
    dropped = 0
    return undefined
  }

  for (const { at, frame } of received) {
    if (hasEnded) return "a frame after the end"
    const id = frame.id === undefined ? undefined : Option.getOrUndefined(EventLog.parseEventId(frame.id))
    if (frame.id !== undefined && id === undefined) return `a malformed id: ${frame.id}`
    if (id !== undefined && id.epoch !== epoch) return `an id of another epoch: ${frame.id}`
    if (id !== undefined) {
      const early = entries.find((event) => event.began > at && event.seq <= id.seq)
      if (early !== undefined) return `an id ahead of ${early.data}, which was published later`
    }
    if (frame.event === "gap") {
      if (!connection.drops) return "a gap where nothing is dropped"
      dropped += JSON.parse(String(frame.data)).dropped
      // The frame that explains an invalid place may be among the dropped ones.
      if (place !== undefined && (place.epoch !== epoch || place.seq > head(began))) place = undefined
    } else if (frame.event === "resync") {
      reason = JSON.parse(String(frame.data)).reason
      switch (reason) {
        case "Malformed":
          if (lastEventId === undefined || Option.isSome(asked) || place !== undefined) {
            return "Malformed for a valid cursor"
          }
          break
        case "OtherEpoch":
          if (place === undefined || place.epoch === epoch) return "OtherEpoch for this epoch"
          break
        case "Future":
          if (place === undefined || place.epoch !== epoch || place.seq <= head(began)) {
            return "Future for a cursor of the past"
          }
          break
        case "Evicted":
          if (place === undefined || place.epoch !== epoch || !isEvictable(place.seq, at)) {
            return "Evicted without an eviction"
          }
          break
        default:
          return `an unknown reason: ${reason}`
      }
      if (id === undefined && !snapshot) return "resync without a place"
      place = id
    } else if (frame.event === "end") {
      hasEnded = true
      const known = entries.filter((entry) => entry.began <= at)
      let end: number | undefined
      // The end after a resync is at the place that the client was sent.
      const isAtPlace = place !== undefined && place.epoch === id?.epoch && place.seq === id.seq
      if (id !== undefined && !isAtPlace) {
        end = endOf(known, channels, id.seq)
        if (end !== id.seq) return `an end at ${id.seq}`
      } else if (place !== undefined && place.epoch !== epoch) {
        return "an end without a resync"
      } else if (place === undefined || place.seq > head(at)) {
        // The answer to a client that begins now: nothing but ends was published before.
        end = channels.every((name) =>
            known.some(({ channel, isEnd, seq }) =>
              isEnd && channel === name &&
              !entries.some((later) => later.channel === name && later.seq > seq && later.ended < began)
            )
          )
          ? head(at)
          : undefined
        place = undefined
      } else if (isStream) {
        const from = place.seq
        const next = events.find(({ seq }) => seq > from)?.seq ?? Infinity
        const last = isBeginning && isEvictable(from) ? endOf(known, channels) : undefined
        end = last ??
          known.map(({ seq }) => endOf(known, channels, seq)).find((seq = -1) => seq >= from && seq < next) ??
          endOf(known, channels, from)
      } else {
        end = endOf(known, channels, place.seq)
      }
      if (end === undefined) return "an end of channels that are open"
      const missed = events.find(({ ended, seq }) => seq > (end ?? 0) && ended < began)
      if (missed !== undefined) return `an end before ${missed.data}, which was published earlier`
      const lost = skip(end)
      if (lost !== undefined) return lost
      place = { epoch, seq: Math.max(end, place?.seq ?? 0) }
    } else if (frame.event === "state") {
      if (place !== undefined && reason === undefined && dropped === 0) return "an unexpected state"
      const given: State = JSON.parse(String(frame.data))
      state = given
      if (given.at !== undefined) place = { epoch, seq: given.seq }
    } else if (frame.data !== undefined) {
      const line = ({ channel }: Published) => isAttributed(connection) ? `${channel}\n` : ""
      const event = events.find((event) => `${line(event)}${event.data}` === frame.data)
      if (event === undefined) return `${frame.data}, which is not an event of its channels`
      if (id?.seq !== event.seq) return `${frame.data} with the id ${frame.id}`
      if (frame.event !== "said") return `${frame.data} with the name ${frame.event}`
      if (place === undefined && dropped === 0) return `${frame.data} before the first cursor`
      if (place !== undefined && place.epoch !== epoch) return `${frame.data} without a resync`
      if (place !== undefined && event.seq <= place.seq) return `${frame.data} again, or out of order, at ${place.seq}`
      const lost = skip(event.seq - 1)
      if (lost !== undefined) return lost
      place = { epoch, seq: event.seq }
    } else if (id !== undefined) {
      if (place === undefined) {
        if (asked !== undefined && Option.isSome(asked) && reason === undefined && dropped === 0) {
          return "a new place without a resync"
        }
        const before = events.find((event) => event.ended < began && event.seq > id.seq)
        if (before !== undefined && !snapshot) return `a place before ${before.data}, which was published earlier`
        const after = events.find((event) => event.began > (subscribed ?? at) && event.seq <= id.seq)
        if (after !== undefined && !snapshot) return `a place after ${after.data}, which was published later`
        if (
          state !== undefined && state.seq < id.seq &&
          events.some(({ seq }) => seq > (state?.seq ?? 0) && seq <= id.seq)
        ) {
          return `a place after events that the state has not`
        }
      } else if (id.seq < place.seq) {
        return `back from ${place.seq} to ${id.seq}`
      } else if (reason === "Evicted" && state !== undefined) {
        // The event that the state refers to was evicted.
      } else {
        const lost = skip(id.seq)
        if (lost !== undefined) return lost
      }
      reason = undefined
      state = undefined
      place = id
    }
  }
  if (!isWhole) return undefined
  if (place === undefined) return dropped > 0 ? undefined : "no cursor"
  if (place.epoch !== epoch) return "no resync for the other epoch"
  isBeginning = isBeginning && limits.canExpire
  if (!hasEnded && !limits.canExpire && endOf(entries, channels) !== undefined) {
    return "no end of channels that have ended"
  }
  return skip(Number.POSITIVE_INFINITY)
}
