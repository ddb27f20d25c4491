import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"

import type { Snapshot } from "../../EventBroker.js"
import type { Cursor, EventLog, Missing } from "../../EventLog.js"
import { formatEventId, parseEventId } from "../../EventLog.js"
import type { Connection } from "../../EventStream/internal/connection.js"
import * as Frame from "../../EventStream/internal/frame.js"
import * as Metrics from "../../EventStream/internal/metrics.js"
import * as ServerSentEvent from "../../ServerSentEvent.js"
import type { Pattern } from "../../Topic.js"
import { frameOf, type Subscriber } from "./hub.js"

type TakeSnapshot<R> = ((channels: ReadonlyArray<string | Pattern>) => Effect.Effect<Snapshot, unknown, R>) | undefined

/** An event for a log, which gives it its id. */
export const encode = (
  event: ServerSentEvent.ServerSentEvent
): Either.Either<Uint8Array, ServerSentEvent.InvalidServerSentEvent> =>
  event.id === undefined
    ? Either.map(Frame.fromEvent(event), ({ bytes }) => bytes)
    : Either.left(new ServerSentEvent.InvalidServerSentEvent({ field: "id", reason: "Assigned" }))

/** The state that all replays of a broker share. */
export interface Turns {
  readonly permits: Effect.Semaphore
  /** Bytes that were read since the event loop has turned. */
  spent: number
}

export const makeTurns = (): Turns => ({ permits: Effect.unsafeMakeSemaphore(maxReads), spent: 0 })

/** Reads a page when it is its turn: first come, first served, and between two full pages the event loop turns. */
const read = (log: EventLog.Service, turns: Turns, subscriber: Subscriber) =>
  turns.permits.withPermits(1)(Effect.gen(function*() {
    if (turns.spent >= pageBytes) {
      yield* nextTurn
      turns.spent = 0
    }
    if (!subscriber.connection.isOpen) return undefined
    const page = yield* log.read(subscriber.channels, subscriber, pageSize, pageBytes)
    turns.spent += page.more ? pageBytes : page.entries.reduce((bytes, { data }) => bytes + data.length, 64)
    return page
  }))

/** Moves the cursor of the client without an event. */
export const cursorFrame = (cursor: Cursor): Frame.Frame => Frame.fromString(`id: ${formatEventId(cursor)}\n\n`)

/**
 * Gives a subscriber what the log has after its place, as fast as it reads, until nothing is left: then it is live. What is
 * published meanwhile is not queued for it, for the log has it.
 */
export const catchUp = <R>(
  log: EventLog.Service,
  turns: Turns,
  subscriber: Subscriber,
  snapshot: TakeSnapshot<R>
) =>
  Effect.gen(function*() {
    let given = 0
    let isAnew = false
    let isMore: boolean
    do {
      subscriber.isBehind = false
      const page = yield* read(log, turns, subscriber).pipe(
        Effect.retry({ while: (error) => error.retryable && subscriber.connection.isOpen, schedule: backoff })
      )
      if (page === undefined) return
      isMore = page.more
      if (Option.isSome(page.missing)) {
        yield* startAnew(subscriber, snapshot, page.position, page.missing.value, isAnew)
        isAnew = true
        isMore = true
        continue
      }
      for (const entry of page.entries) {
        if (!(yield* give(subscriber.connection, frameOf(entry)))) return
        subscriber.seq = entry.seq
        given++
      }
      subscriber.moveTo(page.position)
      // A page waits for one client at a time. And what is published would push out what was replayed, and with it what the
      // client was to be told of its past.
      if (isMore || subscriber.connection.settings.strategy === "sliding") yield* taken(subscriber.connection)
    } while (isMore || subscriber.isBehind)
    subscriber.isLive = true
    Metrics.add(Metrics.delivered, given)
    Metrics.add(Metrics.replayed, given)
    yield* Metric.update(Metrics.replaySize, given)
    yield* Effect.annotateCurrentSpan("events", given)
  }).pipe(Effect.withSpan("EventBroker.replay", { captureStackTrace: false }))

/**
 * Puts a subscriber at the present: tells it why its past cannot be given, if it had one, and the state that the events go
 * on from, if there is a snapshot.
 *
 * @param ignoreAt - what the snapshot said it is the state of is what could not be given
 */
export const startAnew = <R>(
  subscriber: Subscriber,
  snapshot: TakeSnapshot<R>,
  position: Cursor,
  reason: Missing | "Malformed" | undefined,
  ignoreAt = false
) =>
  Effect.gen(function*() {
    const { connection } = subscriber
    subscriber.moveTo(position)
    if (reason !== undefined) {
      const id = snapshot === undefined ? `id: ${formatEventId(position)}\n` : ""
      yield* Metric.update(Metrics.resyncs, reason)
      yield* give(connection, Frame.fromString(`${id}event: resync\ndata: {"reason":"${reason}"}\n\n`))
    }
    if (snapshot !== undefined) {
      const { at, events } = yield* snapshot(Array.from(subscriber.granted.values()))
      const place = Option.filter(
        at === undefined ? Option.none() : parseEventId(at),
        ({ epoch, seq }) => epoch === position.epoch && !(ignoreAt && (reason === "Future" || seq <= position.seq))
      )
      if (Option.isSome(place)) subscriber.moveTo(place.value)
      for (const event of events) yield* give(connection, new Frame.Frame(yield* encode(event)))
    }
    if (subscriber.hasCursor && (snapshot !== undefined || reason === undefined)) {
      yield* give(connection, cursorFrame(subscriber))
    }
  })

/** Waits until nothing is queued. */
const taken = (connection: Connection): Effect.Effect<void> =>
  Effect.async<void>((resume) => connection.onTaken(() => resume(Effect.void)))

/** Whether the client took the frame, however long that takes: what is replayed is not dropped. */
const give = (connection: Connection, frame: Frame.Frame): Effect.Effect<boolean> =>
  Effect.suspend(() =>
    !connection.isOpen || connection.hasRoom(frame)
      ? Effect.succeed(connection.offer(frame))
      : Effect.async<boolean>((resume) => {
        const cancel = connection.suspend({ frame, resume: (taken) => resume(Effect.succeed(taken)) })
        return Effect.sync(cancel)
      })
  )

/** Lets the event loop turn once. */
export const nextTurn = Effect.async<void>((resume) => {
  const done = () => resume(Effect.void)
  if (typeof setImmediate === "function") setImmediate(done)
  else setTimeout(done, 0)
})

const pageSize = 256
const pageBytes = 64 * 1024
/** Pages that are asked for at once. */
const maxReads = 8
/** How often a log that is away is asked again. */
export const backoff = Schedule.exponential("100 millis").pipe(
  Schedule.union(Schedule.spaced("5 seconds")),
  Schedule.jittered
)
