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

// What may stand in front of the path. Everything that URL parsers read differently from one another (user information, quotes,
// backslashes, percent-escapes, non-ASCII letters) is left out.
const authority = /^https:\/\/((?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(?::\d{1,5})?)(?=\/|$)/i

/** Whether an endpoint can have this host at all. */
export const isHost = (host: string): boolean =>
  /^((\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(:\d{1,5})?$/i.test(host)

/**
 * Reads an endpoint that may be sent to: one of a known push service, or of a host that `hosts` names (`push.example.org`,
 * `*.example.org`, `push.example.org:8443`). `undefined` for any other.
 */
export const make = (hosts: ReadonlyArray<string>) => {
  const exact = new Set(hosts.map((host) => host.toLowerCase().replace(/:443$/, "")))
  const suffixes = [...exact].filter((host) => host.startsWith("*.")).map((host) => host.slice(1))

  return (endpoint: string): Endpoint | undefined => {
    const match = authority.exec(endpoint)
    if (match === null || !URL.canParse(endpoint)) return undefined
    const { host, origin, pathname, search } = new URL(endpoint)
    // A host or a path that the parser had to rewrite is not the one that the push service gave out.
    if (match[1]?.toLowerCase().replace(/:443$/, "") !== host) return undefined
    if (endpoint.slice(match[0].length) !== pathname + search && endpoint !== match[0]) return undefined
    const vendor = vendors.find(([pattern]) => pattern.test(host))?.[1]
    if (vendor !== undefined) return { vendor, host, origin }
    return exact.has(host) || suffixes.some((suffix) => host.endsWith(suffix)) ?
      { vendor: "other", host, origin } :
      undefined
  }
}
