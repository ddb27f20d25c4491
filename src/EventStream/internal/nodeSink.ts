import type * as Http from "node:http"
import type * as Net from "node:net"

import { clientAbortFiberId } from "@effect/platform/HttpServerError"
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"

import { later } from "../../internal/nextTurn.js"
import type { Connection, Sink } from "./connection.js"
import * as Frame from "./frame.js"
import * as NodeShutdown from "./nodeShutdown.js"
import * as NodeUpgrade from "./nodeUpgrade.js"

/**
 * Returns the response of Node's server for a request, if frames may be written to it directly: its head is written,
 * and nothing in between changes the bytes.
 */
export const responseOf = (request: HttpServerRequest): Option.Option<Http.ServerResponse> =>
  Predicate.hasProperty(request, "resolvedResponse") && isServerResponse(request.resolvedResponse) &&
    request.resolvedResponse.headersSent && !isEncoded(request.resolvedResponse)
    ? Option.some(request.resolvedResponse)
    : Option.none()

/** Returns the response of Node's server if its head is not written, and frames may follow the head directly. */
export const unsentResponseOf = (
  request: HttpServerRequest,
  headers: Record<string, string>
): Http.ServerResponse | undefined => {
  const response = Predicate.hasProperty(request, "resolvedResponse") ? request.resolvedResponse : undefined
  return request.method !== "HEAD" && isServerResponse(response) && !response.headersSent &&
      headers["content-encoding"] === undefined && !isEncoded(response) &&
      // A middleware of Node, such as `compression`, replaces the methods of the response.
      !Object.hasOwn(response, "writeHead") && !Object.hasOwn(response, "write")
    ? response
    : undefined
}

/**
 * Calls back instead of the first call of `end`. Returns the function that restores `end`, which a middleware of Node
 * may have replaced.
 */
export const deferEnd = (response: Http.ServerResponse, begin: () => void): () => void => {
  const replaced = Object.getOwnPropertyDescriptor(response, "end")
  const restore = () => {
    if (replaced === undefined) Reflect.deleteProperty(response, "end")
    else Object.defineProperty(response, "end", replaced)
  }
  response.end = () => {
    restore()
    begin()
    return response
  }
  return restore
}

/** Cuts off the client of a request, if the server is Node's. */
export const cutOff = (request: HttpServerRequest): void => {
  if (Predicate.hasProperty(request, "resolvedResponse") && isServerResponse(request.resolvedResponse)) {
    request.resolvedResponse.destroy()
  }
}

/** Returns true for a response of Node's servers of HTTP/1.1 and HTTP/2. */
export const isServerResponse = (u: unknown): u is Http.ServerResponse =>
  Predicate.hasProperty(u, "flushHeaders") && Predicate.hasProperty(u, "writableLength") &&
  Predicate.hasProperty(u, "req") && Predicate.hasProperty(u, "headersSent")

/** Returns true if the bytes of the response are encoded. A head that was written in one call is only in `_header`. */
export const isEncoded = (response: Http.ServerResponse): boolean =>
  response.hasHeader("content-encoding") ||
  (Predicate.hasProperty(response, "_header") && typeof response._header === "string" &&
    /^content-encoding:/im.test(response._header))

/**
 * Waits until the response can be sent: over HTTP/1.1 a client may send further requests before the first one is
 * answered, and receives the responses in that order. Interrupts if the client leaves before. When a connection closes,
 * Node notifies only the response that is being sent, so that the others share one listener.
 */
export const awaitTurn: Effect.Effect<void> = Effect.flatMap(
  Effect.serviceOption(HttpServerRequest),
  (request) =>
    Option.isSome(request) && !isUpgrade(request.value) && Predicate.hasProperty(request.value, "resolvedResponse") &&
      isServerResponse(request.value.resolvedResponse)
      ? awaitTurnOf(request.value.resolvedResponse)
      : Effect.void
)

// Access to the response of an upgrade answers it. No other response can be ahead of it.
const isUpgrade = (request: HttpServerRequest): boolean =>
  Predicate.hasProperty(request.source, "upgrade") && request.source.upgrade === true

/** Returns true if no other response has to be sent before. */
export const isTurnOf = (response: Http.ServerResponse): boolean => response.socket !== null || response.writableEnded

/** Waits until the response can be sent. Interrupts if the client leaves before. */
export const awaitTurnOf = (response: Http.ServerResponse): Effect.Effect<void> =>
  Effect.suspend(() => isTurnOf(response) ? Effect.void : awaitSocket(response))

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
 * Writes the frames of a connection to the socket until the connection is done, and ends the response. Calls back with
 * an interruption if the client leaves before.
 */
export const start = (
  connection: Connection,
  response: Http.ServerResponse,
  onEnd: (exit: Exit.Exit<void>) => void
): void => new NodeSink(connection, response, onEnd).open()

/** Writes as `start` does, until the connection is done or the fiber is interrupted. */
export const run = (connection: Connection, response: Http.ServerResponse): Effect.Effect<void> =>
  Effect.zipRight(
    awaitTurnOf(response),
    Effect.async<void>((resume) => {
      const sink = new NodeSink(connection, response, () => resume(Effect.void))
      sink.open()
      return Effect.sync(() => sink.close())
    })
  )

/**
 * Writes frames to the socket. The chunk of HTTP/1.1 is made once for each frame, and not by each response, which is
 * why the response is bypassed.
 */
class NodeSink implements Sink {
  private readonly connection: Connection
  private readonly response: Http.ServerResponse
  private readonly onEnd: (exit: Exit.Exit<void>) => void
  /** Destination of the bytes, if the response is bypassed. */
  private readonly socket: Net.Socket | undefined
  private readonly closing: NodeShutdown.Closing | undefined
  private readonly session: NodeShutdown.Session | undefined
  private isReady = false
  private isReadyAtTurnEnd = false
  private isEnding = false
  private drainTimer: NodeJS.Timeout | undefined

  constructor(connection: Connection, response: Http.ServerResponse, onEnd: (exit: Exit.Exit<void>) => void) {
    this.connection = connection
    this.response = response
    this.onEnd = onEnd
    this.closing = NodeShutdown.closingOf(response)
    this.session = this.closing?.sessionOf(response)
    this.socket = response.socket !== null && response.chunkedEncoding && !Object.hasOwn(response, "write")
      ? response.socket
      : undefined
  }

  open(): void {
    const { connection, response } = this
    if (!connection.attach(this)) {
      response.end()
      return this.onEnd(Exit.void)
    }
    if (this.closing?.hasBegun() === true || this.session?.isLeaving === true) this.shutdown()
    this.closing?.streams.add(this)
    this.session?.streams.add(this)
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
    this.session?.streams.delete(this)
    this.connection.detach()
    this.response.end()
  }

  /** Schedules a write: for all sinks together, in a microtask or at the end of this turn of the event loop. */
  ready(atTurnEnd = false): void {
    if (this.isReady || (atTurnEnd && this.isReadyAtTurnEnd)) return
    if (atTurnEnd) {
      this.isReadyAtTurnEnd = true
      if (readyAtTurnEnd.push(this) === 1) later(flushReadyAtTurnEnd)
    } else {
      this.isReady = true
      if (ready.push(this) === 1) queueMicrotask(flushReady)
    }
  }

  flush(): void {
    this.isReady = false
    this.isReadyAtTurnEnd = false
    const { connection, response } = this
    while (this.canWrite && !connection.isBlocked) {
      const frames = connection.take()
      if (frames.length === 0) break
      this.write(Frame.join(frames))
    }
    if (!this.canWrite) return
    if (connection.isDrained && !connection.isBlocked) {
      this.isEnding = true
      // The stream is over when the end of its body is sent, not when it is queued. Until then the client is timed.
      connection.block()
      // A middleware of Node may replace `end`, and take a callback for data.
      response.once("finish", this.leave).end()
    }
  }

  write(frame: Frame.Frame): void {
    const { connection, response, socket } = this
    if (!this.canWrite) return
    const hasRoom = socket === undefined ? response.write(frame.bytes) : socket.write(frame.toHttpChunk())
    if (hasRoom) return
    connection.block()
    const writable = socket ?? response
    writable.once("drain", () => {
      if (this.isEnding) return
      connection.unblock()
      this.flush()
    })
  }

  abort(): void {
    this.response.destroy()
  }

  /** Ends the stream, because the server closes. */
  shutdown(): void {
    const { connection, response } = this
    connection.shutdown()
    // An HTTP/2 connection carries other streams too. The server closes it once they have ended.
    if (!NodeShutdown.isHttp2(response)) response.once("finish", () => response.req.socket.destroySoon())
  }

  /**
   * Discards the rest of a request that nothing reads: a client may read the response only after it has sent its
   * request. A producer has one second to begin to read.
   */
  private drainRequest(): void {
    const { req } = this.response
    if (req.complete || !NodeShutdown.hasBody(req)) return
    this.drainTimer = setTimeout(() => {
      if (req.readableFlowing === null) req.resume()
    }, NodeShutdown.drainDelay)
  }

  private get canWrite(): boolean {
    return !this.isEnding && !(this.socket ?? this.response).destroyed
  }

  private readonly leave = (): void => {
    const hasLeft = !this.response.writableFinished
    this.close()
    this.onEnd(hasLeft ? Exit.interrupt(clientAbortFiberId) : Exit.void)
  }
}

let ready: Array<NodeSink> = []

const flushReady = (): void => {
  const sinks = ready
  ready = []
  for (const sink of sinks) sink.flush()
}

let readyAtTurnEnd: Array<NodeSink> = []

const flushReadyAtTurnEnd = (): void => {
  const sinks = readyAtTurnEnd
  readyAtTurnEnd = []
  for (const sink of sinks) sink.flush()
}
