import * as Net from "node:net"

const forbiddenSubnets = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/4",
  "240.0.0.0/4",
  // Outside of 2000::/3 no address is global; inside, these are not global or contain an IPv4 address.
  "::/3",
  "4000::/2",
  "8000::/1",
  "2001::/23",
  "2001:db8::/32",
  "2002::/16",
  "3fff::/20"
]

// One list for each family: a common list maps IPv4 addresses to IPv6, and `::/3` would then forbid all of them.
const addressList = (subnets: ReadonlyArray<string>) => {
  const lists = { ipv4: new Net.BlockList(), ipv6: new Net.BlockList() }
  for (const subnet of subnets) {
    const [address = "", bits] = subnet.split("/")
    const family = familyOf(address)
    lists[family].addSubnet(address, bits === undefined ? (family === "ipv6" ? 128 : 32) : Number(bits), family)
  }
  return (address: string): boolean => {
    const family = familyOf(address)
    return lists[family].check(address, family)
  }
}

const familyOf = (address: string) => Net.isIPv6(address) ? "ipv6" : "ipv4"

const isForbidden = addressList(forbiddenSubnets)

// Prefixes whose destination is the IPv4 address in the last 32 bits: IPv4-mapped (RFC 4291, 2.5.5.2), and the
// well-known prefix of NAT64, which must not represent an address that is not global (RFC 6052, 3.1).
const holdsIpv4 = addressList(["::ffff:0:0/96", "64:ff9b::/96"])

// The prefix of a local NAT64, which may represent any IPv4 address (RFC 8215).
const holdsLocalIpv4 = addressList(["64:ff9b:1::/48"])

const groupsOf = (ipv6: string): ReadonlyArray<number> => {
  // The URL parser normalizes each notation to hexadecimal groups.
  const [start = [], end = []] = new URL(`http://[${ipv6}]`).hostname.slice(1, -1).split("::").map((part) =>
    part === "" ? [] : part.split(":").map((group) => Number.parseInt(group, 16))
  )
  return [...start, ...Array<number>(8 - start.length - end.length).fill(0), ...end]
}

const ipv4In = (ipv6: string): string =>
  groupsOf(ipv6).slice(6).flatMap((group) => [group >> 8, group & 0xff]).join(".")

// An ISATAP interface (RFC 5214, 6.1) is a tunnel to an IPv4 address, under any prefix.
const isTunnel = (ipv6: string): boolean => {
  const groups = groupsOf(ipv6)
  return groups[5] === 0x5efe && (groups[4] === 0 || groups[4] === 0x200)
}

/** Returns `true` for an address, and for a subnet: an address, `/` and the length of its prefix in bits. */
export const isSubnet = (subnet: string): boolean => {
  const [, address = "", bits] = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(subnet) ?? []
  const version = Net.isIP(address)
  return version !== 0 && Number(bits ?? 0) <= (version === 4 ? 32 : 128)
}

/**
 * Returns a predicate for addresses that are public or in an allowed subnet. An address that contains an IPv4 address
 * is judged by the IPv4 address. A text that is not an address is refused.
 */
export const make = (allowedSubnets: ReadonlyArray<string>) => {
  const isAllowed = addressList(allowedSubnets)
  const isOpen = (address: string): boolean => isAllowed(address) || !isForbidden(address)
  return (address: string): boolean => {
    if (Net.isIP(address) === 0 || address.includes("%")) return false
    if (Net.isIPv4(address)) return isOpen(address)
    if (holdsIpv4(address)) return !isForbidden(ipv4In(address))
    if (holdsLocalIpv4(address)) return isAllowed(address) && isOpen(ipv4In(address))
    return isAllowed(address) || !(isForbidden(address) || isTunnel(address))
  }
}
