import { maxEndpointLength } from "../../WebPushSubscription.js"

/** Who runs a push service: the few names that metrics and the meaning of a status depend on. */
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

// A name, or a label of it, that DNS cannot hold (RFC 1035, 2.3.4), or a label that no host has (RFC 1123, 2.1).
const isTooLong = (name: string): boolean => name.length > 253 || /[^.]{64}/.test(name)
const hyphenAtEnd = /(^|\.)-|-(\.|$)/

// The text that may stand in front of the path. All that URL parsers read differently from one another (user information, quotes,
// backslashes, percent-escapes, non-ASCII letters) is left out.
const authority = /^https:\/\/((?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(?::\d{1,5})?)(?=\/|$)/i

/** Reads a URL in which every parser finds the host and the path that are written there. */
const read = (endpoint: string): URL | undefined => {
  const match = endpoint.length <= maxEndpointLength ? authority.exec(endpoint) : null
  if (match === null || !URL.canParse(endpoint)) return undefined
  const [start, written = ""] = match
  const url = new URL(endpoint)
  const { host, hostname, pathname, port, search } = url
  // A host or a path that the parser had to rewrite is not the one that the push service gave out.
  const isAsWritten = written.toLowerCase().replace(/:443$/, "") === host &&
    (endpoint.slice(start.length) === pathname + search || endpoint === start)
  return isAsWritten && !isTooLong(hostname) && !hyphenAtEnd.test(hostname) && port !== "0" ? url : undefined
}

/** Returns whether an endpoint can have this host at all: a name, `*.` and a name, or an address, and a port. */
export const isHost = (host: string): boolean => {
  const url = read(`https://${host.replace(/^\*\./, "")}`)
  return url !== undefined && !host.includes("/") && !(host.startsWith("*.") && /^(\[|[\d.]+$)/.test(url.hostname))
}

/**
 * Reads an endpoint that may be sent to: one of a known push service, or of a host that `hosts` names (`push.example.org`,
 * `*.example.org`, `push.example.org:8443`). `undefined` for any other.
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
