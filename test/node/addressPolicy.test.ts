import { assert, it } from "@effect/vitest"

// A test through the client would have to connect to addresses outside of this machine.
import * as AddressPolicy from "../../src/node/internal/addressPolicy.js"

const publicAddresses = [
  "1.1.1.1",
  "8.8.8.8",
  "17.188.143.34",
  "34.107.243.93",
  "142.250.184.10",
  "172.15.255.255",
  "172.32.0.0",
  "192.167.255.255",
  "223.255.255.255",
  "2607:f8b0:4004:c07::5f",
  "2620:149:208:4300::1",
  "2a00:1450:4001:80e::200a",
  // A host behind NAT64 has only addresses like these.
  "64:ff9b::808:808",
  "64:ff9b::8.8.8.8",
  "0064:FF9B:0:0:0:0:8efa:b80a",
  "::ffff:8.8.8.8",
  "::ffff:808:808"
]

const privateAddresses = [
  "0.0.0.0",
  "10.0.0.1",
  "100.64.0.1",
  "127.0.0.1",
  "169.254.169.254",
  "172.16.0.1",
  "172.31.255.255",
  "192.88.99.1",
  "192.168.0.1",
  "224.0.0.1",
  "255.255.255.255",
  "::",
  "::1",
  "fc00::1",
  "fe80::1",
  "fe80::1%lo",
  "ff02::1",
  // IPv4-mapped, IPv4-compatible, IPv4-translated, NAT64 (well-known, out of its range, and local), Teredo, 6to4 and
  // ISATAP.
  "::ffff:127.0.0.1",
  "::ffff:a9fe:a9fe",
  "::7f00:1",
  "::8.8.8.8",
  "::ffff:0:808:808",
  "64:ff9b::7f00:1",
  "64:ff9b::10.0.0.1",
  "64:ff9b::a9fe:a9fe",
  "64:ff9b::",
  "64:ff9b::1:808:808",
  "64:ff9b:1::808:808",
  "64:ff9b:1::7f00:1",
  "2001::1",
  "2002:7f00:1::",
  "2002:808:808::1",
  "2a00:1450:4001::5efe:7f00:1",
  "2a00:1450:4001::200:5efe:808:808",
  // Texts that are not addresses.
  "",
  "localhost",
  "8.8.8",
  "8.8.8.8 ",
  "2607:f8b0:4004:c07::5f%eth0"
]

it("allows public addresses only, and judges an address that contains an IPv4 address by that", () => {
  const isAllowed = AddressPolicy.make([])
  assert.deepStrictEqual(publicAddresses.filter((address) => !isAllowed(address)), [])
  assert.deepStrictEqual(privateAddresses.filter(isAllowed), [])
})

it("allows a subnet, for its own family only", () => {
  const isAllowed = AddressPolicy.make(["10.1.0.0/16", "127.0.0.1", "fd00:1::/32"])
  assert.deepStrictEqual(
    ["10.1.2.3", "10.2.0.1", "127.0.0.1", "127.0.0.2", "::ffff:127.0.0.1", "fd00:1::5", "fd00:2::5"].filter(isAllowed),
    ["10.1.2.3", "127.0.0.1", "fd00:1::5"]
  )
  assert.isFalse(AddressPolicy.make(["::/0"])("127.0.0.1"))
})

it("does not allow private addresses behind NAT64 through a subnet", () => {
  for (const allowed of [["127.0.0.1"], ["64:ff9b::/96"], ["64:ff9b::7f00:1"], ["::/0", "0.0.0.0/0"]]) {
    const isAllowed = AddressPolicy.make(allowed)
    assert.deepStrictEqual(["64:ff9b::7f00:1", "64:ff9b::a00:1", "::ffff:127.0.0.1"].filter(isAllowed), [])
    assert.isTrue(isAllowed("64:ff9b::808:808"))
  }
})

it("allows a local NAT64, for public addresses and for allowed ones", () => {
  const addresses = ["64:ff9b:1::808:808", "64:ff9b:1::a01:1", "64:ff9b:1::7f00:1"]
  assert.deepStrictEqual(addresses.filter(AddressPolicy.make(["64:ff9b:1::/96"])), ["64:ff9b:1::808:808"])
  assert.deepStrictEqual(
    addresses.filter(AddressPolicy.make(["64:ff9b:1::/96", "10.1.0.0/16"])),
    ["64:ff9b:1::808:808", "64:ff9b:1::a01:1"]
  )
})
