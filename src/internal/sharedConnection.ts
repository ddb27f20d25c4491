import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

import type { EventSourceError } from "../browser/EventSourceClient.js"
import type { ServerSentEvent } from "../ServerSentEvent.js"

/** What a connection tells. It goes from tab to tab, and so is plain data. `retryAfter` in milliseconds. */
export type Signal =
  | { readonly _tag: "Open"; readonly lastEventId: string }
  | {
    readonly _tag: "Lost"
    readonly error: Pick<EventSourceError, "reason" | "status"> & { readonly retryAfter?: number | undefined }
  }
  | { readonly _tag: "Frame"; readonly frame: ServerSentEvent }

/** What the next connection goes on from. `retry` in milliseconds. */
export interface Session {
  lastEventId: string
  retry: number | undefined
  hasOpened: boolean
}

/** Takes note of what the next connection goes on from. */
export const follow = (session: Session, signal: Signal): void => {
  if (signal._tag === "Open") {
    session.lastEventId = signal.lastEventId
    session.hasOpened = true
  }
  if (signal._tag !== "Frame") return
  session.lastEventId = signal.frame.id ?? session.lastEventId
  session.retry = signal.frame.retry ?? session.retry
}

/** Web Locks are for secure contexts alone. */
export const isSupported = (): boolean =>
  typeof BroadcastChannel === "function" && typeof navigator === "object" && "locks" in navigator

/**
 * One connection for all tabs: the tab that holds the lock has it and tells the others. They follow the session, so that
 * the one that gets the lock next resumes where the last one was.
 */
export const make = (
  name: string,
  session: Session,
  connections: Stream.Stream<Signal, EventSourceError>
): Stream.Stream<Signal, EventSourceError> =>
  Stream.asyncPush<Signal, EventSourceError>((emit) =>
    Effect.gen(function*() {
      const channel = yield* Effect.acquireRelease(
        Effect.sync(() => new BroadcastChannel(name)),
        (channel) => Effect.sync(() => channel.close())
      )
      let isOpen = false
      let isLeader = false
      const tell = (signal: Signal) => {
        // The tab that asks for it is not the only one to hear that the connection is open.
        if (signal._tag === "Open" && isOpen) return
        if (signal._tag !== "Frame") isOpen = signal._tag === "Open"
        emit.single(signal)
      }
      const tellAll = (signal: Signal) => {
        channel.postMessage(signal)
        tell(signal)
      }
      channel.onmessage = ({ data }: MessageEvent<Signal | typeof hello>) => {
        if (data === hello) {
          if (isLeader && isOpen) channel.postMessage({ _tag: "Open", lastEventId: session.lastEventId })
          return
        }
        // What the leader before had still to say comes again, after the id that this one went on from.
        if (isLeader) return
        follow(session, data)
        tell(data)
      }
      channel.postMessage(hello)

      const lead = (lock: Lock) =>
        Effect.gen(function*() {
          yield* lock.held
          isLeader = true
          if (isOpen) tellAll({ _tag: "Lost", error: { reason: "Handover" } })
          // A page that is put away has the connection no more, whatever still comes from it.
          yield* Stream.runForEach(connections, (signal) => Effect.sync(() => isLeader ? tellAll(signal) : undefined))
          return true
        })
      const stay = Effect.scoped(Effect.flatMap(
        makeLock(name, () => {
          isLeader = false
        }),
        (lock) => Effect.raceFirst(lead(lock), Effect.as(lock.returned, false))
      )).pipe(
        Effect.tap((isOver) => {
          if (isOver) return emit.end()
          if (isOpen) tell({ _tag: "Lost", error: { reason: "Suspended" } })
          channel.postMessage(hello)
        }),
        Effect.repeat({ until: (isOver) => isOver })
      )
      yield* Effect.forkScoped(Effect.catchAllCause(stay, (cause) => Effect.sync(() => emit.halt(cause))))
    }), { bufferSize: "unbounded" })

const hello = "hello"

interface Lock {
  readonly held: Effect.Effect<void>
  /** The page was put into the back/forward cache, where it has neither lock nor connection, and is back. */
  readonly returned: Effect.Effect<void>
}

const makeLock = (name: string, onPutAway: () => void) =>
  Effect.gen(function*() {
    const abort = new AbortController()
    const released = new Promise<void>((resolve) => abort.signal.addEventListener("abort", () => resolve()))
    yield* Effect.addFinalizer(() => Effect.sync(() => abort.abort()))
    const returned = new Promise<void>((resolve) => {
      if (typeof addEventListener !== "function") return
      // At once, and not when a fiber has its turn: by then the page is frozen, and the other tabs wait for its lock.
      addEventListener("pagehide", () => {
        onPutAway()
        abort.abort()
        addEventListener("pageshow", () => resolve(), { once: true })
      }, { signal: abort.signal })
    })
    const held = Effect.async<void>((resume) => {
      navigator.locks.request(name, { signal: abort.signal }, () => {
        resume(Effect.void)
        return released
      }).catch(() => abort.signal.aborted ? undefined : resume(Effect.void))
    })
    return { held, returned: Effect.promise(() => returned) }
  })
