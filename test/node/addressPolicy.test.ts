import { assert, it } from "@effect/vitest"

// Through the client itself it could be seen only by connecting to addresses that are not of this machine.
import * as AddressPolicy from "../../src/internal/addressPolicy.js"

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
  "2a00:1450:4001:80e::200a"
]

const privateAddresses = [
  "0.0.0.0",
  "10.0.0.1",
  "100.64.0.1",
  "127.0.0.1",
  "169.254.169.254",
  "172.16.0.1",
  "172.31.255.255",
  "192.168.0.1",
  "224.0.0.1",
  "255.255.255.255",
  "::",
  "::1",
  "::ffff:127.0.0.1",
  "::ffff:8.8.8.8",
  "::7f00:1",
  "64:ff9b::7f00:1",
  "2001::1",
  "2002:7f00:1::",
  "fc00::1",
  "fe80::1",
  "ff02::1"
]

it("lets public addresses alone be connected to", () => {
  const isAllowed = AddressPolicy.make([])
  assert.deepStrictEqual(publicAddresses.filter((address) => !isAllowed(address)), [])
  assert.deepStrictEqual(privateAddresses.filter(isAllowed), [])
})

it("lets a subnet be allowed, of its own family alone", () => {
  const isAllowed = AddressPolicy.make(["10.1.0.0/16", "127.0.0.1", "fd00:1::/32"])
  assert.deepStrictEqual(
    ["10.1.2.3", "10.2.0.1", "127.0.0.1", "127.0.0.2", "::ffff:127.0.0.1", "fd00:1::5", "fd00:2::5"].filter(isAllowed),
    ["10.1.2.3", "127.0.0.1", "fd00:1::5"]
  )
  assert.isFalse(AddressPolicy.make(["::/0"])("127.0.0.1"))
})
