/**
 * The connections of `PushHttpClient`. The first exchange with an origin opens a socket, whose ALPN selects the
 * protocol:
 *
 *     dispatch -> connect -> "h2"       -> a session for each origin (http2.ts)
 *                         -> "http/1.1" -> an agent for all origins (http1.ts)
 *
 * Exchanges that arrive meanwhile wait for the connection (`Connecting`).
 *
 * undici's `Agent` would need less code. It was tried on 2026-11-26 and does not have these properties. Version 7.30.2,
 * the last one for Node 20:
 *
 * - `maxResponseSize` has no effect over HTTP/2: with 8,192 bytes, 50 MB of an endless body were read.
 * - A GOAWAY ends the first request of the queue with UND_ERR_SOCKET, and its last stream id is not read: a request
 *   that the service has not processed is not distinguished from one that may have been delivered (`neverSent`).
 * - A session of HTTP/2 is probed each 60 seconds without a time limit, and not before it is used again: a connection
 *   that a network has dropped loses the messages of a whole time limit.
 * - `connections` is the number of sessions of HTTP/2 as well as of sockets of HTTP/1.1: 1 or 64 for both.
 * - `connect.lookup` is not called for an address in the URL. Its check would stay here.
 *
 * Version 8.13.1 corrects the first two, needs Node 22.19, and probes a session only after a request has timed out. Its
 * code for HTTP/2 has 2,012 lines, where http2.ts has 135.
 */
import * as Http2 from "node:http2"
import * as Net from "node:net"
import * as Tls from "node:tls"

import type { Exchange } from "./exchange.js"
import { attempt, hostOf, portOf, transportError } from "./exchange.js"
import * as OverHttp1 from "./http1.js"
import * as OverHttp2 from "./http2.js"
import * as Proxy from "./proxy.js"
import * as PublicLookup from "./publicLookup.js"

interface Settings {
  readonly connections: number
  readonly isAllowed: (address: string) => boolean
  readonly ca: ReadonlyArray<string> | undefined
  readonly lookup: Net.LookupFunction
  readonly proxy: Proxy.Proxy | undefined
}

interface Connecting {
  readonly _tag: "Connecting"
  /** Ends the socket, or the tunnel that is to become one. */
  destroy: () => void
  readonly waiting: Set<Exchange>
}

const idleMillis = 60_000

// The time limit of name resolution, connection and handshake. Waiting exchanges may have a shorter one, and new ones
// join.
const connectMillis = 10_000

const maxHttp1Origins = 1024

export const make = ({ ca, connections, isAllowed, lookup, proxy }: Settings) => {
  const tls: Tls.SecureContextOptions & { lookup: Net.LookupFunction } = {
    lookup: PublicLookup.make(lookup, isAllowed),
    ...(ca === undefined ? undefined : { ca: [...ca] })
  }
  const sockets = new Set<Net.Socket>()
  const track = (socket: Net.Socket) => {
    sockets.add(socket)
    socket.once("close", () => sockets.delete(socket))
  }
  const tunnels = new Set<() => void>()

  /** Opens a tunnel. Returns a function that stops it, and `undefined` if the host is reached without a proxy. */
  const openTunnel = (url: URL, done: Proxy.Done) => {
    if (proxy === undefined || !Proxy.isFor(proxy, url)) return undefined
    const target = `${url.hostname}:${portOf(url)}`
    const close = Proxy.open(proxy, target, { ca, lookup, timeout: connectMillis }, (error, socket) => {
      tunnels.delete(stop)
      if (socket !== undefined) track(socket)
      done(error, socket)
    })
    const stop = () => {
      tunnels.delete(stop)
      close()
    }
    tunnels.add(stop)
    return stop
  }

  const agent = new OverHttp1.Http1Agent({
    ...tls,
    keepAlive: true,
    maxSockets: connections,
    scheduling: "lifo",
    timeout: idleMillis
  }, openTunnel)
  const http1Origins = new Set<string>()
  const origins = new Map<string, OverHttp2.Session | Connecting>()
  const exchanges = new Set<Exchange>()

  const forget = (origin: string, connection: OverHttp2.Session | Connecting) => {
    if (origins.get(origin) === connection) origins.delete(origin)
  }

  const connect = (exchange: Exchange) => {
    const { origin } = exchange.url
    const host = hostOf(exchange.url)
    const port = portOf(exchange.url)
    if (Net.isIP(host) !== 0 && !isAllowed(host)) return exchange.fail(transportError("ERR_BLOCKED_ADDRESS"))
    const connecting: Connecting = { _tag: "Connecting", destroy: () => {}, waiting: new Set() }
    const abandon = (cause: Error) => {
      clearTimeout(timer)
      forget(origin, connecting)
      connecting.destroy()
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
    const selectHttp1 = (socket: Tls.TLSSocket) => {
      forget(origin, connecting)
      socket.off("close", onClose).off("error", abandon)
      // Subscribers choose the origin where a host is allowed by its suffix.
      for (const oldest of http1Origins) {
        if (http1Origins.size < maxHttp1Origins) break
        http1Origins.delete(oldest)
      }
      http1Origins.add(origin)
      const key = `${host}:${port}`
      // The socket has no other listener until a request takes it.
      socket.on("error", () => {})
      agent.connected.set(key, socket)
      flush((waiting) => OverHttp1.send(agent, waiting))
      if (agent.connected.delete(key)) socket.destroy()
    }
    const selectHttp2 = (socket: Tls.TLSSocket) => {
      const session = Http2.connect(origin, { createConnection: () => socket, settings: { enablePush: false } })
      const connection = OverHttp2.make(session, socket, () => forget(origin, connection))
      session.on("error", abandon)
      session.on("close", () => {
        connection.forget()
        // Node waits until the other side has closed as well.
        socket.destroy()
      })
      session.setTimeout(idleMillis, () => {
        OverHttp2.retire(connection)
        session.close()
      })
      // The number of streams that the service accepts is not known before its settings.
      session.once("remoteSettings", () => {
        socket.off("close", onClose)
        forget(origin, connecting)
        connection.lastReadAt = performance.now()
        origins.set(origin, connection)
        flush((waiting) => OverHttp2.send(connection, waiting, dispatch))
      })
    }
    const secure = (tunnel: { readonly socket?: Net.Socket }) => {
      const socket = Tls.connect({
        ...tls,
        ...tunnel,
        host,
        port,
        servername: Net.isIP(host) === 0 ? host : "",
        ALPNProtocols: ["h2", "http/1.1"]
      })
      connecting.destroy = () => socket.destroy()
      track(socket)
      socket.once("close", onClose)
      socket.on("error", abandon)
      socket.once("secureConnect", () => socket.alpnProtocol === "h2" ? selectHttp2(socket) : selectHttp1(socket))
    }
    const stop = openTunnel(exchange.url, (error, socket) => {
      if (socket === undefined) abandon(error ?? transportError("ERR_PROXY_FAILED"))
      else secure({ socket })
    })
    if (stop === undefined) secure({})
    else connecting.destroy = stop
    origins.set(origin, connecting)
    wait(connecting, exchange)
  }

  const wait = (connecting: Connecting, exchange: Exchange) => {
    connecting.waiting.add(exchange)
    exchange.cancel = () => {
      connecting.waiting.delete(exchange)
      if (connecting.waiting.size > 0) return
      // The next exchange must not wait for a socket that is being destroyed.
      forget(exchange.url.origin, connecting)
      connecting.destroy()
    }
  }

  const dispatch = (exchange: Exchange) =>
    attempt(exchange, () => {
      const { origin } = exchange.url
      if (http1Origins.has(origin)) return OverHttp1.send(agent, exchange)
      const connection = origins.get(origin)
      if (connection === undefined) return connect(exchange)
      return connection._tag === "Connecting"
        ? wait(connection, exchange)
        : OverHttp2.send(connection, exchange, dispatch)
    })

  const closed = transportError("ERR_CLIENT_CLOSED")

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
      for (const stop of tunnels) stop()
      for (const socket of sockets) socket.destroy()
    }
  }
}
