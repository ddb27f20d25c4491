import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/**
 * Waits for the page to wake up: it is online again, it is back from the back/forward cache, or it is looked at again and
 * the connection is stale. Where there is no page, that is never.
 */
export const awaken = (isStale: () => boolean): Effect.Effect<void> =>
  Effect.async((resume) => {
    if (typeof addEventListener !== "function") return
    const abort = new AbortController()
    const listen = (target: EventTarget, type: string, isAwake: (event: Event) => boolean) =>
      target.addEventListener(type, (event) => {
        if (!isAwake(event)) return
        abort.abort()
        resume(Effect.void)
      }, { signal: abort.signal })
    listen(globalThis, "online", () => true)
    listen(globalThis, "pageshow", (event) => "persisted" in event && event.persisted === true)
    if (typeof document === "object") {
      listen(document, "visibilitychange", () => document.visibilityState === "visible" && isStale())
    }
    return Effect.sync(() => abort.abort())
  })

/**
 * Does something at the moment that the page goes away, for as long as the scope lasts. A page that goes to the back/forward cache
 * stands still there, with its connections open: the server would take it for one that is looked at.
 */
export const onHide = (listener: () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() => {
      if (typeof addEventListener === "function") addEventListener("pagehide", listener)
    }),
    () =>
      Effect.sync(() => {
        if (typeof removeEventListener === "function") removeEventListener("pagehide", listener)
      })
  ))
