/**
 * An `HttpClient` for requests to addresses that users gave: what `WebPush` should send through on Node.
 *
 * @since 0.1.0
 */
import { X509Certificate } from "node:crypto"
import * as Dns from "node:dns"
import * as Http2 from "node:http2"
import * as Https from "node:https"
import * as Net from "node:net"
import type { Duplex, Readable } from "node:stream"
import { PassThrough } from "node:stream"
import * as Tls from "node:tls"

import type * as Headers from "@effect/platform/Headers"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as UrlParams from "@effect/platform/UrlParams"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"

import { maxResponseBytes, Transmission } from "../WebPush.js"
import * as AddressPolicy from "./internal/addressPolicy.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The number of connections that one origin gets at most; over HTTP/2 it is one. Default 64. */
  readonly connections?: number | undefined
  /** Addresses and subnets (`10.1.0.0/16`) that may be connected to although they are not public: those of a push service of your own. */
  readonly allowedAddresses?: ReadonlyArray<string> | undefined
  /** Certificates to trust, in PEM, instead of the well-known ones. */
  readonly ca?: string | ReadonlyArray<string> | undefined
  /** Resolves names in place of `dns.lookup`. What it answers is checked all the same. */
  readonly lookup?: Net.LookupFunction | undefined
}

const publicOnly = (options: Options) => {
  const isAllowed = AddressPolicy.make(options.allowedAddresses ?? [])
  const resolve: Net.LookupFunction = options.lookup ?? Dns.lookup
  // The socket connects to the addresses that this gives, so a name cannot mean something else a moment later.
  const lookup: Net.LookupFunction = (hostname, lookupOptions, callback) => {
    // A resolver of the application's may throw, call back twice, or with anything. Here that would end the process.
    let isOpen = true
    const once = (answer: () => void) => {
      if (!isOpen) return
      isOpen = false
      answer()
    }
    const guard = (run: () => void) => {
      try {
        run()
      } catch (cause) {
        once(() => callback(transportError("ERR_LOOKUP_FAILED", cause), []))
      }
    }
    guard(() =>
      resolve(hostname, { ...lookupOptions, all: true }, (error, answer) =>
        guard(() => {
          if (error) return once(() => callback(error, []))
          const addresses = (typeof answer === "string" ? [{ address: answer }] : answer).map(({ address }) => ({
            address,
            family: Net.isIP(address)
          }))
          const [first] = addresses
          if (first === undefined || !addresses.every(({ address }) => isAllowed(address))) {
            return once(() => callback(transportError("ERR_BLOCKED_ADDRESS"), []))
          }
          return once(() =>
            lookupOptions.all === true ? callback(null, addresses) : callback(null, first.address, first.family)
          )
        }))
    )
  }
  return { isAllowed, lookup }
}

const transportError = (code: string, cause?: unknown) => Object.assign(new Error(code, { cause }), { code })

const closed = transportError("ERR_CLIENT_CLOSED")

const idleMillis = 60_000

// The time for the name, the connection and the handshake. Those that wait for them may have less, but then others may have come.
const connectMillis = 10_000

// A network forgets connections without a word. One on which nothing came for this long is asked (PING) before it is used again,
// and is replaced if it does not answer in time.
const silentMillis = 1000
const pingMillis = 250

const maxHttp1Origins = 1024

/** One request and its answer. Only the first call of `succeed` or `fail` counts. */
interface Exchange {
  readonly method: string
  readonly url: URL
  readonly headers: Headers.Headers
  readonly body: Uint8Array
  readonly transmission: Transmission["Type"]
  readonly succeed: (answer: Response) => void
  readonly fail: (cause: unknown) => void
  /** The effect of an interruption: set by the part that has the exchange in hand. */
  cancel: () => void
}

const addSent = ({ transmission }: Exchange, count: 1 | -1) => {
  transmission.sent = (transmission.sent ?? 0) + count
}

interface Session {
  readonly _tag: "Http2"
  readonly session: Http2.ClientHttp2Session
  readonly socket: Tls.TLSSocket
  /** The streams of exchanges that are not over. */
  readonly streams: Set<Http2.ClientHttp2Stream>
  /** The exchanges that wait for the answer to a PING. */
  checking: Set<Exchange> | undefined
  heardAt: number
  retired: boolean
  /** Of the last GOAWAY: its code, and the last stream that the service has looked at. */
  goawayCode: number
  lastStreamId: number
}

interface Connecting {
  readonly _tag: "Connecting"
  readonly socket: Tls.TLSSocket
  readonly waiting: Set<Exchange>
}

const hostOf = ({ hostname }: URL): string => hostname.replace(/^\[|\]$/g, "")

const portOf = ({ port }: URL): number => port === "" ? 443 : Number(port)

/** The agent of those origins that do not speak HTTP/2. It begins with the connection on which that was found out. */
class Http1Agent extends Https.Agent {
  readonly connected = new Map<string, Tls.TLSSocket>()
  isClosed = false
  override createConnection(options: Https.RequestOptions, callback?: (error: Error | null, stream: Duplex) => void) {
    // When a socket is destroyed, Node dials again for the requests that waited for it.
    if (this.isClosed) {
      callback?.(closed, new PassThrough())
      return undefined
    }
    const key = `${options.host}:${options.port}`
    const socket = this.connected.get(key)
    this.connected.delete(key)
    return socket === undefined || socket.destroyed ? super.createConnection(options, callback) : socket
  }
}

/**
 * Collects the body and returns what gives out the answer, to be called when the body has ended. A body longer than any push service's
 * is cut off, and `stop` called.
 */
const collect = (
  exchange: Exchange,
  source: Readable,
  head: () => Http2.IncomingHttpHeaders,
  stop: () => void
): () => void => {
  const chunks: Array<Buffer> = []
  let size = 0
  const done = () => {
    const headers = new globalThis.Headers()
    let status = 0
    for (const [name, value] of Object.entries(head())) {
      if (name === ":status") status = Number(value)
      else if (value !== undefined) { for (const one of [value].flat()) headers.append(name, one) }
    }
    // The constructor takes no body for these, and no status outside of 200 to 599.
    const body = size === 0 || status === 204 || status === 205 || status === 304 ? null : Buffer.concat(chunks)
    if (status < 200 || status > 599) exchange.fail(transportError("HPE_INVALID_STATUS"))
    else exchange.succeed(new Response(body, { status, headers }))
  }
  source.on("data", (chunk: Buffer) => {
    chunks.push(chunk)
    size += chunk.length
    if (size > maxResponseBytes) {
      done()
      stop()
    }
  })
  return done
}

const makeTransport = (options: Options) => {
  const { isAllowed, lookup } = publicOnly(options)
  const tls: Tls.SecureContextOptions & { lookup: Net.LookupFunction } = {
    lookup,
    ...(options.ca === undefined ? undefined : { ca: [options.ca].flat() })
  }
  const agent = new Http1Agent({
    ...tls,
    keepAlive: true,
    maxSockets: options.connections ?? 64,
    scheduling: "lifo",
    timeout: idleMillis
  })
  const http1Origins = new Set<string>()
  const origins = new Map<string, Session | Connecting>()
  const sockets = new Set<Tls.TLSSocket>()
  const exchanges = new Set<Exchange>()

  const forget = (origin: string, connection: Session | Connecting) => {
    if (origins.get(origin) === connection) origins.delete(origin)
  }

  // Node throws for a header that it will not send, and for a session that has just ended.
  const attempt = (exchange: Exchange, run: () => void) => {
    try {
      run()
    } catch (cause) {
      exchange.fail(cause)
    }
  }

  // The idle connections of one origin that speaks HTTP/1.1.
  const dropIdle = (url: URL) => {
    const name = `${hostOf(url)}:${portOf(url)}:`
    for (const [key, idle] of Object.entries(agent.freeSockets)) {
      if (key.startsWith(name)) { for (const socket of idle ?? []) socket.destroy() }
    }
  }

  const overHttp1 = (exchange: Exchange, isSecondAttempt = false) => {
    const { body, headers, method, url } = exchange
    const request = Https.request(url, { agent, method, headers })
    const heard = () => request.socket?.bytesRead ?? 0
    let heardBefore = 0
    let isOver = false
    const fail = (cause: unknown) => {
      if (isOver) return
      isOver = true
      const wasIdle = request.reusedSocket && heard() === heardBefore
      if (wasIdle && !isSecondAttempt && !agent.isClosed) {
        // The service closed an idle connection while the request was on its way to it.
        dropIdle(url)
        return attempt(exchange, () => overHttp1(exchange, true))
      }
      exchange.fail(cause)
    }
    exchange.cancel = () => {
      isOver = true
      // A network that has forgotten this connection has forgotten the others as well.
      if (request.reusedSocket && heard() === heardBefore) dropIdle(url)
      request.destroy()
    }
    request.on("socket", (socket) => {
      heardBefore = socket.bytesRead
      if (socket instanceof Tls.TLSSocket && !socket.authorized) {
        socket.once("secureConnect", () => addSent(exchange, 1))
      } else addSent(exchange, 1)
    })
    request.on("error", fail)
    request.on("close", () => fail(transportError("ECONNRESET")))
    request.on("response", (response) => {
      // This connection is not the one for the host.
      if (response.statusCode === 421) request.shouldKeepAlive = false
      response.on(
        "end",
        collect(
          exchange,
          response,
          () => ({ ...response.headers, ":status": String(response.statusCode) }),
          () => response.destroy()
        )
      )
      response.on("error", fail)
      response.on("close", () => fail(transportError("ECONNRESET")))
    })
    request.end(body)
  }

  const overHttp2 = (connection: Session, exchange: Exchange) => {
    const { body, headers, method, url } = exchange
    const stream = connection.session.request(
      { ...headers, ":method": method, ":path": url.pathname + url.search },
      { endStream: body.length === 0 }
    )
    addSent(exchange, 1)
    connection.streams.add(stream)
    let head: Http2.IncomingHttpHeaders = {}
    stream.on("response", (headers) => {
      connection.heardAt = performance.now()
      head = headers
      // This connection is not the one for the host.
      if (headers[":status"] === 421) retire(url.origin, connection)
    })
    // Over a connection that is dead, the event "close" may not come.
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
      // It may be the connection that is dead, and not this one answer.
      retire(url.origin, connection)
      cancel()
    }
    stream.on("error", () => {})
    stream.on("close", () => {
      const { goawayCode, lastStreamId } = connection
      const { NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = Http2.constants
      // With the code of a GOAWAY, Node ends all streams, those that the service looked at as well.
      const isRefused = stream.id === undefined || stream.id > lastStreamId ||
        (stream.rstCode === NGHTTP2_REFUSED_STREAM && goawayCode === NGHTTP2_NO_ERROR)
      if (isRefused) {
        addSent(exchange, -1)
        exchange.fail(transportError("NGHTTP2_REFUSED_STREAM"))
      } else if (stream.rstCode === NGHTTP2_NO_ERROR) done() // One that was broken off emits "end" as well.
      else exchange.fail(transportError("ECONNRESET"))
      leave()
    })
    if (body.length > 0) stream.end(body)
  }

  const retire = (origin: string, connection: Session) => {
    forget(origin, connection)
    connection.retired = true
    if (connection.streams.size === 0) connection.socket.destroy()
  }

  const overSession = (connection: Session, exchange: Exchange) => {
    const isSilent = performance.now() - connection.heardAt >= silentMillis
    if (connection.checking === undefined && !isSilent) return overHttp2(connection, exchange)
    const waiting = connection.checking ?? check(exchange.url.origin, connection)
    waiting.add(exchange)
    exchange.cancel = () => waiting.delete(exchange)
  }

  const check = (origin: string, connection: Session): Set<Exchange> => {
    const waiting = new Set<Exchange>()
    connection.checking = waiting
    const end = (isAlive: boolean) => {
      if (connection.checking !== waiting) return
      connection.checking = undefined
      connection.session.off("close", onClose)
      clearTimeout(timer)
      if (isAlive) connection.heardAt = performance.now()
      else retire(origin, connection)
      for (const exchange of waiting) dispatch(exchange)
    }
    // On a busy machine the answer may be there, and not yet be read.
    const timer = setTimeout(() => setImmediate(() => end(false)), pingMillis)
    const onClose = () => end(false)
    connection.session.once("close", onClose)
    connection.session.ping((error) => end(error === null))
    return waiting
  }

  const connect = (exchange: Exchange) => {
    const { origin } = exchange.url
    const host = hostOf(exchange.url)
    const port = portOf(exchange.url)
    if (Net.isIP(host) !== 0 && !isAllowed(host)) return exchange.fail(transportError("ERR_BLOCKED_ADDRESS"))
    const socket = Tls.connect({
      ...tls,
      host,
      port,
      servername: Net.isIP(host) === 0 ? host : "",
      ALPNProtocols: ["h2", "http/1.1"]
    })
    const connecting: Connecting = { _tag: "Connecting", socket, waiting: new Set() }
    const abandon = (cause: Error) => {
      clearTimeout(timer)
      forget(origin, connecting)
      socket.destroy()
      for (const waiting of connecting.waiting) waiting.fail(cause)
    }
    const timer = setTimeout(() => abandon(transportError("ETIMEDOUT")), connectMillis)
    const flush = (run: (exchange: Exchange) => void) => {
      clearTimeout(timer)
      const waiting = [...connecting.waiting]
      connecting.waiting.clear()
      for (const exchange of waiting) attempt(exchange, () => run(exchange))
    }
    const onClose = () => abandon(transportError("ECONNRESET"))
    sockets.add(socket)
    socket.once("close", () => sockets.delete(socket))
    socket.once("close", onClose)
    socket.on("error", abandon)
    socket.once("secureConnect", () => {
      if (socket.alpnProtocol !== "h2") {
        forget(origin, connecting)
        socket.off("close", onClose).off("error", abandon)
        // Users choose the origin where a host is allowed by its suffix.
        for (const oldest of http1Origins) {
          if (http1Origins.size < maxHttp1Origins) break
          http1Origins.delete(oldest)
        }
        http1Origins.add(origin)
        const key = `${host}:${port}`
        // Until a request has it, nothing else listens.
        socket.on("error", () => {})
        agent.connected.set(key, socket)
        flush((waiting) => overHttp1(waiting))
        if (agent.connected.delete(key)) socket.destroy()
        return
      }
      const session = Http2.connect(origin, { createConnection: () => socket, settings: { enablePush: false } })
      const connection: Session = {
        _tag: "Http2",
        session,
        socket,
        streams: new Set(),
        checking: undefined,
        heardAt: performance.now(),
        retired: false,
        goawayCode: Http2.constants.NGHTTP2_NO_ERROR,
        lastStreamId: Number.POSITIVE_INFINITY
      }
      session.on("error", abandon)
      session.on("goaway", (code, lastStreamId) => {
        connection.goawayCode = code
        connection.lastStreamId = lastStreamId
        retire(origin, connection)
      })
      session.on("close", () => {
        forget(origin, connection)
        // Node waits for the other side to close as well.
        socket.destroy()
      })
      session.setTimeout(idleMillis, () => {
        retire(origin, connection)
        session.close()
      })
      // Before its settings arrive it is not known how many streams the service takes.
      session.once("remoteSettings", () => {
        socket.off("close", onClose)
        forget(origin, connecting)
        connection.heardAt = performance.now()
        origins.set(origin, connection)
        flush((waiting) => overHttp2(connection, waiting))
      })
    })
    origins.set(origin, connecting)
    wait(connecting, exchange)
  }

  const wait = (connecting: Connecting, exchange: Exchange) => {
    connecting.waiting.add(exchange)
    exchange.cancel = () => {
      connecting.waiting.delete(exchange)
      if (connecting.waiting.size > 0) return
      // The next message must not wait for a socket that is being destroyed.
      forget(exchange.url.origin, connecting)
      connecting.socket.destroy()
    }
  }

  const dispatch = (exchange: Exchange) =>
    attempt(exchange, () => {
      const { origin } = exchange.url
      if (http1Origins.has(origin)) return overHttp1(exchange)
      const connection = origins.get(origin)
      if (connection === undefined) return connect(exchange)
      return connection._tag === "Connecting" ? wait(connection, exchange) : overSession(connection, exchange)
    })

  return {
    exchanges,
    run(exchange: Exchange) {
      if (agent.isClosed) return exchange.fail(closed)
      exchanges.add(exchange)
      dispatch(exchange)
    },
    close() {
      agent.isClosed = true
      for (const exchange of exchanges) {
        exchange.cancel()
        exchange.fail(closed)
      }
      agent.destroy()
      for (const socket of sockets) socket.destroy()
    }
  }
}

const isCertificate = (pem: string): boolean => {
  try {
    return new X509Certificate(pem).raw.length > 0
  } catch {
    return false
  }
}

const mistakeIn = ({ allowedAddresses = [], ca = [], connections = 1 }: Options): string | undefined =>
  !Number.isSafeInteger(connections) || connections < 1
    ? "connections must be a whole number, 1 or more"
    : !allowedAddresses.every(AddressPolicy.isSubnet)
    ? "allowedAddresses must be addresses, or subnets such as 10.1.0.0/16"
    : ![ca].flat().every(isCertificate)
    ? "ca must be certificates in PEM"
    : undefined

/**
 * A client that
 *
 * - connects to public addresses alone, whether the URL holds the address or a name that is resolved to it (every address of
 *   a name has to be public), and follows no redirect;
 * - keeps connections alive: one for each origin that speaks HTTP/2, at most `connections` for one that speaks HTTP/1.1;
 * - asks a connection of HTTP/2 that was silent for a second whether it is still there before it is used again, and sends once more
 *   a request that met the end of an idle connection of HTTP/1.1;
 * - reads an answer to its end before it gives it out, and cuts a body off after 8 KiB;
 * - gives up the connection of a request that is interrupted, and one that is not made within 10 seconds;
 * - opens no span, since the URL is a secret.
 *
 * The connections are closed with the scope. Only https URLs, and bodies that are bytes.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 *
 * const client = PushHttpClient.make({ connections: 16 })
 * ```
 */
export const make = (options: Options = {}): Effect.Effect<HttpClient.HttpClient, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.suspend(() => {
        const mistake = mistakeIn(options)
        return mistake === undefined
          ? Effect.sync(() => makeTransport(options))
          : Effect.die(new Cause.IllegalArgumentException(`PushHttpClient: ${mistake}`))
      }),
      (transport) => Effect.sync(() => transport.close())
    ),
    (transport) =>
      // Not `HttpClient.make`: its span would carry the URL, and its AbortController is a cost that nothing here needs.
      HttpClient.makeWith<HttpClientError.HttpClientError, never, HttpClientError.HttpClientError, never>(
        Effect.flatMap((request) =>
          Effect.flatMap(Effect.serviceOption(Transmission), (known) =>
            Effect.async<HttpClientResponse.HttpClientResponse, HttpClientError.RequestError>((resume) => {
              const transmission = Option.getOrElse(known, (): Transmission["Type"] => ({ sent: 0 }))
              transmission.sent ??= 0
              const fail = (reason: "Transport" | "Encode" | "InvalidUrl", cause?: unknown) =>
                resume(Effect.fail(new HttpClientError.RequestError({ request, reason, cause })))
              const url = Either.getOrUndefined(UrlParams.makeUrl(request.url, request.urlParams, request.hash))
              if (url?.protocol !== "https:") return fail("InvalidUrl")
              if (request.body._tag !== "Uint8Array" && request.body._tag !== "Empty") {
                return fail("Encode")
              }
              const settled = () =>
                transport.exchanges.delete(exchange)
              const exchange: Exchange = {
                method: request.method,
                url,
                headers: request.headers,
                body: request.body._tag === "Uint8Array" ? request.body.body : new Uint8Array(),
                transmission,
                succeed: (answer) => {
                  settled()
                  resume(Effect.succeed(HttpClientResponse.fromWeb(request, answer)))
                },
                fail: (cause) => {
                  settled()
                  fail("Transport", cause)
                },
                cancel: () => {}
              }
              transport.run(exchange)
              return Effect.sync(() => {
                settled()
                exchange.cancel()
              })
            }))
        ),
        Effect.succeed
      )
  )

/**
 * `make` as a layer.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const WebPushLive = WebPush.layerConfig().pipe(Layer.provide(PushHttpClient.layer()))
 * ```
 */
export const layer = (options?: Options): Layer.Layer<HttpClient.HttpClient> =>
  Layer.scoped(HttpClient.HttpClient, make(options))
