import * as Net from "node:net"

import { transportError } from "./exchange.js"

/**
 * Guards a resolver of names: all addresses of a name must be allowed. The socket connects to the addresses that were
 * checked, so a name cannot resolve to another address after the check.
 */
export const make =
  (resolve: Net.LookupFunction, isAllowed: (address: string) => boolean): Net.LookupFunction =>
  (hostname, options, callback) => {
    // A resolver of the application may throw, or call back twice, or with any value. Here that would end the process.
    let isOpen = true
    const once = (answer: () => void) => {
      if (!isOpen) return
      isOpen = false
      answer()
    }
    const guard = (run: () => void) => {
      try {
        run()
      } catch (cause) {
        once(() => callback(transportError("ERR_LOOKUP_FAILED", cause), []))
      }
    }
    guard(() =>
      resolve(hostname, { ...options, all: true }, (error, answer) =>
        guard(() => {
          if (error) return once(() => callback(error, []))
          const addresses = (typeof answer === "string" ? [{ address: answer }] : answer).map(({ address }) => ({
            address,
            family: Net.isIP(address)
          }))
          const [first] = addresses
          if (first === undefined || !addresses.every(({ address }) => isAllowed(address))) {
            return once(() => callback(transportError("ERR_BLOCKED_ADDRESS"), []))
          }
          return once(() =>
            options.all === true ? callback(null, addresses) : callback(null, first.address, first.family)
          )
        }))
    )
  }
