/** The events of a page that concern its connections. */
export interface Listener {
  /** Called when the page is online again, or returns from being frozen or from the back/forward cache. */
  readonly onWake: () => void
  /** Called when the page is visible again, which alone does not mean that the connection was lost. */
  readonly onVisible: () => void
  /** Called when the page is hidden for good, or frozen: then it does not run, and its connections stay open. */
  readonly onHide: () => void
}

/** Observes the page until the signal aborts. Does nothing outside of a page. */
export const observe = ({ onHide, onVisible, onWake }: Listener, signal: AbortSignal): void => {
  if (typeof addEventListener !== "function") return
  let isWaking = false
  const wake = () => {
    if (isWaking) return
    isWaking = true
    // A page that returns from the cache fires `resume` and then `pageshow`. Both are one wake-up.
    setTimeout(() => {
      isWaking = false
      if (!signal.aborted) onWake()
    })
  }
  addEventListener("online", wake, { signal })
  addEventListener("pageshow", ({ persisted }) => persisted && wake(), { signal })
  addEventListener("pagehide", onHide, { signal })
  if (typeof document !== "object") return
  document.addEventListener("resume", wake, { signal })
  document.addEventListener("freeze", onHide, { signal })
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && onVisible(), { signal })
}
