import type * as Http from "node:http"
import type { Duplex } from "node:stream"

import * as Predicate from "effect/Predicate"

/**
 * Requests that ask Node's server for another protocol.
 *
 * For such a request Node stops parsing the connection, removes its own listeners, and emits `upgrade` with the socket.
 * The listener of Effect's server is made for WebSocket. It answers any other request over that socket, which nothing
 * reads: the body of the request is lost, the client's leaving is not observed, the socket is never closed, and the end
 * of the response never completes if the client has left.
 */

/**
 * Returns true for a request that is answered as if it asked for no other protocol. A server may ignore `Upgrade` (RFC
 * 9110, section 7.8), and HTTP/2 is no longer begun by `h2c` (RFC 9113, section 3.1), though clients still ask for it.
 */
export const isIgnored = (request: Http.IncomingMessage): boolean => {
  const protocols = tokensOf(request.headers.upgrade ?? "")
  return protocols.includes("h2c") && !protocols.includes("websocket")
}

/** Returns true while the response to an earlier request of the connection is pending. */
export const isAnswering = (socket: Duplex): boolean =>
  Predicate.hasProperty(socket, "_httpMessage") && Predicate.isNotNullable(socket._httpMessage)

/** Calls back with the response that an application makes for the socket. The server does not expose it. */
export const onResponse = (socket: Duplex, listener: (response: unknown) => void): void => {
  // Node assigns the response to the socket, and then adds a listener.
  socket.on("newListener", (event) => {
    if (event === "close" && Predicate.hasProperty(socket, "_httpMessage")) listener(socket._httpMessage)
  })
}

/**
 * Returns the connection to the server, from the head of the request on, without the headers that ask for another
 * protocol.
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

/** Closes the socket once all bytes are written to it, unless it has a reader by then. */
export const release = (socket: Duplex): void => {
  socket.once("finish", () => {
    if (socket.listenerCount("data") === 0) socket.destroy()
  })
}

/** Calls back when the client of an upgraded socket ends its side, which is observed only while the socket is read. */
export const onEnd = (request: Http.IncomingMessage, listener: () => void): void => {
  if (!Predicate.hasProperty(request, "upgrade") || request.upgrade !== true) return
  request.socket.once("end", listener)
  request.socket.resume()
}

const tokensOf = (value: string): ReadonlyArray<string> => value.toLowerCase().split(",").map((token) => token.trim())

const isUpgradeToken = (token: string): boolean => token === "upgrade" || token === "http2-settings"
