import { maxEndpointLength } from "../../WebPushSubscription.js"

/** The operator of a push service, for metrics and for the meaning of a response. */
export type Vendor = "fcm" | "mozilla" | "apple" | "wns" | "other"

const vendors: ReadonlyArray<readonly [pattern: RegExp, vendor: Vendor]> = [
  [/^(fcm\.googleapis|jmt\d+\.google)\.com$/, "fcm"],
  [/^([a-z0-9-]+\.)+push\.services\.mozilla\.com$/, "mozilla"],
  [/^([a-z0-9-]+\.)+push\.apple\.com$/, "apple"],
  [/^([a-z0-9-]+\.)+notify\.windows\.com$/, "wns"]
]

export interface Endpoint {
  readonly vendor: Vendor
  readonly host: string
  readonly origin: string
}

// Names and labels that exceed DNS (RFC 1035, 2.3.4), and labels that no host may have (RFC 1123, 2.1).
const isTooLong = (name: string): boolean => name.length > 253 || /[^.]{64}/.test(name)
const hyphenAtEnd = /(^|\.)-|-(\.|$)/

// The text before the path. It excludes all that URL parsers interpret differently: user information, quotes,
// backslashes, percent-escapes, non-ASCII letters.
const authority = /^https:\/\/((?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(?::\d{1,5})?)(?=\/|$)/i

/** Parses a URL in which all parsers find the same host and path. */
const read = (endpoint: string): URL | undefined => {
  const match = endpoint.length <= maxEndpointLength ? authority.exec(endpoint) : null
  if (match === null || !URL.canParse(endpoint)) return undefined
  const [start, written = ""] = match
  const url = new URL(endpoint)
  const { host, hostname, pathname, port, search } = url
  // A host or a path that the parser rewrites is not the one that the push service issued.
  const isAsWritten = written.toLowerCase().replace(/:443$/, "") === host &&
    (endpoint.slice(start.length) === pathname + search || endpoint === start)
  return isAsWritten && !isTooLong(hostname) && !hyphenAtEnd.test(hostname) && port !== "0" ? url : undefined
}

/** Returns `true` for a host of an endpoint: a name, `*.` and a name, or an address, each with an optional port. */
export const isHost = (host: string): boolean => {
  const url = read(`https://${host.replace(/^\*\./, "")}`)
  return url !== undefined && !host.includes("/") && !(host.startsWith("*.") && /^(\[|[\d.]+$)/.test(url.hostname))
}

/**
 * Returns a parser of endpoints that are allowed: those of a known push service, and of `hosts` (`push.example.org`,
 * `*.example.org`, `push.example.org:8443`). The parser returns `undefined` for any other endpoint.
 */
export const make = (hosts: ReadonlyArray<string>) => {
  const exact = new Set(hosts.map((host) => host.toLowerCase().replace(/:443$/, "")))
  const suffixes = [...exact].filter((host) => host.startsWith("*.")).map((host) => host.slice(1))

  return (endpoint: string): Endpoint | undefined => {
    const url = read(endpoint)
    if (url === undefined) return undefined
    const { host, origin } = url
    const vendor = vendors.find(([pattern]) => pattern.test(host))?.[1]
    if (vendor !== undefined) return { vendor, host, origin }
    return exact.has(host) || suffixes.some((suffix) => host.endsWith(suffix)) ?
      { vendor: "other", host, origin } :
      undefined
  }
}
