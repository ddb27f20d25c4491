import type * as Http from "node:http"

import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"

import type { Connection, Sink } from "./connection.js"
import * as Frame from "./frame.js"

/**
 * The response that Node's HTTP server holds for a request, if it is Node's and the frames may go straight to it: its
 * head is written, and nothing between here and the socket changes the bytes.
 */
export const responseOf = (request: HttpServerRequest): Option.Option<Http.ServerResponse> =>
  Predicate.hasProperty(request, "resolvedResponse") && isServerResponse(request.resolvedResponse) &&
    request.resolvedResponse.headersSent && !isEncoded(request.resolvedResponse)
    ? Option.some(request.resolvedResponse)
    : Option.none()

const isServerResponse = (u: unknown): u is Http.ServerResponse =>
  Predicate.hasProperty(u, "flushHeaders") && Predicate.hasProperty(u, "writableLength") &&
  Predicate.hasProperty(u, "req") && Predicate.hasProperty(u, "headersSent")

// A head that was written in one go can be read only where Node keeps it.
const isEncoded = (response: Http.ServerResponse): boolean =>
  response.hasHeader("content-encoding") ||
  (Predicate.hasProperty(response, "_header") && typeof response._header === "string" &&
    /^content-encoding:/im.test(response._header))

/**
 * Hands the frames of a connection to the socket for as long as the connection lasts. The fiber that runs this only
 * waits for the end.
 *
 * The chunks of the body are framed here, once for all the sockets that a frame goes to, instead of by each response.
 * Node ends the body as usual.
 */
export const run = (connection: Connection, response: Http.ServerResponse): Effect.Effect<void> =>
  Effect.suspend(() => {
    const socket = response.socket
    const direct = socket !== null && response.chunkedEncoding && !Object.hasOwn(response, "write")
    const writable = direct ? socket : response
    const write = direct
      ? (frame: Frame.Frame) => socket.write(frame.httpChunk)
      : (frame: Frame.Frame) => response.write(frame.bytes)

    let finish: (() => void) | undefined
    let isScheduled = false
    let isEnding = false
    const flush = () => {
      isScheduled = false
      if (writable.destroyed || isEnding) return
      while (connection.blockedSince === undefined) {
        const frames = connection.take(maxWrite)
        if (frames.length === 0) break
        if (!write(Frame.join(frames))) connection.block()
      }
      if (connection.isDrained && connection.blockedSince === undefined) {
        isEnding = true
        // The stream is over when its last byte has left, not when it was queued: until then the client is timed.
        connection.block()
        writable.write(nothing, () => finish?.())
      }
    }
    const onDrain = () => {
      connection.unblock()
      flush()
    }
    const sink: Sink = {
      // What is published in one turn is written at once.
      ready: () => {
        if (isScheduled) return
        isScheduled = true
        queueMicrotask(flush)
      },
      flush,
      abort: () => response.destroy()
    }

    let grace: NodeJS.Timeout | undefined
    let leave = () => {}
    const onClosing = () => {
      connection.shutdown()
      response.once("finish", () => response.req.socket.destroySoon())
      grace = setTimeout(() => response.destroy(), shutdownGrace)
    }
    const onClose = () => {
      connection.detach()
      finish?.()
    }
    return Effect.acquireUseRelease(
      Effect.sync(() => {
        if (!connection.attach(sink)) return false
        writable.on("drain", onDrain)
        // A response that waits behind another one of its connection is not told that the connection closed.
        response.req.socket.once("close", onClose)
        leave = whenClosing(response, onClosing)
        return true
      }),
      (isAttached) =>
        Effect.async<void>((resume) => {
          finish = () => resume(Effect.void)
          if (!isAttached || response.req.socket.destroyed) return finish()
          socket?.cork()
          response.flushHeaders()
          flush()
          socket?.uncork()
        }),
      (isAttached) =>
        Effect.sync(() => {
          if (!isAttached) return
          clearTimeout(grace)
          writable.off("drain", onDrain)
          response.req.socket.off("close", onClose)
          leave()
          connection.detach()
        })
    )
  })

// Larger writes would put more than the client has room for into the socket's own buffer.
const maxWrite = 64 * 1024
const shutdownGrace = 500
const nothing = new Uint8Array(0)

interface Closing {
  hasBegun: boolean
  readonly listeners: Set<() => void>
}

const closings = new WeakMap<Http.Server, Closing>()

/**
 * Calls back when the server of a response is being closed. Node's `close` waits for every response to end, and no stream
 * of events ever does by itself, so each one has to be told. The call of `close` is the one sign that is there in whatever
 * order layers and scopes are put together, and that no user can forget; nothing is emitted for it.
 */
const whenClosing = (response: Http.ServerResponse, onClosing: () => void): () => void => {
  const server = serverOf(response)
  if (server === undefined) return () => {}
  const closing = closings.get(server) ?? watch(server)
  if (closing.hasBegun) {
    onClosing()
    return () => {}
  }
  closing.listeners.add(onClosing)
  return () => closing.listeners.delete(onClosing)
}

const watch = (server: Http.Server): Closing => {
  // Effect takes its listener away before it closes its server; a response may come later than both.
  const closing: Closing = { hasBegun: server.listenerCount("request") === 0, listeners: new Set() }
  closings.set(server, closing)
  const close = server.close
  server.close = (callback) => {
    closing.hasBegun = true
    for (const listener of closing.listeners) listener()
    return close.call(server, callback)
  }
  return closing
}

const serverOf = (response: Http.ServerResponse): Http.Server | undefined => {
  const { socket } = response.req
  return Predicate.hasProperty(socket, "server") && isServer(socket.server) ? socket.server : undefined
}

const isServer = (u: unknown): u is Http.Server =>
  Predicate.hasProperty(u, "close") && Predicate.hasProperty(u, "listenerCount")
