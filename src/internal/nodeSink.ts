import type * as Http from "node:http"
import type * as Http2 from "node:http2"
import type * as Net from "node:net"

import * as Cookies from "@effect/platform/Cookies"
import * as HttpApp from "@effect/platform/HttpApp"
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import type { HttpServerResponse } from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
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
 * Hands the frames of a connection to the socket for as long as the connection lasts, and ends the response. The fiber that
 * runs this only waits for that.
 */
export const run = (connection: Connection, response: Http.ServerResponse): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    const sink = new NodeSink(connection, response, () => resume(Effect.void))
    sink.open()
    return Effect.sync(() => sink.close())
  })

/**
 * Lets the frames go to the socket of the request without a body in between: for Effect's server a body is a stream, and the
 * fiber and the interpreter of a stream take more memory than all the rest of a connection. Should anything want to change
 * the response after this has, or have made another body of it, the frames go through the body after all.
 */
export const handOver = (
  connection: Connection,
  response: HttpServerResponse
): Effect.Effect<HttpServerResponse> =>
  Effect.gen(function*() {
    yield* HttpApp.appendPreResponseHandler((request, final) =>
      Effect.flatMap(FiberRef.get(HttpApp.currentPreResponseHandlers), (handlers) =>
        handlers === last && final.body === response.body
          ? respond(connection, request, final)
          : Effect.succeed(final))
    )
    const last = yield* FiberRef.get(HttpApp.currentPreResponseHandlers)
    return response
  })

const respond = (
  connection: Connection,
  request: HttpServerRequest,
  response: HttpServerResponse
): Effect.Effect<HttpServerResponse> =>
  Effect.suspend(() => {
    const nodeResponse = Predicate.hasProperty(request, "resolvedResponse") ? request.resolvedResponse : undefined
    if (
      request.method === "HEAD" || !isServerResponse(nodeResponse) || nodeResponse.headersSent ||
      response.headers["content-encoding"] !== undefined || isEncoded(nodeResponse) ||
      Object.hasOwn(nodeResponse, "writeHead") || Object.hasOwn(nodeResponse, "write")
    ) return Effect.succeed(response)
    const cookies = Cookies.toSetCookieHeaders(response.cookies)
    nodeResponse.writeHead(response.status, {
      ...response.headers,
      ...(cookies.length > 0 ? { "set-cookie": cookies } : undefined)
    })
    return run(connection, nodeResponse).pipe(
      Effect.interruptible,
      // What was responded stays so, even when the client leaves.
      Effect.catchAllCause((cause) => Effect.failCause(Cause.sequential(cause, Cause.die(response)))),
      Effect.as(response)
    )
  })

/**
 * The chunks of the body are framed by the frame, once for all the sockets that it goes to, instead of by each response.
 */
class NodeSink implements Sink {
  private readonly connection: Connection
  private readonly response: Http.ServerResponse
  private readonly onEnd: () => void
  /** Where the bytes go, if they go around the response. */
  private readonly socket: Net.Socket | undefined
  private isScheduled = false
  private isEnding = false
  private grace: NodeJS.Timeout | undefined

  constructor(connection: Connection, response: Http.ServerResponse, onEnd: () => void) {
    this.connection = connection
    this.response = response
    this.onEnd = onEnd
    this.socket = response.socket !== null && response.chunkedEncoding && !Object.hasOwn(response, "write")
      ? response.socket
      : undefined
  }

  open(): void {
    const { connection, response } = this
    if (!connection.attach(this)) {
      response.end()
      return this.onEnd()
    }
    const closing = closingOf(response)
    if (closing?.hasBegun === true) this.shutdown()
    else closing?.sinks.add(this)
    // A response that waits behind another one of its connection is not told that the connection closed.
    response.req.socket.on("close", this.leave)
    if (response.req.socket.destroyed) return this.leave()
    const { socket } = response
    socket?.cork()
    response.flushHeaders()
    this.flush()
    socket?.uncork()
  }

  close(): void {
    this.isEnding = true
    clearTimeout(this.grace)
    this.response.req.socket.off("close", this.leave)
    closingOf(this.response)?.sinks.delete(this)
    this.connection.detach()
    this.response.end()
  }

  /** What is published in one turn is written at once, by one microtask for all. */
  ready(): void {
    if (this.isScheduled) return
    this.isScheduled = true
    if (scheduled.push(this) === 1) queueMicrotask(flushScheduled)
  }

  flush(): void {
    this.isScheduled = false
    const { connection, response, socket } = this
    const writable = socket ?? response
    if (this.isEnding || writable.destroyed) return
    while (connection.blockedSince === undefined) {
      const frames = connection.take(maxWrite)
      if (frames.length === 0) break
      const frame = Frame.join(frames)
      if (!writable.write(socket === undefined ? frame.bytes : frame.httpChunk)) {
        connection.block()
        writable.once("drain", () => {
          if (this.isEnding) return
          connection.unblock()
          this.flush()
        })
      }
    }
    if (connection.isDrained && connection.blockedSince === undefined) {
      this.isEnding = true
      // The stream is over when its last byte has left, not when it was queued: until then the client is timed.
      connection.block()
      writable.write(nothing, this.leave)
    }
  }

  abort(): void {
    this.response.destroy()
  }

  /** The server is being closed. */
  shutdown(): void {
    const { connection, response } = this
    connection.shutdown()
    const session = sessionOf(response)
    // The connection of HTTP/2 is not this stream's alone: it closes once its other streams have ended too.
    if (session !== undefined) session.close()
    else response.once("finish", () => response.req.socket.destroySoon())
    this.grace = setTimeout(() => (session ?? response).destroy(), shutdownGrace)
  }

  private readonly leave = (): void => {
    this.close()
    this.onEnd()
  }
}

let scheduled: Array<NodeSink> = []

const flushScheduled = (): void => {
  const sinks = scheduled
  scheduled = []
  for (const sink of sinks) sink.flush()
}

// Larger writes would put more than the client has room for into the socket's own buffer.
const maxWrite = 64 * 1024
const shutdownGrace = 500
const nothing = new Uint8Array(0)

interface Closing {
  hasBegun: boolean
  readonly sinks: Set<NodeSink>
}

const closings = new WeakMap<Http.Server, Closing>()

/**
 * The closing of the server of a response. Node's `close` waits for every response to end, and no stream of events ever does
 * by itself, so each one has to be told. The call of `close` is the one sign that is there in whatever order layers and
 * scopes are put together, and that no user can forget; nothing is emitted for it.
 */
const closingOf = (response: Http.ServerResponse): Closing | undefined => {
  const server = serverOf(response)
  return server === undefined ? undefined : closings.get(server) ?? watch(server)
}

const watch = (server: Http.Server): Closing => {
  // Effect takes its listener away before it closes its server; a response may come later than both.
  const closing: Closing = { hasBegun: server.listenerCount("request") === 0, sinks: new Set() }
  closings.set(server, closing)
  const close = server.close
  server.close = (callback) => {
    closing.hasBegun = true
    for (const sink of closing.sinks) sink.shutdown()
    return close.call(server, callback)
  }
  return closing
}

const serverOf = (response: Http.ServerResponse): Http.Server | undefined => {
  const { socket } = response.req
  return Predicate.hasProperty(socket, "server") && isServer(socket.server) ? socket.server : undefined
}

const sessionOf = (response: Http.ServerResponse): Http2.Http2Session | undefined =>
  Predicate.hasProperty(response, "stream") && Predicate.hasProperty(response.stream, "session") &&
    isSession(response.stream.session)
    ? response.stream.session
    : undefined

const isSession = (u: unknown): u is Http2.Http2Session => Predicate.hasProperty(u, "goaway")

const isServer = (u: unknown): u is Http.Server =>
  Predicate.hasProperty(u, "close") && Predicate.hasProperty(u, "listenerCount")
