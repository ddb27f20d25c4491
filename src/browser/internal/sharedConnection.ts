import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

import type { EventSourceError } from "../EventSourceError.js"
import * as Page from "./page.js"
import type { Session, Signal } from "./signal.js"
import { follow, resync } from "./signal.js"
import * as SignalBuffer from "./signalBuffer.js"

/** Tests for the APIs that tabs share a connection by. Browsers have Web Locks in secure contexts only. */
export const isSupported = (): boolean =>
  typeof BroadcastChannel === "function" && typeof navigator === "object" && "locks" in navigator

/** A message between tabs. `term` names one period in which one tab leads. */
type Message =
  // Asks the leader for its state. The reply shows that the leader is alive.
  | { readonly _tag: "Hello" }
  | { readonly _tag: "State"; readonly term: string; readonly isOpen: boolean; readonly lastEventId: string }
  | { readonly _tag: "Lead"; readonly term: string }
  | { readonly _tag: "Signal"; readonly term: string; readonly signal: Signal }
  | { readonly _tag: "Over"; readonly term: string }

/**
 * Makes a stream of one connection that all tabs share. The tab that holds a Web Lock leads: it connects, and posts its
 * signals on a BroadcastChannel.
 *
 * Every tab reads the channel, the leader too. The channel has one order for all messages. After `Lead`, only signals
 * of that term count. So a leader that was suspended, and has lost the lock without noticing, disturbs no tab, and
 * the next leader resumes exactly after the last signal that all tabs have.
 *
 * A tab that receives nothing from the leader for two thirds of a heartbeat sends a probe. The leader replies even if
 * the browser throttles its timers. After the same time without a reply the tab steals the lock.
 */
export const make = (
  name: string,
  session: Session,
  connections: Stream.Stream<Signal, EventSourceError>,
  heartbeat: Duration.DurationInput
): Stream.Stream<Signal, EventSourceError> => {
  const buffer = SignalBuffer.make()
  return Stream.asyncPush<Signal, EventSourceError>((emit) => {
    const position = { ...session }
    let isOpen = false
    const emitSignal = (signal: Signal, mayHaveMissed = false) => {
      if (signal._tag !== "Frame") isOpen = signal._tag === "Open"
      // The connection resumes from another id than the last one of this tab.
      const isElsewhere = signal._tag === "Open" && position.lastEventId !== "" &&
        position.lastEventId !== signal.lastEventId
      follow(position, signal)
      buffer.offer(signal, emit.single)
      if (isElsewhere || mayHaveMissed) buffer.offer(resync("Unknown"), emit.single)
    }

    // Runs from the time that the page is shown until it is hidden. Returns true when the stream has ended.
    const visit = Effect.gen(function*() {
      const returned = yield* Effect.makeLatch()
      const [sender, receiver] = yield* Effect.acquireRelease(
        Effect.sync(() => [new BroadcastChannel(name), new BroadcastChannel(name)] as const),
        ([sender, receiver]) => Effect.sync(() => [sender.close(), receiver.close()])
      )
      let term: string | undefined
      let isHidden = false
      let sawLeader = false
      let isProbing = true
      let lead: { readonly term: string; readonly posted: Session; isOpen: boolean } | undefined
      let resign = () => {}
      let onOwnMessage = () => {}
      const post = (message: Message) => isHidden ? undefined : sender.postMessage(message)
      const postAndAwait = (message: Message) =>
        Effect.async<void>((resume) => {
          onOwnMessage = () => resume(Effect.void)
          post(message)
        })

      yield* Page.onHide(() => {
        if (isHidden) return
        isHidden = true
        sender.close()
        receiver.close()
        resign()
        if (isOpen) emitSignal({ _tag: "Lost", error: { reason: "Suspended" } })
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
          if (isOpen) emitSignal({ _tag: "Lost", error: { reason: "Handover" } })
          if (lead?.term !== term) resign()
        }
        if (message._tag === "State" && message.term !== term && (term === undefined || isProbing)) {
          term = message.term
          const mayHaveMissed = position.lastEventId === "" && position.hasOpened
          if (message.isOpen) emitSignal({ _tag: "Open", lastEventId: message.lastEventId }, mayHaveMissed)
        }
        if (message.term !== term) return
        sawLeader = true
        isProbing = false
        if (message._tag === "Signal") emitSignal(message.signal)
        if (message.term === lead?.term && message._tag !== "Signal" && message._tag !== "State") onOwnMessage()
      }
      post({ _tag: "Hello" })

      const leaderSilence = Effect.sync(() => {
        if (!sawLeader && isProbing) return true
        isProbing = !sawLeader
        if (isProbing) post({ _tag: "Hello" })
        sawLeader = false
        return false
      }).pipe(
        Effect.delay(Duration.times(heartbeat, 2 / 3)),
        Effect.repeat({ until: (isSilent) => isSilent })
      )

      // Waits for the lock, and leads until it is lost.
      const leadOnce = Effect.gen(function*() {
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
        const lock = (isStolen: boolean) => acquireLock(name, isStolen, abort.signal, () => resign())
        yield* Effect.raceFirst(lock(false), Effect.zipRight(leaderSilence, lock(true)))
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
          // Every tab has read the signals before this message when the leader reads it.
          yield* postAndAwait({ _tag: "Over", term: own.term })
          return yield* Effect.as(exit, true)
        }).pipe(Effect.raceFirst(Effect.as(lost.await, false)))
      })

      return yield* Effect.scoped(leadOnce).pipe(
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

/** Waits for the lock, or steals it from the tab that holds it, and holds it until the signal aborts. */
const acquireLock = (name: string, isStolen: boolean, signal: AbortSignal, onLost: () => void): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    let isAcquired = false
    navigator.locks.request(name, isStolen ? { steal: true } : { signal }, () => {
      if (signal.aborted) return
      isAcquired = true
      resume(Effect.void)
      return new Promise<void>((release) => signal.addEventListener("abort", () => release()))
    }).catch(() => {
      if (signal.aborted) return
      if (isAcquired) onLost()
      // Where the browser refuses locks, each tab leads.
      else resume(Effect.void)
    })
  })
