/**
 * The error of an `EventSourceClient`: the reason for which there is no connection.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * Error for a lost or refused connection. The client reconnects by itself after these reasons:
 *
 * - `Network`: the server could not be reached, or the connection broke (offline, a refused cross-origin request),
 * - `Ended`: the server ended the stream (`EventSource` reports this as `Network`),
 * - `Silent`: nothing arrived for twice the `heartbeat`,
 * - `Suspended`: the device slept, the page was frozen, or the network changed,
 * - `Unavailable`: the server answered 408, 425, 429 or 5xx. `retryAfter` is its `Retry-After`, where the page can read
 *   the header, and at most one hour,
 * - `Unauthorized`: the server answered 401 or 403, and `headers` is an effect, which runs again,
 * - `Closed`: the browser's `EventSource` closed the connection without a reason, or reconnected several times
 *   without a pause. The client sends the next request with `fetch`,
 * - `Handover`: the tab with the shared connection was closed, or stopped responding.
 *
 * These reasons are final:
 *
 * - `Rejected`: the server answered with another status,
 * - `NotEventStream`: the response is not `text/event-stream`,
 * - `TooLarge`: an event is larger than 16 Mi characters.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventSourceError extends Schema.TaggedError<EventSourceError>("effect-realtime/EventSourceError")(
  "EventSourceError",
  {
    reason: Schema.Literal(
      "Network",
      "Ended",
      "Silent",
      "Suspended",
      "Unavailable",
      "Unauthorized",
      "Closed",
      "Handover",
      "Rejected",
      "NotEventStream",
      "TooLarge"
    ),
    status: Schema.optional(Schema.Int),
    retryAfter: Schema.optional(Schema.Duration)
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return this.status === undefined ? messages[this.reason] : `${messages[this.reason]} (${this.status})`
  }

  /**
   * True if the client reconnects by itself.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return this.reason !== "Rejected" && this.reason !== "NotEventStream" && this.reason !== "TooLarge"
  }
}

const messages: Record<EventSourceError["reason"], string> = {
  Network: "The connection failed",
  Ended: "The server ended the stream",
  Silent: "No heartbeat arrived",
  Suspended: "The page was suspended, or the network changed",
  Unavailable: "The server is not available",
  Unauthorized: "The server did not accept the credentials",
  Closed: "EventSource closed the connection",
  Handover: "Another tab takes over the connection",
  Rejected: "The server refused the stream",
  NotEventStream: "The response is not an event stream",
  TooLarge: "An event is larger than 16 Mi characters"
}
