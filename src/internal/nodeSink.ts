import type * as EventEmitter from "node:events"
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
  Predicate.hasProperty(request, "response") && isServerResponse(request.response) &&
    request.response.headersSent && !isEncoded(request.response)
    ? Option.some(request.response)
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
    const leave = whenClosing(response, () => {
      connection.shutdown()
      response.once("finish", () => response.socket?.destroySoon())
      grace = setTimeout(() => response.destroy(), shutdownGrace)
    })
    return Effect.async<void>((resume) => {
      finish = () => resume(Effect.void)
      writable.on("drain", onDrain)
      socket?.cork()
      response.flushHeaders()
      if (connection.attach(sink)) flush()
      else finish()
      socket?.uncork()
    }).pipe(Effect.ensuring(Effect.sync(() => {
      clearTimeout(grace)
      writable.off("drain", onDrain)
      leave()
      connection.detach()
    })))
  })

// Larger writes would put more than the client has room for into the socket's own buffer.
const maxWrite = 64 * 1024
const shutdownGrace = 1000
const nothing = new Uint8Array(0)

const closing = new WeakMap<EventEmitter, Set<() => void>>()

/**
 * Calls back when the server of a response is being closed. Node's `close` waits for every response to end, and no stream
 * of events ever does by itself, so each one has to be told. Effect's server takes its request listener away before it
 * closes: that is the one sign that is there in whatever order layers are built, and that no user can forget.
 */
const whenClosing = (response: Http.ServerResponse, onClosing: () => void): () => void => {
  const server = serverOf(response)
  if (server === undefined) return () => {}
  if (server.listenerCount("request") === 0) {
    onClosing()
    return () => {}
  }
  let listeners = closing.get(server)
  if (listeners === undefined) {
    const all = listeners = new Set()
    closing.set(server, all)
    server.on("removeListener", (event) => {
      if (event === "request" && server.listenerCount("request") === 0) { for (const listener of all) listener() }
    })
  }
  listeners.add(onClosing)
  return () => listeners.delete(onClosing)
}

const serverOf = (response: Http.ServerResponse): EventEmitter | undefined => {
  const { socket } = response.req
  return Predicate.hasProperty(socket, "server") && isEventEmitter(socket.server) ? socket.server : undefined
}

const isEventEmitter = (u: unknown): u is EventEmitter =>
  Predicate.hasProperty(u, "listenerCount") && Predicate.hasProperty(u, "on")
