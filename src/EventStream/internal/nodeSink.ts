import type * as Http from "node:http"
import type * as Net from "node:net"

import * as Cookies from "@effect/platform/Cookies"
import * as HttpApp from "@effect/platform/HttpApp"
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import type { HttpServerResponse } from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"

import type { Connection, Sink } from "./connection.js"
import * as Frame from "./frame.js"
import * as NodeShutdown from "./nodeShutdown.js"
import * as NodeUpgrade from "./nodeUpgrade.js"

/**
 * The response that Node's HTTP server holds for a request, if it is Node's and the frames may go straight to it: its
 * head is written, and nothing between here and the socket changes the bytes.
 */
export const responseOf = (request: HttpServerRequest): Option.Option<Http.ServerResponse> =>
  Predicate.hasProperty(request, "resolvedResponse") && isServerResponse(request.resolvedResponse) &&
    request.resolvedResponse.headersSent && !isEncoded(request.resolvedResponse)
    ? Option.some(request.resolvedResponse)
    : Option.none()

/** Cuts off the client of a request, if the server is Node's. */
export const cutOff = (request: HttpServerRequest): void => {
  if (Predicate.hasProperty(request, "resolvedResponse") && isServerResponse(request.resolvedResponse)) {
    request.resolvedResponse.destroy()
  }
}

const isServerResponse = (u: unknown): u is Http.ServerResponse =>
  Predicate.hasProperty(u, "flushHeaders") && Predicate.hasProperty(u, "writableLength") &&
  Predicate.hasProperty(u, "req") && Predicate.hasProperty(u, "headersSent")

// A head that was written in one go can be read only where Node keeps it.
const isEncoded = (response: Http.ServerResponse): boolean =>
  response.hasHeader("content-encoding") ||
  (Predicate.hasProperty(response, "_header") && typeof response._header === "string" &&
    /^content-encoding:/im.test(response._header))

/**
 * Waits until the response of the request has its turn: over HTTP/1.1, a client may send further requests before the first
 * one is answered, and gets the answers in that order. Interrupts when the client leaves before. Node calls back only for
 * the response whose turn it is when a connection closes, so the others share one listener.
 */
export const turn: Effect.Effect<void> = Effect.flatMap(
  Effect.serviceOption(HttpServerRequest),
  (request) =>
    Option.isSome(request) && !isUpgrade(request.value) && Predicate.hasProperty(request.value, "resolvedResponse") &&
      isServerResponse(request.value.resolvedResponse)
      ? turnOf(request.value.resolvedResponse)
      : Effect.void
)

// To look up the response of an upgrade is to answer it, and nothing can be ahead of it.
const isUpgrade = (request: HttpServerRequest): boolean =>
  Predicate.hasProperty(request.source, "upgrade") && request.source.upgrade === true

const turnOf = (response: Http.ServerResponse): Effect.Effect<void> =>
  Effect.suspend(() => response.socket !== null || response.writableEnded ? Effect.void : awaitSocket(response))

const awaitSocket = (response: Http.ServerResponse): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    const { socket } = response.req
    if (socket.destroyed) return resume(Effect.interrupt)
    const others = waiting.get(socket) ?? waitFor(socket)
    const leave = () => resume(Effect.interrupt)
    const take = () => {
      others.delete(leave)
      resume(Effect.void)
    }
    others.add(leave)
    response.once("socket", take)
    return Effect.sync(() => {
      others.delete(leave)
      response.off("socket", take)
    })
  })

const waiting = new WeakMap<Net.Socket, Set<() => void>>()

const waitFor = (socket: Net.Socket): Set<() => void> => {
  const listeners = new Set<() => void>()
  waiting.set(socket, listeners)
  socket.once("close", () => {
    for (const listener of listeners) listener()
  })
  return listeners
}

/**
 * Hands the frames of a connection to the socket for as long as the connection lasts, and ends the response. The fiber that
 * runs this only waits for that.
 */
export const run = (connection: Connection, response: Http.ServerResponse): Effect.Effect<void> =>
  Effect.zipRight(
    turnOf(response),
    Effect.async<void>((resume) => {
      const sink = new NodeSink(connection, response, () => resume(Effect.void))
      sink.open()
      return Effect.sync(() => sink.close())
    })
  )

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
  private readonly closing: NodeShutdown.Closing | undefined
  /** The streams of the same session of HTTP/2. */
  private readonly carried: Set<{ readonly shutdown: () => void }> | undefined
  private isScheduled = false
  private isEnding = false
  private drainTimer: NodeJS.Timeout | undefined

  constructor(connection: Connection, response: Http.ServerResponse, onEnd: () => void) {
    this.connection = connection
    this.response = response
    this.onEnd = onEnd
    this.closing = NodeShutdown.closingOf(response)
    this.carried = this.closing?.streamsOf(response)
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
    if (this.closing?.hasBegun() === true) this.shutdown()
    this.closing?.streams.add(this)
    this.carried?.add(this)
    response.on("close", this.leave)
    const { socket } = response
    if (Predicate.isNullable(socket) || socket.destroyed) return this.leave()
    NodeUpgrade.onEnd(response.req, this.leave)
    this.drainRequest()
    socket.cork()
    response.flushHeaders()
    this.flush()
    socket.uncork()
  }

  close(): void {
    this.isEnding = true
    clearTimeout(this.drainTimer)
    this.response.off("close", this.leave)
    this.closing?.streams.delete(this)
    this.carried?.delete(this)
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
    while (!connection.isBlocked) {
      const frames = connection.take()
      if (frames.length === 0) break
      const frame = Frame.join(frames)
      if (!writable.write(socket === undefined ? frame.bytes : frame.toHttpChunk())) {
        connection.block()
        writable.once("drain", () => {
          if (this.isEnding) return
          connection.unblock()
          this.flush()
        })
      }
    }
    if (connection.isDrained && !connection.isBlocked) {
      this.isEnding = true
      // The stream is over when the end of its body has left, not when it was queued: until then the client is timed.
      connection.block()
      response.end(this.leave)
    }
  }

  abort(): void {
    this.response.destroy()
  }

  /** The server is being closed. */
  shutdown(): void {
    const { connection, response } = this
    connection.shutdown()
    // A connection of HTTP/2 carries other streams too: the server closes it once they have ended.
    if (!NodeShutdown.isHttp2(response)) response.once("finish", () => response.req.socket.destroySoon())
  }

  /**
   * Discards the rest of a request that nothing reads, because a client may read the response only when it has sent all of
   * its request. A producer has a second to begin with reading.
   */
  private drainRequest(): void {
    const { req } = this.response
    if (req.complete || !NodeShutdown.hasBody(req)) return
    this.drainTimer = setTimeout(() => {
      if (req.readableFlowing === null) req.resume()
    }, NodeShutdown.drainDelay)
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
