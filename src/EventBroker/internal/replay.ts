import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"

import type { Bounds, Cursor, Entry, EventId, EventLog, EventLogError, Missing } from "../../EventLog.js"
import { formatEventId, parseEventId } from "../../EventLog.js"
import { type Connection, offer } from "../../EventStream/internal/connection.js"
import * as Frame from "../../EventStream/internal/frame.js"
import { backoff } from "../../internal/backoff.js"
import { boundsFault } from "../../internal/bounds.js"
import { isPattern } from "../../internal/channel.js"
import { add } from "../../internal/counter.js"
import * as Metrics from "../../Metrics.js"
import { type Fields, InvalidServerSentEvent } from "../../ServerSentEvent.js"
import type * as Topic from "../../Topic.js"
import type { Channel, Hub, Subscriber } from "./hub.js"
import { firstPage, page as fullPage, PageTurns, type Size } from "./pageTurns.js"
import * as StoredEvent from "./storedEvent.js"

/** The state that precedes the events of a subscriber, as `snapshot` of the options returns it. */
type TakeSnapshot<R> =
  | ((
    channels: ReadonlyArray<Channel>
  ) => Effect.Effect<{ readonly events: Iterable<SnapshotEvent>; readonly at?: EventId | undefined }, unknown, R>)
  | undefined

interface SnapshotEvent extends Fields {
  readonly channel?: string | Topic.Channel | undefined
}

/** Throws `IllegalArgumentException` if there is no such place. */
export const checkFrom = ({ from = "now" }: Pick<Start<never>, "from">): void => {
  const fault = from === "now" || from === "beginning"
    ? undefined
    : boundsFault(from)
  if (fault !== undefined) throw new Cause.IllegalArgumentException(`EventBroker: ${fault}`)
}

/** The place at which the events of a new subscriber begin. */
export interface Start<R> {
  readonly lastEventId?: string | undefined
  readonly from?: "now" | "beginning" | Bounds | undefined
  readonly snapshot?: TakeSnapshot<R>
}

/** The reads and waits after which a subscriber is live. */
type Reading<R> = Effect.Effect<void, unknown, R>

/**
 * The replays of a broker. Each brings a subscriber from its cursor to the present, page by page and as fast as the
 * client reads.
 *
 *     start --+-- valid Last-Event-ID -----------------------------> catchUp --> live
 *             +-- malformed Last-Event-ID, or a snapshot --> reset --> catchUp --> live
 *             +-- bounds ------------------------------------> seek --> catchUp --> live
 *             +-- none of these ----------------------------------------------> live
 *
 * A page that is incomplete (`missing`) leads to `reset` as well, unless it is the first after `seek`: its client has
 * lost nothing, so the log is searched again, and the client begins later each time. Entries that are appended
 * meanwhile are not queued: the subscriber is marked as `behind`, and reads them from the log.
 */
export interface Replays {
  /**
   * Sets the cursor of a new subscriber. `run` runs what remains to be read in a fiber of its own. Returns false if
   * nothing remains and nothing will follow, because all channels have ended.
   */
  readonly start: <R>(
    subscriber: Subscriber,
    start: Start<R>,
    run: (reading: Reading<R>) => Effect.Effect<unknown>
  ) => Effect.Effect<boolean, EventLogError>
  /** Returns true if `start` would return false for a subscriber of the channels. */
  readonly hasEnded: <R>(
    channels: ReadonlyArray<string>,
    start: Start<R>
  ) => Effect.Effect<boolean, EventLogError>
  /** Sends a subscriber the entries after its cursor until none is left. */
  readonly catchUp: <R>(subscriber: Subscriber, snapshot: TakeSnapshot<R>) => Reading<R>
}

export const make = (log: EventLog.Service, hub: Hub): Replays => {
  const turns = new PageTurns()

  const read = (subscriber: Subscriber, size: Size) =>
    turns.withTurn(
      size,
      Effect.suspend(() =>
        subscriber.connection.isOpen
          ? log.read(subscriber.channels, subscriber, size.entries, size.bytes)
          : Effect.succeed(undefined)
      ),
      (page) =>
        page === undefined
          ? 0
          : page.more
          ? size.bytes
          : page.entries.reduce((bytes, { data }) => bytes + data.length, 0)
    )

  const seek = (channels: ReadonlyArray<string>, bounds: Bounds) =>
    turns.withTurn(firstPage, log.seek(channels, bounds))

  /**
   * Finds the cursor with which a subscriber of the channels begins, and the last entries of those that have ended up
   * to there. If `isCurrent`, no entries follow it. A log in another process is asked once for a client that is new, or
   * that has missed nothing. The end of a channel that is appended after a search stays for the first page.
   */
  const findStart = (beginning: Beginning, channels: ReadonlyArray<string>): Effect.Effect<Found, EventLogError> => {
    if (isBounds(beginning)) return Effect.flatMap(seek(channels, beginning), (place) => findStart(place, channels))
    const after = beginning === "now" ? undefined : beginning
    // Patterns have no end: with one, no channel counts.
    if (channels.some(isPattern)) {
      return after === undefined
        ? Effect.map(log.head, (place) => ({ place, ends: [], isCurrent: true }))
        : Effect.succeed({ place: after, ends: [], isCurrent: false })
    }
    return Effect.map(log.last(channels, StoredEvent.end.length, after), ({ entries, head, isCurrent }) => {
      const place = isCurrent || after === undefined ? head : after
      return {
        place,
        isCurrent: isCurrent || after === undefined,
        ends: entries.filter(({ data, epoch, seq }) =>
          StoredEvent.isEnd(data) && epoch === place.epoch && seq <= place.seq
        )
      }
    })
  }

  /** Resets a subscriber, and ends its connection if all of its channels have ended. */
  const resetAndNoteEnded = Effect.fnUntraced(function*<R>(
    subscriber: Subscriber,
    snapshot: TakeSnapshot<R>,
    position: Cursor,
    reason: Missing | "Malformed" | undefined,
    ignoreAt: boolean
  ) {
    yield* reset(subscriber, snapshot, position, reason, ignoreAt)
    const { epoch, seq } = subscriber
    noteEnded(subscriber, (yield* findStartWhileOpen(subscriber, { epoch, seq })).ends)
  })

  const findStartWhileOpen = ({ channels, connection }: Subscriber, beginning: Cursor) =>
    Effect.retry(findStart(beginning, channels), retryWhileOpen(connection))

  /** Ends the connection of a subscriber if all of its channels have ended up to its cursor. */
  const noteEnded = (subscriber: Subscriber, ends: ReadonlyArray<Entry>) => {
    subscriber.forgetEnds()
    subscriber.noteEnds(ends)
    if (subscriber.hasEnded) {
      subscriber.connection.endWith(Frame.withId(formatEventId(subscriber), Frame.end.bytes))
    }
  }

  /** Returns the frame of an entry, or undefined if the subscriber is not sent it now. */
  const frameOf = (subscriber: Subscriber, entry: Entry): Frame.Frame | undefined => {
    if (StoredEvent.isEnd(entry.data)) {
      subscriber.isAhead = true
      subscriber.noteEnd(entry.channel)
      return undefined
    }
    subscriber.noteEvent(entry.channel)
    const except = StoredEvent.exceptOf(entry.data)
    if (except !== undefined && except === subscriber.owner) {
      subscriber.isAhead = true
      return undefined
    }
    return hub.frameOf(entry, subscriber.isAttributed)
  }

  const catchUp = <R>(subscriber: Subscriber, snapshot: TakeSnapshot<R>, bounds?: Bounds) => {
    const { connection } = subscriber
    let count = 0
    let searches = bounds === undefined ? maxSearches : 0
    let size = firstPage
    return Effect.gen(function*() {
      let end: Entry | undefined
      let isReset = false
      let isMore: boolean
      do {
        subscriber.replay()
        const page = yield* Effect.retry(read(subscriber, size), retryWhileOpen(connection))
        if (page === undefined) return
        size = fullPage
        isMore = page.more
        if (Option.isSome(page.missing)) {
          if (bounds !== undefined && searches < maxSearches) {
            const found = yield* Effect.retry(seek(subscriber.channels, bounds), retryWhileOpen(connection))
            const place = between(found, page.position, searches++ / (maxSearches - 1))
            const { ends } = yield* findStartWhileOpen(subscriber, place)
            subscriber.moveTo(place)
            noteEnded(subscriber, ends)
            // The client has the cursor of the search before, with which it would receive a `resync`.
            if (subscriber.hasCursor && !(yield* send(connection, cursorFrame(subscriber)))) return
            isMore = true
            continue
          }
          yield* resetAndNoteEnded(subscriber, snapshot, page.position, page.missing.value, isReset)
          isReset = true
          isMore = true
          continue
        }
        searches = maxSearches
        for (const entry of page.entries) {
          const frame = frameOf(subscriber, entry)
          if (frame !== undefined) {
            if (!connection.offerIfRoom(frame) && !(yield* send(connection, frame))) return
            count++
          }
          subscriber.seq = entry.seq
          if (StoredEvent.isEnd(entry.data)) end = entry
        }
        subscriber.moveTo(page.position)
        // Only now: a later event may have opened a channel again.
        if (!isMore && end !== undefined) hub.endIfEnded(subscriber, end)
        // One page at most waits for a client. With "sliding", live events would push replayed ones and a `resync` out.
        if (isMore || connection.settings.strategy === "sliding") yield* drained(connection)
      } while (isMore || !subscriber.goLive())
    }).pipe(
      // Also where the client has left, or its channels have ended.
      Effect.ensuring(Effect.suspend(() => {
        add(Metrics.eventsDelivered, count)
        add(Metrics.eventsReplayed, count)
        return Effect.zipRight(
          Metric.update(Metrics.replayEvents, count),
          Effect.annotateCurrentSpan("events", count)
        )
      })),
      Effect.withSpan("EventBroker.replay", { captureStackTrace: false })
    )
  }

  return {
    catchUp,
    start: (subscriber, start, run) => {
      const { lastEventId, snapshot } = start
      const beginning = parseStart(start)
      const bounds = beginning !== "reset" && isBounds(beginning) ? beginning : undefined
      const reading = Effect.suspend(() => catchUp(subscriber, snapshot, bounds))
      if (beginning === "reset") {
        const reason = isGiven(lastEventId) ? "Malformed" : undefined
        return log.head.pipe(
          Effect.flatMap((head) =>
            run(Effect.zipRight(resetAndNoteEnded(subscriber, snapshot, head, reason, false), reading))
          ),
          Effect.as(true)
        )
      }
      return Effect.flatMap(findStart(beginning, subscriber.channels), ({ ends, isCurrent, place }) => {
        subscriber.moveTo(place)
        subscriber.noteEnds(ends)
        if (subscriber.hasEnded) return Effect.succeed(false)
        if (!isCursor(beginning) && subscriber.hasCursor) subscriber.connection.offer(cursorFrame(place))
        return isCurrent && subscriber.goLive() ? Effect.succeed(true) : Effect.as(run(reading), true)
      })
    },
    hasEnded: (channels, start) =>
      Effect.gen(function*() {
        const beginning = parseStart(start)
        if (beginning === "reset" || channels.some(isPattern)) return false
        const isEndedAt = (beginning: Beginning) =>
          Effect.map(findStart(beginning, channels), ({ ends }) => ends.length === channels.length)
        // A search is long.
        return (!isBounds(beginning) || (yield* isEndedAt("now"))) && (yield* isEndedAt(beginning))
      })
  }
}

/** The start of a subscriber, as `findStart` finds it. */
interface Found {
  readonly place: Cursor
  readonly isCurrent: boolean
  readonly ends: ReadonlyArray<Entry>
}

/** The place at which a client begins. */
type Beginning = Cursor | Bounds | "now"

const isCursor = (beginning: Beginning): beginning is Cursor => typeof beginning === "object" && "epoch" in beginning

const isBounds = (beginning: Beginning): beginning is Bounds => beginning !== "now" && !isCursor(beginning)

const isGiven = (lastEventId: string | undefined): lastEventId is string =>
  lastEventId !== undefined && lastEventId !== ""

/** Returns `reset` if a snapshot, or the event `resync`, precedes the events of the client. */
const parseStart = <R>({ from = "now", lastEventId, snapshot }: Start<R>): Beginning | "reset" =>
  isGiven(lastEventId)
    ? Option.getOrElse(parseEventId(lastEventId), () => "reset" as const)
    : from === "beginning"
    ? {}
    : from !== "now"
    ? from
    : snapshot === undefined
    ? "now"
    : "reset"

/** Returns the place that is a share of the way from a cursor to the head. */
const between = (cursor: Cursor, head: Cursor, share: number): Cursor =>
  cursor.epoch === head.epoch && head.seq > cursor.seq
    ? { epoch: cursor.epoch, seq: cursor.seq + Math.round((head.seq - cursor.seq) * share) }
    : cursor

/**
 * Moves a subscriber to a position of the log without the events before it. Sends a `resync` with the reason if there
 * is one, the snapshot, and the cursor.
 *
 * @param ignoreAt - the `at` of the last snapshot could not be honoured
 */
const reset = Effect.fnUntraced(function*<R>(
  subscriber: Subscriber,
  snapshot: TakeSnapshot<R>,
  position: Cursor,
  reason: Missing | "Malformed" | undefined,
  ignoreAt: boolean
) {
  const { connection } = subscriber
  subscriber.moveTo(position)
  if (reason !== undefined) {
    const id = snapshot === undefined ? formatEventId(position) : undefined
    yield* Metric.update(Metrics.resyncs, reason)
    yield* send(connection, Frame.resync(reason, id))
  }
  if (snapshot !== undefined) {
    const { at, events } = yield* snapshot(Array.from(subscriber.granted.values()))
    const cursor = Option.filter(
      at === undefined ? Option.none() : parseEventId(at),
      ({ epoch, seq }) => epoch === position.epoch && !(ignoreAt && (reason === "Future" || seq <= position.seq))
    )
    if (Option.isSome(cursor)) subscriber.moveTo(cursor.value)
    for (const event of events) {
      const bytes = yield* encode(event)
      const channel = typeof event.channel === "object" ? event.channel.name : event.channel ?? ""
      yield* send(
        connection,
        new Frame.Frame(subscriber.isAttributed ? Frame.withChannel(channel, bytes) : bytes)
      )
    }
  }
  if (subscriber.hasCursor && (snapshot !== undefined || reason === undefined)) {
    yield* send(connection, cursorFrame(subscriber))
  }
})

/** Encodes an event for a log, which assigns the `id`. */
export const encode = (event: Fields): Either.Either<Uint8Array, InvalidServerSentEvent> =>
  event.id === undefined
    ? Either.map(Frame.fromEvent(event), ({ bytes }) => bytes)
    : Either.left(new InvalidServerSentEvent({ field: "id", reason: "Assigned" }))

/** Moves the cursor of the client without an event. Clients that begin together share the frame. */
const cursorFrame = ({ epoch, seq }: Cursor): Frame.Frame => {
  if (lastCursor === undefined || lastCursor.epoch !== epoch || lastCursor.seq !== seq) {
    lastCursor = { epoch, seq, frame: Frame.cursor(formatEventId({ epoch, seq })) }
  }
  return lastCursor.frame
}

let lastCursor: Cursor & { readonly frame: Frame.Frame } | undefined

/** Waits until nothing is queued. */
const drained = (connection: Connection): Effect.Effect<void> =>
  Effect.async<void>((resume) => connection.onDrained(() => resume(Effect.void)))

/** Waits until there is room for the frame: a replay drops nothing. Returns false if the connection has ended. */
const send = (connection: Connection, frame: Frame.Frame): Effect.Effect<boolean> => offer(connection, frame, "suspend")

/**
 * The further searches for a new client, after each of which the log has evicted the first entry before it was read.
 * Each begins later than the one before, and the last one at the head.
 */
const maxSearches = 8
/** Retries while the log may answer and the client is connected. */
const retryWhileOpen = (connection: Connection) => ({
  while: (error: EventLogError) => error.isRetryable && connection.isOpen,
  schedule: untilAvailable
})

/** The delays between attempts to reach a log that is unavailable. */
export const untilAvailable = backoff("100 millis", "5 seconds")
