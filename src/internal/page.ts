import * as Effect from "effect/Effect"

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
