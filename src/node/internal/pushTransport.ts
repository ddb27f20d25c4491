/**
 * The connections of `PushHttpClient`. The first exchange with an origin opens a socket, whose ALPN selects the
 * protocol:
 *
 *     dispatch -> connect -> "h2"       -> a session for each origin (http2.ts)
 *                         -> "http/1.1" -> an agent for all origins (http1.ts)
 *
 * Exchanges that arrive meanwhile wait for the connection (`Connecting`).
 */
import * as Http2 from "node:http2"
import * as Net from "node:net"
import * as Tls from "node:tls"

import type { Exchange } from "./exchange.js"
import { attempt, hostOf, portOf, transportError } from "./exchange.js"
import * as OverHttp1 from "./http1.js"
import * as OverHttp2 from "./http2.js"
import * as PublicLookup from "./publicLookup.js"

interface Settings {
  readonly connections: number
  readonly isAllowed: (address: string) => boolean
  readonly ca: ReadonlyArray<string> | undefined
  readonly lookup: Net.LookupFunction
}

interface Connecting {
  readonly _tag: "Connecting"
  readonly socket: Tls.TLSSocket
  readonly waiting: Set<Exchange>
}

const idleMillis = 60_000

// The time limit of name resolution, connection and handshake. Waiting exchanges may have a shorter one, and new ones
// join.
const connectMillis = 10_000

const maxHttp1Origins = 1024

export const make = ({ ca, connections, isAllowed, lookup }: Settings) => {
  const tls: Tls.SecureContextOptions & { lookup: Net.LookupFunction } = {
    lookup: PublicLookup.make(lookup, isAllowed),
    ...(ca === undefined ? undefined : { ca: [...ca] })
  }
  const agent = new OverHttp1.Http1Agent({
    ...tls,
    keepAlive: true,
    maxSockets: connections,
    scheduling: "lifo",
    timeout: idleMillis
  })
  const http1Origins = new Set<string>()
  const origins = new Map<string, OverHttp2.Session | Connecting>()
  const sockets = new Set<Tls.TLSSocket>()
  const exchanges = new Set<Exchange>()

  const forget = (origin: string, connection: OverHttp2.Session | Connecting) => {
    if (origins.get(origin) === connection) origins.delete(origin)
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
    const selectHttp1 = () => {
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
    const selectHttp2 = () => {
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
    sockets.add(socket)
    socket.once("close", () => sockets.delete(socket))
    socket.once("close", onClose)
    socket.on("error", abandon)
    socket.once("secureConnect", () => socket.alpnProtocol === "h2" ? selectHttp2() : selectHttp1())
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
      connecting.socket.destroy()
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
      for (const socket of sockets) socket.destroy()
    }
  }
}
