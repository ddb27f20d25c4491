import * as Https from "node:https"
import type * as Net from "node:net"
import type { Duplex } from "node:stream"
import { PassThrough } from "node:stream"
import * as Tls from "node:tls"

import type { Exchange } from "./exchange.js"
import { addSent, attempt, collect, hostOf, portOf, transportError } from "./exchange.js"
import type { Done } from "./proxy.js"

/**
 * The agent of the origins that do not speak HTTP/2. Its first connection is the one whose ALPN has selected
 * HTTP/1.1.
 */
export class Http1Agent extends Https.Agent {
  readonly connected = new Map<string, Tls.TLSSocket>()
  isClosed = false
  private readonly openTunnel: (url: URL, done: Done) => (() => void) | undefined
  constructor(options: Https.AgentOptions, openTunnel: (url: URL, done: Done) => (() => void) | undefined) {
    super(options)
    this.openTunnel = openTunnel
  }
  override createConnection(options: Https.RequestOptions, callback?: (error: Error | null, stream: Duplex) => void) {
    // When a socket is destroyed, Node connects again for the requests that waited for it.
    if (this.isClosed) {
      callback?.(transportError("ERR_CLIENT_CLOSED"), new PassThrough())
      return undefined
    }
    const key = `${options.host}:${options.port}`
    const socket = this.connected.get(key)
    this.connected.delete(key)
    if (socket !== undefined && !socket.destroyed) return socket
    const host = String(options.host)
    const url = new URL(`https://${host.includes(":") ? `[${host}]` : host}:${options.port}`)
    const stop = this.openTunnel(url, (error, socket) => {
      if (socket === undefined) return callback?.(error ?? null, new PassThrough())
      const tunnel: Https.RequestOptions & { readonly socket: Net.Socket } = { ...options, socket }
      const secure = super.createConnection(tunnel)
      return secure ? callback?.(null, secure) : undefined
    })
    return stop === undefined ? super.createConnection(options, callback) : undefined
  }
}

/** Destroys the idle connections of the origin. */
const dropIdle = (agent: Http1Agent, url: URL) => {
  const name = `${hostOf(url)}:${portOf(url)}:`
  for (const [key, idle] of Object.entries(agent.freeSockets)) {
    if (key.startsWith(name)) { for (const socket of idle ?? []) socket.destroy() }
  }
}

/** Sends the request of an exchange, and once more if it met the end of an idle connection. */
export const send = (agent: Http1Agent, exchange: Exchange, isSecondAttempt = false) => {
  const { body, headers, method, url } = exchange
  const request = Https.request(url, { agent, method, headers })
  const bytesRead = () => request.socket?.bytesRead ?? 0
  let bytesBefore = 0
  let isOver = false
  const fail = (cause: unknown) => {
    if (isOver) return
    isOver = true
    const wasIdle = request.reusedSocket && bytesRead() === bytesBefore
    if (wasIdle && !isSecondAttempt && !agent.isClosed) {
      // The service closed an idle connection while the request was in transit.
      dropIdle(agent, url)
      return attempt(exchange, () => send(agent, exchange, true))
    }
    exchange.fail(cause)
  }
  exchange.cancel = () => {
    isOver = true
    // A network that has dropped this connection has dropped the other idle ones as well.
    if (request.reusedSocket && bytesRead() === bytesBefore) dropIdle(agent, url)
    request.destroy()
  }
  request.on("socket", (socket) => {
    bytesBefore = socket.bytesRead
    if (socket instanceof Tls.TLSSocket && !socket.authorized) {
      socket.once("secureConnect", () => addSent(exchange, 1))
    } else addSent(exchange, 1)
  })
  // A response that was read completely is followed by this event as well.
  const close = () => {
    if (!isOver) fail(transportError("ECONNRESET"))
  }
  request.on("error", fail)
  request.on("close", close)
  request.on("response", (response) => {
    // The connection does not belong to the host (RFC 9110, 15.5.20).
    if (response.statusCode === 421) request.shouldKeepAlive = false
    const done = collect(
      exchange,
      response,
      () => ({ status: response.statusCode, headers: response.headers }),
      () => response.destroy()
    )
    response.on("end", () => {
      isOver = true
      done()
    })
    response.on("error", fail)
    response.on("close", close)
  })
  request.end(body)
}
