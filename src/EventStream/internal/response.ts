import * as Headers from "@effect/platform/Headers"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import type * as Stream from "effect/Stream"

/** The status and the headers of a response, as `EventStream.ResponseOptions` documents them. */
interface Options {
  readonly status?: number | undefined
  readonly headers?: Headers.Input | undefined
}

/** Throws `IllegalArgumentException` for a status that cannot be that of a final response. */
export const checkOptions = ({ status = 200 }: Options): void => {
  if (Number.isInteger(status) && status >= 200 && status <= 599) return
  throw new Cause.IllegalArgumentException("EventStream: status must be a whole number from 200 to 599")
}

/** Returns the response to a HEAD request: the head of an event stream, without the stream. */
export const head = (options: Options): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.empty(headOf(options))

/** Returns the response that carries the bytes of an event stream. */
export const stream = (
  body: Stream.Stream<Uint8Array>,
  options: Options
): HttpServerResponse.HttpServerResponse => HttpServerResponse.stream(body, headOf(options))

/**
 * Returns the status and the headers of an event stream. The headers of the options override them, except for the type
 * of the content.
 */
const headOf = ({ headers, status = 200 }: Options) => ({
  status,
  headers: {
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
    ...Headers.fromInput(headers),
    "content-type": "text/event-stream"
  }
})

/** Adds the headers of the options. A page of another origin cannot read the status of a response without them. */
export const withOwnHeaders = (
  response: HttpServerResponse.HttpServerResponse,
  { headers }: Options
): HttpServerResponse.HttpServerResponse =>
  headers === undefined ? response : HttpServerResponse.setHeaders(response, headers)
