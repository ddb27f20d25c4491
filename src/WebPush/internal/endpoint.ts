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

// Top-level domains that are no part of the public DNS: reserved ones (RFC 6761, 6762, 7686, 8375, 9476), and names of
// local networks, which ICANN does not delegate.
const reservedDomain =
  /(^|\.)(localhost|local|internal|invalid|test|example|arpa|onion|alt|lan|home|corp|mail|intranet|private|localdomain)$/

/** Returns `true` for a name in the public DNS: no address, no name without a dot, no reserved domain. */
export const isPublicDomain = (domain: string): boolean =>
  /^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$/.test(domain) && !reservedDomain.test(domain)

const makeIsListed = (hosts: ReadonlyArray<string>) => {
  const exact = new Set(hosts.map((host) => host.toLowerCase().replace(/:443$/, "")))
  const suffixes = [...exact].filter((host) => host.startsWith("*.")).map((host) => host.slice(1))
  return ({ host }: URL): boolean => exact.has(host) || suffixes.some((suffix) => host.endsWith(suffix))
}

/**
 * Returns a parser of endpoints that are allowed: those of a known push service, and of `hosts` (`push.example.org`,
 * `*.example.org`, `push.example.org:8443`), or of any public name. The parser returns `undefined` for any other
 * endpoint.
 */
export const make = (hosts: ReadonlyArray<string> | "public") => {
  const isAllowed = hosts === "public" ? ({ hostname }: URL) => isPublicDomain(hostname) : makeIsListed(hosts)

  return (endpoint: string): Endpoint | undefined => {
    const url = read(endpoint)
    if (url === undefined) return undefined
    const { host, origin } = url
    const vendor = vendors.find(([pattern]) => pattern.test(host))?.[1]
    return vendor !== undefined || isAllowed(url) ? { vendor: vendor ?? "other", host, origin } : undefined
  }
}
