/**
 * Tunnels through an HTTP proxy (CONNECT, RFC 9110, 9.3.6). The connection to the proxy is not guarded, since a proxy
 * stands at a private address as a rule.
 */
import * as Http from "node:http"
import * as Https from "node:https"
import type * as Net from "node:net"

import * as Redacted from "effect/Redacted"

import { hostOf, portOf, transportError } from "./exchange.js"

export interface Proxy {
  readonly url: URL
  /** `user:password`. */
  readonly credentials: Redacted.Redacted | undefined
  /** Names, with the names below them, that are reached without the proxy. */
  readonly except: ReadonlyArray<string>
}

const decode = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Returns `undefined` for a text that is not the URL of a proxy: http or https, a host and a port. */
export const fromUrl = (text: string): Omit<Proxy, "except"> | undefined => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.pathname !== "/" || url.search !== "") {
    return undefined
  }
  const { password, username } = url
  const credentials = username === "" && password === ""
    ? undefined
    : Redacted.make(`${decode(username)}:${decode(password)}`)
  url.username = ""
  url.password = ""
  return { url, credentials }
}

/** Returns the value of HTTPS_PROXY, and an empty text if it is absent. */
export const urlIn = (environment: NodeJS.ProcessEnv): string =>
  environment.https_proxy ?? environment.HTTPS_PROXY ?? ""

/** Returns the proxy of HTTPS_PROXY and NO_PROXY, and `undefined` if the first is absent or no URL of a proxy. */
export const fromEnvironment = (environment: NodeJS.ProcessEnv): Proxy | undefined => {
  const proxy = fromUrl(urlIn(environment))
  const except = (environment.no_proxy ?? environment.NO_PROXY ?? "").split(/[\s,]+/)
  return proxy && { ...proxy, except: except.filter((name) => name !== "").map((name) => name.toLowerCase()) }
}

/** Returns `true` if the URL is reached through the proxy. */
export const isFor = ({ except }: Proxy, url: URL): boolean =>
  !except.some((entry) => {
    const name = entry.replace(/^\*?\./, "")
    return entry === "*" || [hostOf(url), url.hostname, `${url.hostname}:${portOf(url)}`].some((host) =>
      host === name || host.endsWith(`.${name}`)
    )
  })

interface Settings {
  readonly ca: ReadonlyArray<string> | undefined
  readonly lookup: Net.LookupFunction
  readonly timeout: number
}

/** The end of an attempt to open a tunnel: an error, or its socket. */
export type Done = (error: Error | undefined, socket?: Net.Socket) => void

/** Opens a tunnel to a host and port. Returns a function that stops it, after which `done` is not called. */
export const open = (
  { credentials, url }: Proxy,
  target: string,
  { ca, lookup, timeout }: Settings,
  done: Done
): () => void => {
  const request = (url.protocol === "https:" ? Https : Http).request({
    agent: false,
    host: hostOf(url),
    port: url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port),
    lookup,
    ...(ca === undefined ? undefined : { ca: [...ca] }),
    method: "CONNECT",
    path: target,
    headers: {
      host: target,
      ...(credentials === undefined ? undefined : {
        "proxy-authorization": `Basic ${Buffer.from(Redacted.value(credentials)).toString("base64")}`
      })
    }
  })
  let isOver = false
  const end = (error: Error | undefined, socket?: Net.Socket) => {
    if (isOver) return
    isOver = true
    clearTimeout(timer)
    if (error !== undefined) request.destroy()
    done(error, socket)
  }
  const timer = setTimeout(() => end(transportError("ERR_PROXY_ETIMEDOUT")), timeout)
  request.on(
    "error",
    (cause: NodeJS.ErrnoException) => end(transportError(`ERR_PROXY_${cause.code ?? "FAILED"}`, cause))
  )
  request.on("close", () => end(transportError("ERR_PROXY_ECONNRESET")))
  request.once("connect", ({ statusCode = 0 }, socket: Net.Socket, head) => {
    if (isOver || statusCode < 200 || statusCode > 299) {
      socket.on("error", () => {}).destroy()
      return end(transportError(`ERR_PROXY_${statusCode}`))
    }
    if (head.length > 0) socket.unshift(head)
    end(undefined, socket)
  })
  request.end()
  return () => {
    isOver = true
    clearTimeout(timer)
    request.destroy()
  }
}
