import type * as Http from "node:http"
import type { Duplex } from "node:stream"

import * as Predicate from "effect/Predicate"

/**
 * Requests that ask Node's server for another protocol.
 *
 * For them Node stops parsing the connection, takes its own listeners off and leaves the socket to the listener of
 * `upgrade`. Effect's listener is made for WebSocket; any other request it answers over that socket, which then has no
 * reader: the body of the request is lost, the leaving of the client is not seen, the socket is never closed, and the
 * end of the response is awaited for ever if the client has left.
 */

/**
 * Returns true for a request that is answered as if it asked for no other protocol. A server may ignore `Upgrade` (RFC
 * 9110, section 7.8), and HTTP/2 is no longer begun by `h2c` (RFC 9113, section 3.1), though clients still ask for it.
 */
export const isIgnored = (request: Http.IncomingMessage): boolean => {
  const protocols = tokensOf(request.headers.upgrade ?? "")
  return protocols.includes("h2c") && !protocols.includes("websocket")
}

/** Returns true while the connection owes a response to an earlier request. */
export const isAnswering = (socket: Duplex): boolean =>
  Predicate.hasProperty(socket, "_httpMessage") && Predicate.isNotNullable(socket._httpMessage)

/** Calls back with the response that an application makes for the socket: the server does not publish it. */
export const onResponse = (socket: Duplex, listener: (response: unknown) => void): void => {
  // Node assigns the response to the socket, and then adds a listener.
  socket.on("newListener", (event) => {
    if (event === "close" && Predicate.hasProperty(socket, "_httpMessage")) listener(socket._httpMessage)
  })
}

/**
 * Gives the connection back to the server, from the head of the request on, without what asked for another protocol.
 */
export const undo = (
  request: Http.IncomingMessage,
  socket: Duplex,
  head: Uint8Array,
  emit: (event: string, socket: Duplex) => boolean
): boolean => {
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`]
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    const name = request.rawHeaders[i] ?? ""
    const value = request.rawHeaders[i + 1] ?? ""
    if (isUpgradeToken(name.toLowerCase())) continue
    lines.push(
      name.toLowerCase() === "connection"
        ? `${name}: ${tokensOf(value).filter((token) => !isUpgradeToken(token)).join(", ")}`
        : `${name}: ${value}`
    )
  }
  socket.unshift(head)
  socket.unshift(Uint8Array.from(`${lines.join("\r\n")}\r\n\r\n`, (character) => character.charCodeAt(0)))
  return emit(Predicate.hasProperty(socket, "encrypted") ? "secureConnection" : "connection", socket)
}

/** Closes the socket once all is written to it, unless it has a reader by then. */
export const release = (socket: Duplex): void => {
  socket.once("finish", () => {
    if (socket.listenerCount("data") === 0) socket.destroy()
  })
}

/** Calls back when the client of an upgraded socket ends its side, which is only seen where the socket is read. */
export const onEnd = (request: Http.IncomingMessage, listener: () => void): void => {
  if (!Predicate.hasProperty(request, "upgrade") || request.upgrade !== true) return
  request.socket.once("end", listener)
  request.socket.resume()
}

const tokensOf = (value: string): ReadonlyArray<string> => value.toLowerCase().split(",").map((token) => token.trim())

const isUpgradeToken = (token: string): boolean => token === "upgrade" || token === "http2-settings"
