import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/**
 * Waits for the page to wake up: it is online again, it is back from the back/forward cache or from being frozen, or it is
 * visible again and the connection is stale. Without a page, that is never.
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

// A page that is back from the cache fires `resume` and then `pageshow`, which are one awakening.
const afterEvents = (listener: () => void) => void setTimeout(listener)

/** Calls the listener once, when the page is back from the back/forward cache or from being frozen. */
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
 * Calls the listener at the moment that the page goes away or is frozen, for as long as the scope lasts. Such a page stands still
 * with its connections open: the server would take it for one that is looked at.
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
