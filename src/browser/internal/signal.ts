import type { Fields } from "../../ServerSentEvent.js"
import type { EventSourceError } from "../EventSourceError.js"

/** An observation of a connection. Tabs post it to each other, so it is plain data. `retryAfter` is in milliseconds. */
export type Signal =
  | { readonly _tag: "Open"; readonly lastEventId: string }
  | {
    readonly _tag: "Lost"
    readonly error: Pick<EventSourceError, "reason" | "status"> & { readonly retryAfter?: number | undefined }
  }
  | { readonly _tag: "Frame"; readonly frame: Fields }

/** The state that the next connection resumes from. `retry` is in milliseconds. */
export interface Session {
  lastEventId: string
  retry: number | undefined
  /** The id that the server refused as too large. */
  refusedId: string | undefined
  hasOpened: boolean
  hasEvents: boolean
}

/** Updates the session with a signal. */
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

/** Returns the event by which the client itself reports that events may have been missed. */
export const resync = (reason: "NoIds" | "Unknown" | "Unsendable"): Signal => ({
  _tag: "Frame",
  frame: { event: "resync", data: JSON.stringify({ reason }) }
})
