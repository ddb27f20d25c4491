import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

import type { ServerSentEvent } from "../../ServerSentEvent.js"
import type { EventSourceError } from "../EventSourceClient.js"
import * as Page from "./page.js"

/** An observation of a connection. It is posted from tab to tab, and so is plain data. `retryAfter` in milliseconds. */
export type Signal =
  | { readonly _tag: "Open"; readonly lastEventId: string }
  | {
    readonly _tag: "Lost"
    readonly error: Pick<EventSourceError, "reason" | "status"> & { readonly retryAfter?: number | undefined }
  }
  | { readonly _tag: "Frame"; readonly frame: ServerSentEvent }

/** The state that the next connection resumes from. `retry` in milliseconds. */
export interface Session {
  lastEventId: string
  retry: number | undefined
  /** The id that the server found too large. */
  refusedId: string | undefined
  hasOpened: boolean
  hasEvents: boolean
}

/** Takes note of what the next connection resumes from. */
export const follow = (session: Session, signal: Signal): void => {
  if (signal._tag === "Open") {
    session.lastEventId = signal.lastEventId
    session.hasOpened = true
  }
  if (signal._tag !== "Frame") return
  session.lastEventId = signal.frame.id ?? session.lastEventId
  session.retry = signal.frame.retry ?? session.retry
  session.hasEvents = session.hasEvents || signal.frame.data !== undefined
}

/** Returns the event by which the client itself says that events may have been missed. */
export const resync = (reason: "NoIds" | "Unknown" | "Unsendable"): Signal => ({
  _tag: "Frame",
  frame: { event: "resync", data: JSON.stringify({ reason }) }
})

/** The signals that wait for a reader. */
export interface Buffer {
  readonly offer: (signal: Signal, emit: (signal: Signal) => unknown) => void
  readonly take: (signal: Signal) => Signal
}

/**
 * Bounds the signals that wait where nothing slows the sender down: events beyond 1,000, or 16 Mi characters, are dropped, and the
 * event `gap` stands in their place, as a server has it: before the next event, or once the reader has taken all that waited.
 */
export const makeBuffer = (): Buffer => {
  const sizeOf = (signal: Signal) => signal._tag === "Frame" ? String(signal.frame.data).length : 0
  let signals = 0
  let size = 0
  let dropped = 0
  let droppedId: string | undefined
  let flush = () => {}
  const add = (signal: Signal, emit: (signal: Signal) => unknown) => {
    signals++
    size += sizeOf(signal)
    emit(signal)
  }
  return {
    offer: (signal, emit) => {
      const isEvent = signal._tag === "Frame" && signal.frame.event !== "end" && signal.frame.event !== "resync"
      if (isEvent && (signals >= 1_000 || size >= 16 * 1024 * 1024)) {
        dropped++
        droppedId = signal.frame.id ?? droppedId
        flush = () => {
          const frame = { event: "gap", data: JSON.stringify({ dropped }), id: droppedId }
          dropped = 0
          droppedId = undefined
          flush = () => {}
          add({ _tag: "Frame", frame }, emit)
        }
        return
      }
      flush()
      add(signal, emit)
    },
    take: (signal) => {
      signals--
      size -= sizeOf(signal)
      // The next event may never come.
      if (signals === 0) flush()
      return signal
    }
  }
}

/** Web Locks are for secure contexts alone. */
export const isSupported = (): boolean =>
  typeof BroadcastChannel === "function" && typeof navigator === "object" && "locks" in navigator

/** A message between the tabs. `term` names one time of one tab at the lead. */
type Message =
  // Asks the leader for its state, which is a sign of life.
  | { readonly _tag: "Hello" }
  | { readonly _tag: "State"; readonly term: string; readonly isOpen: boolean; readonly lastEventId: string }
  | { readonly _tag: "Lead"; readonly term: string }
  | { readonly _tag: "Signal"; readonly term: string; readonly signal: Signal }
  | { readonly _tag: "Over"; readonly term: string }

/**
 * One connection for all tabs: the tab that holds a lock has it, and posts what it observes.
 *
 * Every tab, the leader too, reads the channel, where all messages stand in one order. From `Lead` on the signals of that
 * term count and no others. So a leader that stood still, and has lost the lead before it noticed, disturbs no tab, its own
 * included, and the next one resumes exactly where the last one was.
 *
 * A tab that observes nothing of the leader for two thirds of a heartbeat asks for a sign of life, which is given whatever the
 * browser does to timers; after as long without an answer it takes the lock away.
 */
export const make = (
  name: string,
  session: Session,
  connections: Stream.Stream<Signal, EventSourceError>,
  heartbeat: Duration.DurationInput
): Stream.Stream<Signal, EventSourceError> => {
  const buffer = makeBuffer()
  return Stream.asyncPush<Signal, EventSourceError>((emit) => {
    const position = { ...session }
    let isOpen = false
    const tell = (signal: Signal, isMissing = false) => {
      if (signal._tag !== "Frame") isOpen = signal._tag === "Open"
      // The connection resumes from elsewhere than this tab has got to.
      const isElsewhere = signal._tag === "Open" && position.lastEventId !== "" &&
        position.lastEventId !== signal.lastEventId
      follow(position, signal)
      buffer.offer(signal, emit.single)
      if (isElsewhere || isMissing) buffer.offer(resync("Unknown"), emit.single)
    }

    // From the time that the page comes until it goes. Returns true when the stream has ended.
    const visit = Effect.gen(function*() {
      const returned = yield* Effect.makeLatch()
      const [sender, receiver] = yield* Effect.acquireRelease(
        Effect.sync(() => [new BroadcastChannel(name), new BroadcastChannel(name)] as const),
        ([sender, receiver]) => Effect.sync(() => [sender.close(), receiver.close()])
      )
      let term: string | undefined
      let isAway = false
      let isHeard = false
      let isAsking = true
      let lead: { readonly term: string; readonly posted: Session; isOpen: boolean } | undefined
      let resign = () => {}
      let onEcho = () => {}
      const post = (message: Message) => isAway ? undefined : sender.postMessage(message)
      const postAndAwait = (message: Message) =>
        Effect.async<void>((resume) => {
          onEcho = () => resume(Effect.void)
          post(message)
        })

      yield* Page.onHide(() => {
        if (isAway) return
        isAway = true
        sender.close()
        receiver.close()
        resign()
        if (isOpen) tell({ _tag: "Lost", error: { reason: "Suspended" } })
        Page.onReturn(() => returned.unsafeOpen())
      })

      receiver.onmessage = ({ data: message }: MessageEvent<Message>) => {
        if (message._tag === "Hello") {
          if (lead === undefined) return
          const { isOpen, posted: { lastEventId }, term } = lead
          return post({ _tag: "State", term, isOpen, lastEventId })
        }
        if (message._tag === "Lead") {
          term = message.term
          if (isOpen) tell({ _tag: "Lost", error: { reason: "Handover" } })
          if (lead?.term !== term) resign()
        }
        if (message._tag === "State" && message.term !== term && (term === undefined || isAsking)) {
          term = message.term
          const isMissing = position.lastEventId === "" && position.hasOpened
          if (message.isOpen) tell({ _tag: "Open", lastEventId: message.lastEventId }, isMissing)
        }
        if (message.term !== term) return
        isHeard = true
        isAsking = false
        if (message._tag === "Signal") tell(message.signal)
        if (message.term === lead?.term && message._tag !== "Signal" && message._tag !== "State") onEcho()
      }
      post({ _tag: "Hello" })

      const silence = Effect.sync(() => {
        if (!isHeard && isAsking) return true
        isAsking = !isHeard
        if (isAsking) post({ _tag: "Hello" })
        isHeard = false
        return false
      }).pipe(
        Effect.delay(Duration.times(heartbeat, 2 / 3)),
        Effect.repeat({ until: (isSilent) => isSilent })
      )

      // Waits for the lead, and has it until it is lost.
      const attempt = Effect.gen(function*() {
        const lost = yield* Effect.makeLatch()
        const abort = yield* Effect.acquireRelease(
          Effect.sync(() => new AbortController()),
          (abort) => Effect.sync(() => abort.abort())
        )
        resign = () => {
          lead = undefined
          abort.abort()
          lost.unsafeOpen()
        }
        const lock = (isTaken: boolean) => acquireLock(name, isTaken, abort.signal, () => resign())
        yield* Effect.raceFirst(lock(false), Effect.zipRight(silence, lock(true)))
        const own = { term: crypto.randomUUID(), posted: { ...session }, isOpen: false }
        lead = own
        return yield* Effect.gen(function*() {
          yield* postAndAwait({ _tag: "Lead", term: own.term })
          Object.assign(session, position)
          Object.assign(own.posted, position)
          const exit = yield* Effect.exit(Stream.runForEach(connections, (signal) =>
            Effect.sync(() => {
              if (lead !== own) return
              if (signal._tag !== "Frame") own.isOpen = signal._tag === "Open"
              follow(own.posted, signal)
              post({ _tag: "Signal", term: own.term, signal })
            })))
          // The signals before it are read by then.
          yield* postAndAwait({ _tag: "Over", term: own.term })
          return yield* Effect.as(exit, true)
        }).pipe(Effect.raceFirst(Effect.as(lost.await, false)))
      })

      return yield* Effect.scoped(attempt).pipe(
        Effect.repeat({ until: (isOver) => isOver }),
        Effect.raceFirst(Effect.as(returned.await, false))
      )
    })

    return Effect.scoped(visit).pipe(
      Effect.repeat({ until: (isOver) => isOver }),
      Effect.matchCauseEffect({
        onFailure: (cause) => Effect.sync(() => emit.halt(cause)),
        onSuccess: () => Effect.sync(() => emit.end())
      }),
      Effect.forkScoped
    )
  }, { bufferSize: "unbounded" }).pipe(Stream.map(buffer.take))
}

/** Waits for the lock, or takes it away from the tab that holds it, and holds it until the signal. */
const acquireLock = (name: string, isTaken: boolean, signal: AbortSignal, onLost: () => void): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    let isHeld = false
    navigator.locks.request(name, isTaken ? { steal: true } : { signal }, () => {
      if (signal.aborted) return
      isHeld = true
      resume(Effect.void)
      return new Promise<void>((release) => signal.addEventListener("abort", () => release()))
    }).catch(() => {
      if (signal.aborted) return
      if (isHeld) onLost()
      // Where there are no locks to be had, each tab leads.
      else resume(Effect.void)
    })
  })
