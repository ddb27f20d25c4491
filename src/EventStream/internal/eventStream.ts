import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Prototype } from "effect/Pipeable"

import type { EventStream, ResponseOptions } from "../../EventStream.js"
import { Connection, type Settings } from "./connection.js"

export const TypeId = "~effect-realtime/EventStream"

export const fromConnection = (connection: Connection): EventStream => ({ ...Prototype, [TypeId]: connection })

/**
 * Opens a connection, which ends with the request that it is opened in. Node's server interrupts the fiber of a request whose
 * client leaves; a web handler has none any more once it has responded, and a body that is neither read nor cancelled shows
 * nothing.
 */
export const open = (settings: Settings, clock: Clock.Clock): Effect.Effect<Connection> =>
  Effect.map(Effect.serviceOption(HttpServerRequest), (request) => {
    const connection = new Connection(settings, clock)
    const signal = Option.isSome(request) && request.value.source instanceof Request
      ? request.value.source.signal
      : undefined
    if (signal !== undefined) endWithSignal(connection, signal)
    return connection
  })

const endWithSignal = (connection: Connection, signal: AbortSignal): void => {
  const leave = () => connection.disconnect("Left")
  if (signal.aborted) leave()
  signal.addEventListener("abort", leave)
  connection.onStop(() => signal.removeEventListener("abort", leave))
}

/** Returns true in a HEAD request, which is answered by `head` and starts nothing. */
export const isHead: Effect.Effect<boolean> = Effect.map(
  Effect.serviceOption(HttpServerRequest),
  (request) => Option.isSome(request) && request.value.method === "HEAD"
)

/** The head of a stream, without the stream. */
export const head = (options: ResponseOptions): HttpServerResponse.HttpServerResponse =>
  withHeaders(HttpServerResponse.empty({ status: options.status ?? 200 }), options)

/** Adds the headers of a stream, and those of the options, which may override them. */
export const withHeaders = (
  response: HttpServerResponse.HttpServerResponse,
  options: ResponseOptions | undefined
): HttpServerResponse.HttpServerResponse =>
  response.pipe(
    HttpServerResponse.setHeaders({
      "content-type": "text/event-stream",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no"
    }),
    HttpServerResponse.setHeaders(options?.headers ?? {})
  )
