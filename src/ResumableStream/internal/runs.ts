import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import { identity } from "effect/Function"
import * as Option from "effect/Option"

import type { Cursor, EventLogError, NewEntry } from "../../EventLog.js"
import { EventLog } from "../../EventLog.js"
import { backoff } from "../../internal/backoff.js"
import { annotateWith } from "../../internal/logging.js"
import * as Stored from "./stored.js"

/** A stream that a node can run. */
export interface Source {
  readonly channel: string
  readonly owner: string | undefined
  /** The time of a run, in milliseconds. */
  readonly timeLimit: number
  /** The time for which the log stores the stream after its end, in milliseconds. */
  readonly keep: number
  /** Runs the stream, emits the JSON of its elements in parts, and returns the event of its end. */
  readonly run: (emit: (elements: string) => Effect.Effect<void>) => Effect.Effect<Uint8Array>
  /** Makes the stream that continues this one after the elements that the log has. */
  readonly restart: Effect.Effect<Source, EventLogError> | undefined
}

/**
 * The state of a run:
 *
 * - `Producing`: the stream emits elements.
 * - `Ending`: nothing is emitted any more, and these events follow what is pending.
 * - `Ended`: nothing is appended any more, because all is, or because another node has ended or taken over the stream.
 */
type State =
  | { readonly _tag: "Producing" }
  | { readonly _tag: "Ending"; readonly events: ReadonlyArray<Uint8Array> }
  | { readonly _tag: "Ended" }

/** A stream that this node runs. */
class Run {
  readonly source: Source
  readonly startedAt: number
  readonly ended = Deferred.unsafeMake<void>(FiberId.none)
  /** Open while the producer may continue. */
  readonly room = Effect.unsafeMakeLatch(true)
  state: State = { _tag: "Producing" }
  /** The last place of the channel. Each append names it, so that nothing is appended after another node has. */
  place: Cursor
  /** The JSON of the elements that wait for the writer, in parts, and its length. */
  pending: Array<string> = []
  pendingLength = 0
  /** The length of the elements that the writer has taken. */
  takenLength = 0
  isUnderWay = false
  /** True if another node may have appended an event while an append was under way. */
  isSuspect = false
  producer: Fiber.Fiber<unknown, unknown> | undefined

  constructor(source: Source, startedAt: number, place: Cursor) {
    this.source = source
    this.startedAt = startedAt
    this.place = place
  }

  /** Takes the elements of the next event, as a JSON array. */
  take(): string {
    let length = 0
    const end = this.pending.findIndex((json) => (length += json.length) > maxBatchLength)
    const taken = this.pending.splice(0, end === -1 ? this.pending.length : Math.max(1, end))
    this.takenLength = taken.reduce((sum, json) => sum + json.length, 0)
    this.pendingLength -= this.takenLength
    return `[${taken.join(",")}]`
  }
}

/** The next event of a run. */
interface Next {
  readonly run: Run
  readonly entry: NewEntry
}

/**
 * The runs of this node. The streams emit to their runs, and one writer appends for all of them:
 *
 *     stream --> pending --+
 *     stream --> pending --+--> writer: one appendAll for each window --> log
 *     stream --> pending --+
 *
 * An append that the log refuses ends the run: another node has ended or taken over the stream. It also wakes the node
 * of the run by the control channel, since an idle stream appends nothing.
 */
export interface Runs {
  /** Runs a source, unless its stream is running or has ended. Returns false then. */
  readonly start: (source: Source) => Effect.Effect<boolean, EventLogError>
  /** Runs a source after the last event of a stream, unless that has a later one. Returns false then. */
  readonly takeOver: (source: Source, last: Cursor) => Effect.Effect<boolean, EventLogError>
  /** Ends a stream, on whichever node it runs. Returns false if it is not running. */
  readonly stop: (channel: string, reason: Stored.StopReason, keep: number) => Effect.Effect<boolean, EventLogError>
  /** Appends the end of the channel after the end of its stream, unless it is there. */
  readonly complete: (channel: string, end: Cursor, keep: number) => Effect.Effect<void, EventLogError>
  /** Returns true if this node runs the stream, and another node if its lease is there. */
  readonly isLeased: (channel: string) => Effect.Effect<boolean, EventLogError>
}

export const make = Effect.fnUntraced(function*(window: number) {
  const log = yield* EventLog
  const presence = yield* log.presence
  const tail = yield* log.tail
  const producers = yield* FiberSet.make<void>()
  const runs = new Map<string, Run>()
  /** The runs that have something to append. */
  const waiting = new Set<Run>()
  const due = Effect.unsafeMakeLatch(false)
  const urgent = Effect.unsafeMakeLatch(false)
  /** The length of the elements that wait, of all runs. */
  let waitingLength = 0
  let isClosed = false
  let isFailing = false

  const isUrgent = () => isClosed || waitingLength >= maxBatchLength

  const note = (run: Run) => {
    waiting.add(run)
    due.unsafeOpen()
    if (isUrgent()) urgent.unsafeOpen()
  }

  const emit = (run: Run) => (json: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      // Its interruption is on the way.
      if (run.state._tag !== "Producing") return Effect.never
      run.pending.push(json)
      run.pendingLength += json.length
      waitingLength += json.length
      note(run)
      if (run.pendingLength + run.takenLength < maxLength) return Effect.void
      run.room.unsafeClose()
      return run.room.await
    })

  /** Lets a run append what is pending, its end, and nothing more. */
  const finish = (run: Run, end: Uint8Array) => {
    if (run.state._tag !== "Producing") return
    run.state = { _tag: "Ending", events: [end, Stored.endOfChannel] }
    note(run)
  }

  const interrupt = ({ producer }: Run) => producer === undefined ? Effect.void : Fiber.interruptFork(producer)

  /** Removes a run, which appends nothing more. */
  const remove = (run: Run) =>
    Effect.suspend(() => {
      if (run.state._tag === "Ended") return Effect.void
      run.state = { _tag: "Ended" }
      waiting.delete(run)
      waitingLength -= run.pendingLength
      run.pending = []
      run.pendingLength = 0
      run.room.unsafeOpen()
      runs.delete(run.source.channel)
      return presence.set(Stored.leaseOf(run.source.channel), 0).pipe(
        Effect.zipRight(interrupt(run)),
        Effect.zipRight(Deferred.succeed(run.ended, undefined))
      )
    })

  /** Waits while the log is away. Another error is a defect. */
  const untilAnswered = <A>(operation: Effect.Effect<A, EventLogError>): Effect.Effect<A> =>
    operation.pipe(
      Effect.tapError(({ detail }) =>
        Effect.suspend(() => {
          const isFirst = !isFailing
          isFailing = true
          return Effect.when(
            logWarning(`ResumableStream cannot append: the producers wait, and it tries again. ${detail}`),
            () => isFirst
          )
        })
      ),
      Effect.retry({ while: (error) => error.isRetryable, schedule: untilAvailable }),
      Effect.tap(() =>
        Effect.sync(() => {
          isFailing = false
        })
      ),
      Effect.orDie
    )

  /** Takes the next event of each run, or of each that ends, up to the size of a batch. */
  const takeBatch = (now: number, from: "all" | "ending"): ReadonlyArray<Next> => {
    const batch: Array<Next> = []
    let length = 0
    for (const run of waiting) {
      if (from === "ending" && run.state._tag !== "Ending") continue
      if (batch.length >= maxBatch || length >= maxBatchLength) break
      waiting.delete(run)
      const { pending, place, source, startedAt, state } = run
      const [end] = state._tag === "Ending" ? state.events : []
      if (pending.length > 0) {
        const left = Math.max(0, startedAt + source.timeLimit - now)
        const data = Stored.encode({ event: "elements", data: run.take() })
        batch.push({ run, entry: entryOf(source.channel, data, place.seq, source.keep + left) })
        length += run.takenLength
      } else if (end !== undefined) {
        batch.push({ run, entry: entryOf(source.channel, end, place.seq, source.keep) })
      } else continue
      run.isUnderWay = true
    }
    waitingLength -= length
    return batch
  }

  /** Notes that an event of a run is appended. */
  const advance = ({ entry, run }: Next, { epoch, seq }: Cursor) =>
    Effect.suspend(() => {
      run.place = { epoch, seq }
      run.takenLength = 0
      if (run.pendingLength < maxLength) run.room.unsafeOpen()
      if (run.state._tag === "Ending" && run.state.events[0] === entry.data) {
        run.state = { _tag: "Ending", events: run.state.events.slice(1) }
        if (run.state.events.length === 0) return remove(run)
      }
      if (run.state._tag === "Ending" || run.pending.length > 0) note(run)
      return Effect.when(check(run), () => run.isSuspect)
    })

  /** Ends a run that has lost its stream to another node, or to a log that has begun again. */
  const lose = (run: Run): Effect.Effect<void> => {
    const { place, source: { channel, keep } } = run
    return Effect.flatMap(untilAnswered(log.read([channel], place, 1)), ({ missing }) =>
      Effect.zipRight(
        remove(run),
        // Without it, the readers would wait for the end of a stream of which the log has nothing.
        Effect.when(
          untilAnswered(end(channel, "LogLost", keep, true)),
          () => Option.exists(missing, (reason) => reason !== "Evicted")
        )
      ))
  }

  const settle = (next: Next, cursor: Cursor) =>
    Effect.suspend(() => {
      const { entry, run } = next
      run.isUnderWay = false
      if (run.state._tag === "Ended") return Effect.void
      if (cursor.seq > 0) return advance(next, cursor)
      // The answer to an earlier attempt may be lost.
      return Effect.flatMap(untilAnswered(log.read([entry.channel], run.place, 1)), ({ entries: [first] }) =>
        first !== undefined && first.data.length === entry.data.length &&
          first.data.every((byte, i) =>
            byte === entry.data[i]
          )
          ? advance(next, first)
          : lose(run))
    })

  /** Appends one event of runs that wait, or of those that end. Returns the number of runs that it has taken. */
  const flush = Effect.fnUntraced(function*(from: "all" | "ending") {
    const before = waiting.size
    const batch = takeBatch(yield* Clock.currentTimeMillis, from)
    const taken = before - waiting.size
    if (batch.length === 0) return taken
    yield* untilAnswered(log.appendAll(batch.map(({ entry }) => entry))).pipe(
      Effect.flatMap((cursors) =>
        Effect.forEach(batch, (next, i) => settle(next, cursors[i] ?? { epoch: "", seq: 0 }), { discard: true })
      ),
      Effect.catchAllCause((cause) =>
        Cause.isInterruptedOnly(cause)
          ? Effect.failCause(cause)
          : Effect.zipRight(
            logWarning("ResumableStream could not append the events of its streams: they end"),
            Effect.forEach(batch, ({ run }) => remove(run), { discard: true })
          )
      )
    )
    return taken
  })

  /** Waits for the end of a window, unless much is pending. */
  const awaitWindow = (begunAt: number) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const left = window - Math.max(0, now - begunAt)
      if (left <= 0 || isUrgent()) return Effect.void
      urgent.unsafeClose()
      return Effect.raceFirst(Effect.sleep(left), urgent.await)
    })

  const write = Effect.gen(function*() {
    yield* due.await
    due.unsafeClose()
    const begunAt = yield* Clock.currentTimeMillis
    for (let left = waiting.size; left > 0;) left -= Math.max(1, yield* flush("all"))
    // The end of a run and that of its channel follow its last elements at once. The elements of other runs wait.
    yield* flush("ending")
    yield* flush("ending")
    yield* awaitWindow(begunAt)
    if (waiting.size > 0) due.unsafeOpen()
  }).pipe(Effect.forever)

  /** Finds out if another node has appended to the channel of a run. */
  const check = (run: Run): Effect.Effect<void> =>
    Effect.suspend(() => {
      const { place } = run
      run.isSuspect = run.isUnderWay
      return run.isUnderWay || run.state._tag === "Ended"
        ? Effect.void
        : Effect.flatMap(untilAnswered(log.last([run.source.channel], 0, place)), ({ isCurrent }) => {
          if (isCurrent || run.state._tag === "Ended") return Effect.void
          // An append of this node may be the other one.
          if (run.isUnderWay || run.place !== place) return check(run)
          return lose(run)
        })
    })

  const observe = Effect.flatMap(tail.take, (items) => {
    const isLost = items.some(({ _tag }) => _tag === "Lost")
    const names = new Set(items.flatMap((item) => item._tag === "Entry" ? [textDecoder.decode(item.data)] : []))
    return Effect.forEach(
      Array.from(runs.values()).filter(({ source }) => isLost || names.has(source.channel)),
      (run) =>
        Effect.catchAllDefect(
          check(run),
          () => logWarning("ResumableStream could not find out if another node has ended a stream: it goes on")
        ),
      { concurrency: 8, discard: true }
    )
  }).pipe(Effect.forever)

  /** Appends the end of a stream that another node runs, or has run. */
  const end = (
    channel: string,
    reason: Stored.StopReason,
    keep: number,
    isUnknown = false
  ): Effect.Effect<boolean, EventLogError> =>
    Effect.gen(function*() {
      const state = yield* Stored.readState(log, channel)
      if (state._tag === "Ended" || (state._tag === "None" && !isUnknown)) return false
      const after = state._tag === "None" ? state.seq : state.last.place.seq
      const [place] = yield* log.appendAll([
        entryOf(channel, Stored.stopped(reason), after, keep),
        wakeUp(channel)
      ])
      if (place === undefined || place.seq === 0) return yield* end(channel, reason, keep, isUnknown)
      yield* complete(channel, place, keep)
      return true
    })

  const complete: Runs["complete"] = (channel, { seq }, keep) =>
    Effect.asVoid(log.appendAll([entryOf(channel, Stored.endOfChannel, seq, keep)]))

  /** Appends the event with which a run begins. Returns its place, or none if the log refuses it. */
  const begin = (
    { channel, keep, timeLimit }: Source,
    after: number,
    others: ReadonlyArray<NewEntry>
  ): Effect.Effect<Option.Option<Cursor>, EventLogError> =>
    Effect.suspend(() => {
      const run = crypto.randomUUID()
      const data = Stored.encode({ event: "started", data: { run } })
      const isOwn = (state: Stored.State): state is Extract<Stored.State, { readonly _tag: "Running" }> =>
        state._tag === "Running" && state.last.data.includes(run)
      return log.appendAll([entryOf(channel, data, after, keep + timeLimit), ...others]).pipe(
        Effect.map(([place]) => Option.filter(Option.fromNullable(place), ({ seq }) => seq > 0)),
        Effect.catchIf(({ reason }) => reason === "Timeout", (error) =>
          Effect.flatMap(Stored.readState(log, channel), (state) =>
            isOwn(state) ? Effect.succeedSome(state.last.place) : error))
      )
    })

  /** Begins a stream of which the log has nothing. */
  const beginNew = (source: Source): Effect.Effect<Option.Option<Cursor>, EventLogError> =>
    Effect.gen(function*() {
      const state = yield* Stored.readState(log, source.channel)
      if (state._tag !== "None") return Option.none()
      // The place is one of another channel if the log does not know this one.
      for (const after of new Set([state.seq, 0])) {
        const begun = yield* begin(source, after, [])
        if (Option.isSome(begun)) return begun
      }
      return yield* beginNew(source)
    })

  const noteOwner = ({ channel, keep, owner, timeLimit }: Source) =>
    owner === undefined ? Effect.void : untilAnswered(log.append(
      Stored.channelOfOwner(owner),
      textEncoder.encode(channel),
      { retention: { capacity: Number.POSITIVE_INFINITY, maxAge: keep + timeLimit } }
    ))

  const produce = (run: Run) =>
    run.source.run(emit(run)).pipe(
      Effect.timeoutTo({
        duration: run.source.timeLimit,
        onSuccess: identity,
        onTimeout: () => Stored.stopped("TimeLimit")
      }),
      Effect.map((end) => finish(run, end)),
      Effect.withSpan("ResumableStream.run", { attributes: { channel: run.source.channel }, captureStackTrace: false })
    )

  /** Runs a source in a fiber of its own, and returns false if the log refuses its beginning. */
  const runFrom = (source: Source, beginning: Effect.Effect<Option.Option<Cursor>, EventLogError>) =>
    Effect.suspend(() => {
      if (isClosed) return Effect.interrupt
      const begun = Deferred.unsafeMake<boolean, EventLogError>(FiberId.none)
      const running = Effect.withFiberRuntime<void, EventLogError>((fiber) =>
        Effect.flatMap(
          beginning,
          Option.match({
            onNone: () => Deferred.succeed(begun, false),
            onSome: (place) =>
              Effect.flatMap(Clock.currentTimeMillis, (now) => {
                const run = new Run(source, now, place)
                run.producer = fiber
                runs.set(source.channel, run)
                if (isClosed) finish(run, Stored.stopped("Shutdown"))
                return presence.set(Stored.leaseOf(source.channel), 1).pipe(
                  Effect.zipRight(noteOwner(source)),
                  Effect.zipRight(Deferred.succeed(begun, true)),
                  Effect.zipRight(produce(run))
                )
              })
          })
        ).pipe(Effect.asVoid)
      ).pipe(
        Effect.catchAll((error) => Effect.asVoid(Deferred.fail(begun, error))),
        Effect.ensuring(Deferred.interrupt(begun)),
        Effect.interruptible
      )
      return Effect.zipRight(FiberSet.run(producers, running), Deferred.await(begun))
    })

  const stop: Runs["stop"] = (channel, reason, keep) =>
    Effect.suspend(() => {
      const run = runs.get(channel)
      if (run === undefined) return end(channel, reason, keep)
      const isProducing = run.state._tag === "Producing"
      finish(run, Stored.stopped(reason))
      return Effect.as(Effect.zipRight(interrupt(run), Deferred.await(run.ended)), isProducing)
    })

  yield* tail.follow(Stored.controlChannel)
  yield* Effect.forkScoped(observe)
  yield* Effect.forkScoped(write)
  // The time is real: the clock of a test does not advance.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      isClosed = true
      const open = Array.from(runs.values())
      for (const run of open) finish(run, Stored.stopped("Shutdown"))
      return Effect.forEach(open, interrupt, { discard: true }).pipe(
        Effect.zipRight(Effect.forEach(open, ({ ended }) => Deferred.await(ended), { discard: true })),
        Effect.interruptible,
        Effect.timeoutOption("1 second"),
        Effect.withClock(Clock.make()),
        // Those whose end the log has not taken: nothing waits for it any more.
        Effect.zipRight(Effect.forEach(open, remove, { discard: true }))
      )
    })
  )

  const service: Runs = {
    start: (source) =>
      Effect.suspend(() => runs.has(source.channel) ? Effect.succeed(false) : runFrom(source, beginNew(source))),
    takeOver: (source, last) => runFrom(source, begin(source, last.seq, [wakeUp(source.channel)])),
    stop,
    complete,
    isLeased: (channel) =>
      Effect.suspend(() =>
        runs.has(channel)
          ? Effect.succeed(true)
          : Effect.map(presence.others(Stored.leaseOf(channel)), (others) => others > 0)
      )
  }
  return service
})

const entryOf = (channel: string, data: Uint8Array, after: number, maxAge: number): NewEntry => ({
  channel,
  data,
  after,
  retention: { capacity: Number.POSITIVE_INFINITY, maxBytes: Number.POSITIVE_INFINITY, maxAge }
})

/** Lets the node that runs the stream of a channel look at it. */
const wakeUp = (channel: string): NewEntry => ({
  channel: Stored.controlChannel,
  data: textEncoder.encode(channel)
})

const logWarning = (message: string) => annotateWith("ResumableStream")(Effect.logWarning(message))

const textEncoder = new TextEncoder()
const textDecoder = new TextDecoder()
/** The length of the elements of a run that are not appended, in characters, from which its producer waits. */
const maxLength = 64 * 1024
/** The length of a batch that does not wait for the window, and of an event with more than one part. */
const maxBatchLength = 256 * 1024
const maxBatch = 1000
const untilAvailable = backoff("100 millis", "5 seconds")
