import type { IncomingHttpHeaders } from "node:http2"
import type { Readable } from "node:stream"

import type * as Headers from "@effect/platform/Headers"

import type { Transmission } from "../../WebPush.js"
import { maxResponseBytes } from "../../WebPush.js"

export interface Head {
  readonly status: number | undefined
  readonly headers: IncomingHttpHeaders
}

/** A response that was read completely. */
export interface Answer extends Head {
  readonly status: number
  readonly body: Buffer<ArrayBuffer> | null
}

/** One request and its response. Only the first call of `succeed` or `fail` has an effect. */
export interface Exchange {
  readonly method: string
  readonly url: URL
  readonly headers: Headers.Headers
  readonly body: Uint8Array
  readonly transmission: Transmission["Type"]
  readonly succeed: (answer: Answer) => void
  readonly fail: (cause: unknown) => void
  /** Action of an interruption, set by the part of the transport that currently processes the exchange. */
  cancel: () => void
}

/** Makes an error with a code, as Node's own errors have one. */
export const transportError = (code: string, cause?: unknown) => Object.assign(new Error(code, { cause }), { code })

/** Counts a transmission, or with -1 removes one that the service did not process. */
export const addSent = ({ transmission }: Exchange, count: 1 | -1) => {
  transmission.sent = (transmission.sent ?? 0) + count
}

/** Fails the exchange if Node throws: for a header that it refuses, and for a session that has just ended. */
export const attempt = (exchange: Exchange, run: () => void) => {
  try {
    run()
  } catch (cause) {
    exchange.fail(cause)
  }
}

/**
 * Collects the body of a response. Returns a function that completes the exchange, to be called at the end of the
 * body. A body that is longer than that of any push service is cut off: the exchange completes, and `stop` is called.
 */
export const collect = (
  exchange: Exchange,
  source: Readable,
  head: () => Head,
  stop: () => void
): () => void => {
  const chunks: Array<Buffer> = []
  let size = 0
  const done = () => {
    const { headers: read, status = 0 } = head()
    // Its reader needs no stream for an empty body.
    const headers = size === 0 ? { "content-length": "0", ...read } : read
    // `Response` allows no body for these, and no status outside of 200 to 599.
    const body = size === 0 || status === 204 || status === 205 || status === 304 ? null : Buffer.concat(chunks)
    if (status < 200 || status > 599) exchange.fail(transportError("HPE_INVALID_STATUS"))
    else exchange.succeed({ status, headers, body })
  }
  source.on("data", (chunk: Buffer) => {
    chunks.push(chunk)
    size += chunk.length
    if (size > maxResponseBytes) {
      done()
      stop()
    }
  })
  return done
}

export const hostOf = ({ hostname }: URL): string => hostname.replace(/^\[|\]$/g, "")

export const portOf = ({ port }: URL): number => port === "" ? 443 : Number(port)
