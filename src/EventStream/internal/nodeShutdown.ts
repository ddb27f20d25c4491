import type * as Http from "node:http"
import type * as Http2 from "node:http2"
import type * as Net from "node:net"
import type { Duplex } from "node:stream"

import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"

import { namesEvents } from "./mediaType.js"
import * as NodeUpgrade from "./nodeUpgrade.js"

/**
 * The closing of Node's server, within one second.
 *
 * `close` of Node waits for every connection to end, and several kinds never end by themselves: an event stream, a
 * connection without a request (a browser opens spare ones), half a request, an idle session of HTTP/2, a request that
 * arrives after Effect has removed its listener. From the call of `close` on, Node also stops the timer that cuts off
 * slow requests.
 *
 * A server is observed from its `listen`, which Node publishes on a diagnostics channel. That is before its first
 * connection, independent of the order in which layers are built, and without an open stream. Only servers that listen
 * within a fiber are observed in this way, and servers that carry a stream. Other servers of the process are not
 * changed. Alternatives that were tried or considered:
 *
 * - a finalizer in a layer of the library: it runs before or after the finalizer of the server, as layers happen to be
 *   composed, and `EventStream` has no layer;
 * - the first stream or the first request as the start: a server may be closed before either, while a silent connection
 *   is open;
 * - the `HttpServer` service of Effect: it does not expose Node's server;
 * - the channel `net.server.socket`: it is published for each connection, and for other servers too;
 * - `closeAllConnections` alone: it omits TLS handshakes, upgraded connections and HTTP/2.
 *
 * Methods of the server object intercept the call of `close` and the events of the server: Node emits nothing when
 * `close` is called, and a listener cannot prevent an event from reaching later listeners.
 */
export interface Closing {
  /** Returns true once the application of the server answers no more requests. */
  readonly hasBegun: () => boolean
  /** The open streams of the server. */
  readonly streams: Set<OpenStream>
  /** Returns the session of HTTP/2 that carries a response, if one does. */
  readonly sessionOf: (response: Http.ServerResponse) => Session | undefined
}

export interface Session {
  readonly streams: Set<OpenStream>
  /** True once the client has announced to close the session. A stream that opens later has to end too. */
  isLeaving: boolean
}

interface OpenStream {
  readonly shutdown: () => void
}

interface Server {
  readonly listening: boolean
  close: (callback?: (error?: Error) => void) => unknown
  emit: (event: string | symbol, ...args: Array<unknown>) => boolean
  readonly closeAllConnections?: () => void
  readonly listenerCount: (event: string) => number
  readonly on: {
    (event: "connection" | "secureConnection", listener: (socket: Net.Socket) => void): unknown
    (event: "session", listener: (session: Http2.Http2Session) => void): unknown
    (event: "removeListener", listener: (event: string | symbol) => void): unknown
  }
  readonly once: (event: "close", listener: () => void) => unknown
}

/** Longest time in milliseconds that connections stay open once the server is closed or has no application. */
const grace = 1_000
/** The least part of `grace` that remains when the server is closed, in milliseconds. */
const minGrace = 100
/**
 * Time in milliseconds without progress after which an HTTP/2 connection ends whose client has announced to close it.
 */
const silence = 30_000

const closings = new WeakMap<Server, Closing>()

/** Returns the closing of the server of a response. */
export const closingOf = (response: Http.ServerResponse): Closing | undefined => {
  const { socket } = response.req
  return Predicate.hasProperty(socket, "server") && isServer(socket.server)
    ? closings.get(socket.server) ?? watch(socket.server)
    : undefined
}

const watch = (server: Server): Closing => {
  const sockets = new Set<Net.Socket>()
  const sessions = new Map<Http2.Http2Session, Session>()
  const streams: Closing["streams"] = new Set()
  let isClosing = false
  let lostListenerAt = 0
  const hasBegun = () => isClosing || server.listenerCount("request") === 0
  const closing: Closing = {
    hasBegun,
    streams,
    sessionOf: (response) => {
      const session = http2SessionOf(response)
      return session === undefined ? undefined : sessions.get(session)
    }
  }
  closings.set(server, closing)

  const forget = function(this: Net.Socket) {
    sockets.delete(this)
  }
  server.on("connection", (socket) => {
    if (sockets.has(socket)) return
    sockets.add(socket)
    // An upgraded socket has no other listener, and its error would end the process.
    socket.on("error", ignore).on("close", forget)
  })
  server.on("secureConnection", (socket) => {
    socket.off("error", ignore).on("error", ignore)
  })
  server.on("session", (session) => {
    const own: Session = { streams: new Set(), isLeaving: false }
    sessions.set(session, own)
    session.once("close", () => sessions.delete(session))
    // A client announces that it closes the connection. Node may not notice any more when it does, nor can it be
    // probed.
    session.once("goaway", () => {
      postponeClose(session)
      own.isLeaving = true
      for (const stream of own.streams) takeTurn(() => own.streams.has(stream) && stream.shutdown())
      endSilent(session)
    })
  })
  server.on("removeListener", (event) => {
    if (event === "request") lostListenerAt = performance.now()
  })

  const emit = server.emit
  const request = (request: Http.IncomingMessage, response: Http.ServerResponse): boolean => {
    if (hasBegun() || unread.has(request)) return refuse(request, response)
    response.end = endWithConnection
    return emit.call(server, "request", request, response)
  }
  server.emit = (event, ...args) => {
    const [first, second, head] = args
    if (event === "request" && isRequest(first) && isResponse(second)) {
      if (isHttp2(second)) return spread(second, () => request(first, second))
      return second.socket === null ? postpone(server, first, second) : request(first, second)
    }
    if (event === "upgrade" && isRequest(first) && isDuplex(second) && isBytes(head)) {
      if (NodeUpgrade.isAnswering(second)) return second.destroy().destroyed
      // The body would be lost, and a reader of it would not see that the client leaves.
      if (isClosing || NodeUpgrade.isIgnored(first) || hasBody(first)) {
        return NodeUpgrade.undo(first, second, head, (event, socket) => server.emit(event, socket))
      }
      NodeUpgrade.release(second)
      NodeUpgrade.onResponse(second, (response) => {
        if (isResponse(response)) response.end = endWithConnection
      })
    }
    return emit.call(server, event, ...args)
  }

  const close = server.close
  server.close = (callback) => {
    if (server.listening && !isClosing) {
      const elapsed = hasBegun() ? performance.now() - lostListenerAt : 0
      isClosing = true
      for (const stream of streams) stream.shutdown()
      for (const session of sessions.keys()) session.close()
      const timer = setTimeout(() => {
        for (const session of sessions.keys()) session.destroy()
        for (const socket of sockets) socket.destroy()
        server.closeAllConnections?.()
      }, Math.max(grace - elapsed, minGrace))
      server.once("close", () => {
        isClosing = false
        clearTimeout(timer)
      })
    }
    return close.call(server, callback)
  }
  return closing
}

/**
 * Delays the next close of a session until its packet is read. Node closes a session when it reads a GOAWAY. A request
 * behind it in the packet is then refused while it is read, which uses freed memory and ends the process
 * (nodejs/node#64113).
 */
const postponeClose = (session: Http2.Http2Session): void => {
  const close = session.close
  session.close = (callback) => {
    setImmediate(() => {
      session.close = close
      session.close(callback)
    })
  }
}

/** Destroys a session after a time without progress. A timeout of the session itself would outlive it. */
const endSilent = (session: Http2.Http2Session): void => {
  const progress = () => session.destroyed ? 0 : session.socket.bytesRead + session.socket.bytesWritten
  let last = progress()
  const timer = setTimeout(() => {
    const now = progress()
    if (now === last) return session.destroy()
    last = now
    timer.refresh()
  }, silence)
  session.once("close", () => clearTimeout(timer))
}

/**
 * Delays a request until its response can be sent: over HTTP/1.1, a client may send further requests before the first
 * one is answered. Behind a stream, they would be answered in memory, and no longer read. Each begins in its own turn
 * of the event loop, because one packet may contain thousands.
 */
const postpone = (server: Server, request: Http.IncomingMessage, response: Http.ServerResponse): true => {
  limitWaiting(request.socket, response)
  if (hasBody(request)) {
    // The client's leaving is observed only while its connection is read.
    const timer = setTimeout(() => {
      if (request.complete) return
      unread.add(request)
      request.resume()
    }, drainDelay)
    request.once("close", () => clearTimeout(timer))
    response.once("socket", () => clearTimeout(timer))
  }
  response.once(
    "socket",
    () => setImmediate(() => request.socket.destroyed || server.emit("request", request, response))
  )
  return true
}

/**
 * Stops reading a connection on which too many requests wait: Node destroys all of them in one turn of the event loop
 * when the client leaves. If none of them can be answered for one second, the connection is closed, because the
 * client's leaving would not be observed.
 */
const limitWaiting = (socket: Net.Socket, response: Http.ServerResponse): void => {
  const count = (waiting.get(socket) ?? 0) + 1
  waiting.set(socket, count)
  if (count > maxWaiting && !stopped.has(socket)) {
    const timer = setTimeout(() => socket.destroy(), drainDelay)
    stopped.set(socket, timer)
    // Node resumes the connection after each request.
    socket.on("resume", pause).once("close", () => clearTimeout(timer)).pause()
  }
  response.once("socket", () => {
    const left = (waiting.get(socket) ?? 0) - 1
    waiting.set(socket, left)
    const timer = stopped.get(socket)
    if (timer === undefined) return
    timer.refresh()
    if (left > maxWaiting / 2) return
    clearTimeout(timer)
    stopped.delete(socket)
    socket.off("resume", pause).resume()
  })
}

const pause = function(this: Net.Socket) {
  this.pause()
}

/** The number of requests that wait behind another one on a connection of HTTP/1.1 before it is no longer read. */
const maxWaiting = 2_000

const waiting = new WeakMap<Net.Socket, number>()

/** The connections that are not read, each with the timer that closes it. */
const stopped = new WeakMap<Net.Socket, NodeJS.Timeout>()

/**
 * Begins and closes an HTTP/2 response in a turn of the event loop that has time for it: one packet begins hundreds of
 * streams, and the end of a session closes all of them. A stream that is over before its request began is dropped.
 */
const spread = (response: Http.ServerResponse, begin: () => void): true => {
  let hasBegun = false
  let isClosed = false
  const emit = response.emit
  response.emit = (event: string | symbol, ...args: Array<unknown>) => {
    if (event !== "close") return emit.call(response, event, ...args)
    isClosed = true
    if (hasBegun) takeTurn(() => emit.call(response, event, ...args))
    return true
  }
  takeTurn(() => {
    if (isClosed) return
    hasBegun = true
    begin()
  })
  return true
}

/** Time in milliseconds that is spent on HTTP/2 streams in one turn of the event loop. */
const turnTime = 5

/** Least time in milliseconds that is counted for a task: fibers that it wakes run after it, in the same turn. */
const minTaskTime = 0.5

const tasks: Array<() => unknown> = []
let spent = 0
let isTurnEnding = false

/** Runs a task at once, or in a later turn of the event loop when this one has spent its time. */
const takeTurn = (task: () => unknown): void => {
  if (tasks.length > 0 || spent > turnTime) tasks.push(task)
  else runTask(task)
  endTurn()
}

const endTurn = (): void => {
  if (isTurnEnding) return
  isTurnEnding = true
  setImmediate(() => {
    isTurnEnding = false
    spent = 0
    let done = 0
    try {
      while (done < tasks.length && spent <= turnTime) runTask(tasks[done++] ?? ignore)
    } finally {
      tasks.splice(0, done)
      if (done > 0) endTurn()
    }
  })
}

const runTask = (task: () => unknown): void => {
  const at = performance.now()
  task()
  spent += Math.max(performance.now() - at, minTaskTime)
}

/**
 * An `end` of a response that also calls back when the connection or the stream of the response closes. Node calls back
 * only once all bytes are sent, and Effect's server waits for that, uninterruptible: each client that resets a stream
 * before it has read the response would leave a fiber.
 */
const endWithConnection = function(this: Http.ServerResponse, ...args: Array<unknown>): Http.ServerResponse {
  const { end }: Http.ServerResponse = Object.getPrototypeOf(this)
  const callback = args.at(-1)
  if (!Predicate.isFunction(callback)) return Reflect.apply(end, this, args)
  let isDone = false
  const done = () => {
    if (!isDone) callback()
    isDone = true
  }
  this.once("close", done)
  if (isGone(this)) setImmediate(done)
  return Reflect.apply(end, this, [...args.slice(0, -1), done])
}

/** Returns true if the connection or the stream of the response has closed: its `close` may be past. */
const isGone = (response: Http.ServerResponse): boolean =>
  response.destroyed || Predicate.isNullable(response.socket) || response.socket.destroyed ||
  (Predicate.hasProperty(response, "stream") && Predicate.hasProperty(response.stream, "destroyed") &&
    response.stream.destroyed === true)

/** Requests that lost their body while they waited. */
const unread = new WeakSet<Http.IncomingMessage>()

/** The time in milliseconds that the body of a request waits for a reader before it is discarded. */
export const drainDelay = 1_000

/** Returns true for a request that is not over with its head. */
export const hasBody = (request: Http.IncomingMessage): boolean =>
  Predicate.hasProperty(request, "stream") && Predicate.hasProperty(request.stream, "endAfterHeaders")
    ? request.stream.endAfterHeaders === false
    : request.headers["transfer-encoding"] !== undefined || Number(request.headers["content-length"] ?? 0) > 0

/**
 * Answers a request that the application does not receive any more. An `EventSource` never reconnects after 503, so
 * that it receives an empty stream and a reconnection time. From another origin, it reconnects only if it is permitted
 * to read the response.
 */
const refuse = (request: Http.IncomingMessage, response: Http.ServerResponse): true => {
  request.resume()
  if (!isHttp2(response)) response.setHeader("connection", "close")
  if (!namesEvents(request.headers.accept)) {
    response.writeHead(503, { "retry-after": "3" }).end()
    return true
  }
  if (request.headers.origin !== undefined) {
    response.setHeader("access-control-allow-origin", request.headers.origin)
    response.setHeader("access-control-allow-credentials", "true")
  }
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" })
  response.end(`retry: ${Math.round(1_500 + Math.random() * 3_000)}\n`)
  return true
}

const ignore = () => {}

// Besides `net.Server`, a server of HTTP has `setTimeout`, in each version of the protocol.
const isServer = (u: unknown): u is Server =>
  Predicate.hasProperty(u, "close") && Predicate.hasProperty(u, "listenerCount") &&
  Predicate.hasProperty(u, "setTimeout")

const isRequest = (u: unknown): u is Http.IncomingMessage => Predicate.hasProperty(u, "httpVersionMajor")

const isSession = (u: unknown): u is Http2.Http2Session => Predicate.hasProperty(u, "goaway")

const http2SessionOf = (response: Http.ServerResponse): Http2.Http2Session | undefined =>
  Predicate.hasProperty(response, "stream") && Predicate.hasProperty(response.stream, "session") &&
    isSession(response.stream.session)
    ? response.stream.session
    : undefined

const isResponse = (u: unknown): u is Http.ServerResponse => Predicate.hasProperty(u, "writeHead")

/** Returns true for a response of HTTP/2. The version that a request names is written by its client. */
export const isHttp2 = (response: Http.ServerResponse): boolean => Predicate.hasProperty(response, "stream")

const isDuplex = (u: unknown): u is Duplex => Predicate.hasProperty(u, "unshift") && Predicate.hasProperty(u, "write")

const isBytes = (u: unknown): u is Uint8Array => u instanceof Uint8Array

// The core also runs where there is no Node.
const channels = typeof process === "object" ? process.getBuiltinModule?.("node:diagnostics_channel") : undefined

channels?.subscribe("tracing:net.server.listen:asyncStart", (message) => {
  if (
    Predicate.hasProperty(message, "server") && isServer(message.server) && !closings.has(message.server) &&
    Option.isSome(Fiber.getCurrentFiber())
  ) watch(message.server)
})
