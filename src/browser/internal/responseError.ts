import * as Duration from "effect/Duration"

import * as RetryAfter from "../../internal/retryAfter.js"
import * as ServerSentEvent from "../../ServerSentEvent.js"
import { EventSourceError } from "../EventSourceError.js"

/** Returns the error of a response that is no event stream. 204 is the regular end, and no error. */
export const fromResponse = (
  response: Response,
  now: number,
  hasFreshHeaders: boolean
): EventSourceError | undefined => {
  const { headers, status } = response
  if (status === 204) return undefined
  if (status === 200) {
    return ServerSentEvent.isContentType(headers.get("content-type"))
      ? undefined
      : new EventSourceError({ reason: "NotEventStream", status })
  }
  return refusal(response, now, hasFreshHeaders)
}

/** Returns the error of a response that refuses a request. */
export const refusal = (
  { headers, status }: Response,
  now: number,
  hasFreshHeaders: boolean
): EventSourceError => {
  if ((status === 401 || status === 403) && hasFreshHeaders) {
    return new EventSourceError({ reason: "Unauthorized", status })
  }
  return status >= 500 || status === 408 || status === 425 || status === 429
    ? new EventSourceError({ reason: "Unavailable", status, retryAfter: durationOf(RetryAfter.toMillis(headers, now)) })
    : new EventSourceError({ reason: "Rejected", status })
}

/** Tests for a response that a request without an id may not get: the URI or the headers are too large. */
export const isTooLong = ({ status }: EventSourceError): boolean => status === 414 || status === 431

const durationOf = (millis: number | undefined) => millis === undefined ? undefined : Duration.millis(millis)
