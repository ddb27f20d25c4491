import * as Duration from "effect/Duration"

import * as ServerSentEvent from "../../ServerSentEvent.js"
import { EventSourceError } from "../EventSourceError.js"

/** Upper limit of a delay that a server asks for, in milliseconds. A timer of 25 days or more would never fire. */
export const maxDelay = 3_600_000

/** Returns the error of a response that is no event stream. 204 is the regular end, and no error. */
export const fromResponse = (
  { headers, status }: Response,
  now: number,
  hasFreshHeaders: boolean
): EventSourceError | undefined => {
  if (status === 204) return undefined
  if (status === 200) {
    return ServerSentEvent.isContentType(headers.get("content-type"))
      ? undefined
      : new EventSourceError({ reason: "NotEventStream", status })
  }
  if ((status === 401 || status === 403) && hasFreshHeaders) {
    return new EventSourceError({ reason: "Unauthorized", status })
  }
  return status >= 500 || status === 408 || status === 425 || status === 429
    ? new EventSourceError({ reason: "Unavailable", status, retryAfter: retryAfterOf(headers, now) })
    : new EventSourceError({ reason: "Rejected", status })
}

/** Tests for a response that a request without an id may not get: the URI or the headers are too large. */
export const isTooLong = ({ status }: EventSourceError): boolean => status === 414 || status === 431

// A date in Retry-After is of the server's clock, which the header Date shows where the page can read it.
const retryAfterOf = (headers: Headers, now: number): Duration.Duration | undefined => {
  const header = headers.get("retry-after")?.trim()
  if (header === undefined || header === "") return undefined
  const date = Date.parse(headers.get("date") ?? "")
  const millis = /^\d+$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - (Number.isNaN(date) ? now : date)
  return Number.isNaN(millis) ? undefined : Duration.millis(Math.min(Math.max(0, millis), maxDelay))
}
