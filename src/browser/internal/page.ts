import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/**
 * Waits until the page wakes up: it is online again, it returns from the back/forward cache or from being frozen, or
 * it is visible again and the connection is stale. Never completes outside of a page.
 */
export const awaken = (isStale: () => boolean): Effect.Effect<void> =>
  Effect.async((resume) => {
    if (typeof addEventListener !== "function") return
    const abort = new AbortController()
    const listen = (target: EventTarget, type: string, isAwake: (event: Event) => boolean) =>
      target.addEventListener(type, (event) => {
        if (!isAwake(event)) return
        abort.abort()
        afterEvents(() => resume(Effect.void))
      }, { signal: abort.signal })
    listen(globalThis, "online", () => true)
    listen(globalThis, "pageshow", (event) => "persisted" in event && event.persisted === true)
    if (typeof document === "object") {
      listen(document, "resume", () => true)
      listen(document, "visibilitychange", () => document.visibilityState === "visible" && isStale())
    }
    return Effect.sync(() => abort.abort())
  })

// A page that returns from the cache fires `resume` and then `pageshow`. Both are one wake-up.
const afterEvents = (listener: () => void) => void setTimeout(listener)

/** Calls the listener once, when the page returns from the back/forward cache or from being frozen. */
export const onReturn = (listener: () => void): void => {
  const abort = new AbortController()
  const onEvent = () => {
    abort.abort()
    afterEvents(listener)
  }
  globalThis.addEventListener("pageshow", onEvent, { signal: abort.signal })
  document.addEventListener("resume", onEvent, { signal: abort.signal })
}

/**
 * Calls the listener when the page is hidden for good or frozen, until the scope closes. A frozen page does not run,
 * but its connections would stay open, and the server would count it as present.
 */
export const onHide = (listener: () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() => {
      const abort = new AbortController()
      if (typeof addEventListener === "function") addEventListener("pagehide", listener, { signal: abort.signal })
      if (typeof document === "object") document.addEventListener("freeze", listener, { signal: abort.signal })
      return abort
    }),
    (abort) => Effect.sync(() => abort.abort())
  ))
