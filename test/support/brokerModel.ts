import { Option } from "effect"
import type { ServerSentEvent } from "effect-realtime"
import { EventLog } from "effect-realtime"

/** An event that was published, and the moments between which that happened. */
export interface Published {
  readonly channel: string
  readonly data: string
  readonly epoch: string
  readonly seq: number
  readonly began: number
  readonly ended: number
}

/** The request of one connection, and the frames that it has received. */
export interface Connection {
  readonly channels: ReadonlyArray<string>
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
  const [names, segments] = [pattern.split("/"), channel.split("/")]
  return names.length === segments.length && names.every((name, i) => name === "*" || name === segments[i])
}
export const isInSome = (patterns: ReadonlyArray<string>, channel: string) =>
  patterns.some((pattern) => isIn(pattern, channel))

/** True if the client is sent the channel of each event: unless it asks for exactly one, and not for a pattern. */
const isAttributed = ({ channels }: Pick<Connection, "channels">) =>
  channels.length > 1 || channels.some((name) => name.includes("*"))

/** Returns the events of the channels of a connection in their order. */
export const eventsOf = (history: ReadonlyArray<Published>, connection: Pick<Connection, "channels" | "epoch">) =>
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
  const { began, epoch, lastEventId, received, snapshot, subscribed } = connection
  const events = eventsOf(history, connection)
  const asked = lastEventId === undefined ? Option.none() : EventLog.parseEventId(lastEventId)
  const head = (at: number) =>
    history.reduce((seq, e) => e.epoch === epoch && e.began <= at ? Math.max(seq, e.seq) : seq, 0)
  let place: { readonly epoch: string; readonly seq: number } | undefined = Option.getOrUndefined(asked)
  let dropped = 0
  let reason: string | undefined
  let state: State | undefined

  const isEvictable = (after: number, at = Number.POSITIVE_INFINITY) =>
    limits.canExpire ||
    events.some(({ channel }) =>
      events.filter((e) => e.channel === channel && e.seq > after && e.began <= at).length > limits.capacity
    )
  const skip = (to: number): string | undefined => {
    if (place === undefined) return undefined
    const { seq } = place
    const skipped = events.filter((event) => event.seq > seq && event.seq <= to)
    if (skipped.length === 0) return undefined
    if (dropped === 0) return `lost ${skipped.map((event) => event.data)} after ${seq}`
    if (skipped.length > dropped && !isEvictable(seq)) return `lost ${skipped.length}, a gap of ${dropped}`
    dropped = 0
    return undefined
  }

  for (const { at, frame } of received) {
    const id = frame.id === undefined ? undefined : Option.getOrUndefined(EventLog.parseEventId(frame.id))
    if (frame.id !== undefined && id === undefined) return `a malformed id: ${frame.id}`
    if (id !== undefined && id.epoch !== epoch) return `an id of another epoch: ${frame.id}`
    if (id !== undefined) {
      const early = events.find((event) => event.began > at && event.seq <= id.seq)
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
  return skip(Number.POSITIVE_INFINITY)
}
