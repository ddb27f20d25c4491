import * as Http2 from "node:http2"
import type * as Tls from "node:tls"

import type { Exchange, Head } from "./exchange.js"
import { addSent, collect, transportError } from "./exchange.js"

// A network may drop a connection without a sign. A connection that was silent for this long is probed (PING) before
// it is used again, and is replaced if the response does not arrive in time.
const silentMillis = 1000
const pingMillis = 250

/** The connection to an origin that speaks HTTP/2. */
export interface Session {
  readonly _tag: "Http2"
  readonly session: Http2.ClientHttp2Session
  readonly socket: Tls.TLSSocket
  /** Removes the session from the origins, so that the next exchange opens another one. */
  readonly forget: () => void
  /** Streams of exchanges that are pending. */
  readonly streams: Set<Http2.ClientHttp2Stream>
  /** Exchanges that wait for the response to a PING. */
  checking: Set<Exchange> | undefined
  /** Time of the last sign of life, of `performance.now()`. */
  lastReadAt: number
  retired: boolean
  /** Code of the last GOAWAY, and the last stream that the service has processed. */
  goawayCode: number
  lastStreamId: number
}

/** Makes the connection. Call `retire` to replace it. */
export const make = (session: Http2.ClientHttp2Session, socket: Tls.TLSSocket, forget: () => void): Session => {
  const connection: Session = {
    _tag: "Http2",
    session,
    socket,
    forget,
    streams: new Set(),
    checking: undefined,
    lastReadAt: performance.now(),
    retired: false,
    goawayCode: Http2.constants.NGHTTP2_NO_ERROR,
    lastStreamId: Number.POSITIVE_INFINITY
  }
  session.on("goaway", (code, lastStreamId) => {
    connection.goawayCode = code
    connection.lastStreamId = lastStreamId
    retire(connection)
  })
  return connection
}

/** Uses the connection for no further exchange, and closes it after the pending ones. */
export const retire = (connection: Session) => {
  connection.forget()
  connection.retired = true
  if (connection.streams.size === 0) connection.socket.destroy()
}

const open = (connection: Session, exchange: Exchange) => {
  const { body, headers, method, url } = exchange
  const stream = connection.session.request(
    { ...headers, ":method": method, ":path": url.pathname + url.search },
    { endStream: body.length === 0 }
  )
  addSent(exchange, 1)
  connection.streams.add(stream)
  let head: Head = { status: undefined, headers: {} }
  stream.on("response", ({ ":status": status, ...headers }) => {
    connection.lastReadAt = performance.now()
    head = { status, headers }
    // The connection does not belong to the host (RFC 9110, 15.5.20).
    if (status === 421) retire(connection)
  })
  // On a dead connection the event "close" may not be emitted.
  const leave = () => {
    if (connection.streams.delete(stream) && connection.retired && connection.streams.size === 0) {
      connection.socket.destroy()
    }
  }
  const cancel = () => {
    stream.close(Http2.constants.NGHTTP2_CANCEL)
    leave()
  }
  const done = collect(exchange, stream, () => head, cancel)
  exchange.cancel = () => {
    // The connection may be dead, and not only this exchange.
    retire(connection)
    cancel()
  }
  stream.on("error", () => {})
  stream.on("close", () => {
    const { goawayCode, lastStreamId } = connection
    const { NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = Http2.constants
    // Node ends all streams with the code of a GOAWAY, also those that the service has processed.
    const isRefused = stream.id === undefined || stream.id > lastStreamId ||
      (stream.rstCode === NGHTTP2_REFUSED_STREAM && goawayCode === NGHTTP2_NO_ERROR)
    if (isRefused) {
      addSent(exchange, -1)
      exchange.fail(transportError("NGHTTP2_REFUSED_STREAM"))
    } else if (stream.rstCode === NGHTTP2_NO_ERROR) done() // A stream that was aborted emits "end" as well.
    else exchange.fail(transportError("ECONNRESET"))
    leave()
  })
  if (body.length > 0) stream.end(body)
}

/** Sends the request of an exchange. `dispatch` selects a connection again, after a probe of one that was silent. */
export const send = (connection: Session, exchange: Exchange, dispatch: (exchange: Exchange) => void) => {
  const isSilent = performance.now() - connection.lastReadAt >= silentMillis
  if (connection.checking === undefined && !isSilent) return open(connection, exchange)
  const waiting = connection.checking ?? check(connection, dispatch)
  waiting.add(exchange)
  exchange.cancel = () => waiting.delete(exchange)
}

const check = (connection: Session, dispatch: (exchange: Exchange) => void): Set<Exchange> => {
  const waiting = new Set<Exchange>()
  connection.checking = waiting
  const end = (isAlive: boolean) => {
    if (connection.checking !== waiting) return
    connection.checking = undefined
    connection.session.off("close", onClose)
    clearTimeout(timer)
    if (isAlive) connection.lastReadAt = performance.now()
    else retire(connection)
    for (const exchange of waiting) dispatch(exchange)
  }
  // On a busy machine the response may have arrived, but was not read yet.
  const timer = setTimeout(() => setImmediate(() => end(false)), pingMillis)
  const onClose = () => end(false)
  connection.session.once("close", onClose)
  connection.session.ping((error) => end(error === null))
  return waiting
}
