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
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/4",
  "240.0.0.0/4",
  // Outside of 2000::/3 nothing is global; inside, these are not, or hold an IPv4 address.
  "::/3",
  "4000::/2",
  "8000::/1",
  "2001::/23",
  "2001:db8::/32",
  "2002::/16",
  "3fff::/20"
]

// A list of its own for each family: one list for both takes an IPv4 address for its mapped form, and `::/3` would forbid them all.
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

/** Whether an address is public, or in one of the subnets that are allowed although they are not. */
export const make = (allowedSubnets: ReadonlyArray<string>) => {
  const isAllowed = addressList(allowedSubnets)
  return (address: string): boolean => isAllowed(address) || !isForbidden(address)
}
