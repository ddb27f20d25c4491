/** The part of a client that the page wakes up. */
export interface Sleeper {
  /** Called when the page is hidden for good, or frozen: then it does not run, and its connections stay open. */
  readonly onHide: () => void
  /** Called when the page is online again, returns after `onHide`, or is visible again with a stale connection. */
  readonly onWake: () => void
  readonly isStale: () => boolean
}

/** Observes the page until the signal aborts. Does nothing outside of a page. */
export const observe = ({ isStale, onHide, onWake }: Sleeper, signal: AbortSignal): void => {
  if (typeof addEventListener !== "function") return
  let isHidden = false
  const hide = () => {
    isHidden = true
    onHide()
  }
  const wake = () => {
    isHidden = false
    onWake()
  }
  // A page that returns from the back/forward cache fires `resume` and then `pageshow`. Both are one wake-up.
  const show = () => isHidden && wake()
  addEventListener("online", wake, { signal })
  addEventListener("pageshow", show, { signal })
  addEventListener("pagehide", hide, { signal })
  if (typeof document !== "object") return
  document.addEventListener("resume", show, { signal })
  document.addEventListener("freeze", hide, { signal })
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && (isHidden || isStale())) wake()
  }, { signal })
}
