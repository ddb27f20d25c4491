import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

import type { Cursor, EventLog, EventLogError, Item, Tail } from "../../EventLog.js"
import { untilAvailable } from "./replay.js"

/**
 * The revocations of owners. They reach every node through a channel of the log that brokers alone use:
 *
 *     revoke --> append ..... tail --> observe -> disconnectOwners
 *                                         |               ^
 *                                    Lost v               |
 *                                      recover --> read --+
 *
 * If the log cannot read them either, all connections that have an owner are disconnected.
 */
export interface Revocations {
  /** Revokes an owner on every node. */
  readonly revoke: (owner: string) => Effect.Effect<void, EventLogError>
  /** Disconnects the owners that are revoked by items of the tail. */
  readonly observe: (items: ReadonlyArray<Item>) => void
  /** Waits until the tail has lost items, and reads the revocations that may be among them. */
  readonly recover: Effect.Effect<void, EventLogError>
}

export const make = Effect.fnUntraced(function*(
  log: EventLog.Service,
  tail: Tail,
  disconnectOwners: (matches: (owner: string) => boolean) => void
) {
  const lost = Effect.unsafeMakeLatch(false)
  /** The position up to which the tail has delivered. */
  let observed = yield* log.head
  /** The position after which revocations may be lost. */
  let lostAfter: Cursor | undefined
  yield* tail.follow(channel)

  const disconnect = (revoked: ReadonlyArray<Uint8Array>) => {
    if (revoked.length === 0) return
    const owners = new Set(revoked.map((data) => textDecoder.decode(data)))
    disconnectOwners((owner) => owners.has(owner))
  }

  const read = Effect.suspend(() => {
    lost.unsafeClose()
    const after = lostAfter ?? observed
    lostAfter = undefined
    return Effect.iterate<{ position: Cursor; more: boolean }, never, EventLogError>({ position: after, more: true }, {
      while: ({ more }) => more,
      body: ({ position }) =>
        Effect.tap(Effect.retry(log.read([channel], position, pageSize), untilAvailable), (page) => {
          disconnect(page.entries.map(({ data }) => data))
          if (Option.isSome(page.missing)) disconnectOwners(() => true)
        })
    })
  })

  const revocations: Revocations = {
    revoke: (owner) => Effect.asVoid(log.append(channel, textEncoder.encode(owner))),
    observe: (items) => {
      const revoked: Array<Uint8Array> = []
      for (const item of items) {
        if (item._tag === "Lost") {
          lostAfter ??= observed
          lost.unsafeOpen()
        } else if (item.channel === channel) {
          revoked.push(item.data)
        }
        observed = item._tag === "Lost" ? item.position : item
      }
      disconnect(revoked)
    },
    recover: Effect.asVoid(lost.whenOpen(read))
  }
  return revocations
})

const channel = "$effect-realtime/revoked"
const pageSize = 1000
const textDecoder = new TextDecoder()
const textEncoder = new TextEncoder()
