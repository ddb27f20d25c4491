/**
 * An `HttpClient` for requests to addresses that users gave: what `WebPush` should send through on Node.
 *
 * @since 0.1.0
 */
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
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

import * as AddressPolicy from "../internal/addressPolicy.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** How many connections one origin gets at most; over HTTP/2 it is one. Default 64. */
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
  // The socket connects to what this answers, so a name cannot mean something else a moment later.
  const lookup: Net.LookupFunction = (hostname, lookupOptions, callback) =>
    resolve(hostname, { ...lookupOptions, all: true }, (error, answer, family) => {
      if (error !== null) return callback(error, [])
      const addresses = typeof answer === "string" ? [{ address: answer, family: family ?? 0 }] : answer
      const [first] = addresses
      if (first === undefined || !addresses.every(({ address }) => isAllowed(address))) {
        return callback(transportError("ERR_BLOCKED_ADDRESS"), [])
      }
      return lookupOptions.all === true ? callback(null, addresses) : callback(null, first.address, first.family)
    })
  return { isAllowed, lookup }
}

const transportError = (code: string) => Object.assign(new Error(code), { code })

const closed = transportError("ERR_CLIENT_CLOSED")

const maxResponseBytes = 8192

const idleMillis = 60_000

/** Where one exchange tells how it went. Only the first call of `succeed` or `fail` counts. */
interface Exchange {
  readonly method: string
  readonly url: URL
  readonly headers: Headers.Headers
  readonly body: Uint8Array
  readonly succeed: (answer: Response) => void
  readonly fail: (cause: unknown) => void
  /** What interruption does: set by whoever has the exchange in hand. */
  cancel: () => void
}

interface Session {
  readonly _tag: "Http2"
  readonly session: Http2.ClientHttp2Session
  readonly socket: Tls.TLSSocket
  inFlight: number
  retired: boolean
}

interface Connecting {
  readonly _tag: "Connecting"
  readonly socket: Tls.TLSSocket
  readonly waiting: Set<Exchange>
}

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

  const overHttp1 = (exchange: Exchange) => {
    const { body, headers, method, url } = exchange
    const request = Https.request(url, { agent, method, headers })
    exchange.cancel = () => request.destroy()
    request.on("error", exchange.fail)
    request.on("close", () => exchange.fail(transportError("ECONNRESET")))
    request.on("response", (response) => {
      response.on(
        "end",
        collect(
          exchange,
          response,
          () => ({ ...response.headers, ":status": String(response.statusCode) }),
          () => response.destroy()
        )
      )
      response.on("error", exchange.fail)
      response.on("close", () => exchange.fail(transportError("ECONNRESET")))
    })
    request.end(body)
  }

  const overHttp2 = (connection: Session, exchange: Exchange) => {
    const { body, headers, method, url } = exchange
    const stream = connection.session.request({ ...headers, ":method": method, ":path": url.pathname + url.search })
    connection.inFlight++
    let head: Http2.IncomingHttpHeaders = {}
    stream.on("response", (headers) => {
      head = headers
    })
    const cancel = () => stream.close(Http2.constants.NGHTTP2_CANCEL)
    const done = collect(exchange, stream, () => head, cancel)
    exchange.cancel = () => {
      // It may be the connection that is dead, and not this one answer.
      retire(url.origin, connection)
      cancel()
    }
    stream.on("error", () => {})
    stream.on("close", () => {
      connection.inFlight--
      if (connection.retired && connection.inFlight === 0) connection.socket.destroy()
      // A stream that was broken off emits "end" as well.
      if (stream.rstCode === Http2.constants.NGHTTP2_NO_ERROR) return done()
      const refused = stream.rstCode === Http2.constants.NGHTTP2_REFUSED_STREAM
      exchange.fail(transportError(refused ? "NGHTTP2_REFUSED_STREAM" : "ECONNRESET"))
    })
    stream.end(body)
  }

  const retire = (origin: string, connection: Session) => {
    forget(origin, connection)
    connection.retired = true
    if (connection.inFlight === 0) connection.socket.destroy()
  }

  const connect = (exchange: Exchange) => {
    const { hostname, origin, port } = exchange.url
    const host = hostname.replace(/^\[|\]$/g, "")
    if (Net.isIP(host) !== 0 && !isAllowed(host)) return exchange.fail(transportError("ERR_BLOCKED_ADDRESS"))
    const socket = Tls.connect({
      ...tls,
      host,
      port: port === "" ? 443 : Number(port),
      servername: Net.isIP(host) === 0 ? host : "",
      ALPNProtocols: ["h2", "http/1.1"]
    })
    const connecting: Connecting = { _tag: "Connecting", socket, waiting: new Set() }
    const abandon = (cause: Error) => {
      forget(origin, connecting)
      socket.destroy()
      for (const waiting of connecting.waiting) waiting.fail(cause)
    }
    const flush = (run: (exchange: Exchange) => void) => {
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
        http1Origins.add(origin)
        const key = `${host}:${port === "" ? 443 : port}`
        // Until a request has it, nobody else listens.
        socket.on("error", () => {})
        agent.connected.set(key, socket)
        flush(overHttp1)
        if (agent.connected.delete(key)) socket.destroy()
        return
      }
      const session = Http2.connect(origin, { createConnection: () => socket, settings: { enablePush: false } })
      const connection: Session = { _tag: "Http2", session, socket, inFlight: 0, retired: false }
      session.on("error", abandon)
      session.on("goaway", () => retire(origin, connection))
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
      if (connecting.waiting.size === 0) connecting.socket.destroy()
    }
  }

  return {
    exchanges,
    run(exchange: Exchange) {
      if (agent.isClosed) return exchange.fail(closed)
      exchanges.add(exchange)
      attempt(exchange, () => {
        const { origin } = exchange.url
        if (http1Origins.has(origin)) return overHttp1(exchange)
        const connection = origins.get(origin)
        if (connection === undefined) return connect(exchange)
        return connection._tag === "Connecting" ? wait(connection, exchange) : overHttp2(connection, exchange)
      })
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

/**
 * A client that
 *
 * - connects to public addresses alone, whether the URL holds the address or a name that is resolved to it (every address of
 *   a name has to be public), and follows no redirect;
 * - keeps connections alive: one for each origin that speaks HTTP/2, at most `connections` for one that speaks HTTP/1.1;
 * - reads an answer to its end before it gives it out, and cuts a body off after 8 KiB;
 * - gives up the connection of a request that is interrupted;
 * - opens no span, since the URL is a secret.
 *
 * The connections are closed with the scope. Only https URLs, and bodies that are bytes.
 *
 * @example
 * ```ts
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 *
 * const client = PushHttpClient.make({ connections: 16 })
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Effect.Effect<HttpClient.HttpClient, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => makeTransport(options)),
      (transport) => Effect.sync(() => transport.close())
    ),
    (transport) =>
      // Not `HttpClient.make`: its span would carry the URL, and its AbortController is a cost that nothing here needs.
      HttpClient.makeWith<HttpClientError.HttpClientError, never, HttpClientError.HttpClientError, never>(
        Effect.flatMap((request) =>
          Effect.async<HttpClientResponse.HttpClientResponse, HttpClientError.RequestError>((resume) => {
            const fail = (reason: "Transport" | "Encode" | "InvalidUrl", cause?: unknown) =>
              resume(Effect.fail(new HttpClientError.RequestError({ request, reason, cause })))
            const url = Either.getOrUndefined(UrlParams.makeUrl(request.url, request.urlParams, request.hash))
            if (url?.protocol !== "https:") return fail("InvalidUrl")
            if (request.body._tag !== "Uint8Array" && request.body._tag !== "Empty") return fail("Encode")
            const settled = () => transport.exchanges.delete(exchange)
            const exchange: Exchange = {
              method: request.method,
              url,
              headers: request.headers,
              body: request.body._tag === "Uint8Array" ? request.body.body : new Uint8Array(),
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
          })
        ),
        Effect.succeed
      )
  )

/**
 * `make` as a layer.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const WebPushLive = WebPush.layerConfig().pipe(Layer.provide(PushHttpClient.layer()))
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: Options): Layer.Layer<HttpClient.HttpClient> =>
  Layer.scoped(HttpClient.HttpClient, make(options))
