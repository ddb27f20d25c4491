import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

import type { Cursor, EventLog, EventLogError, Item, Tail } from "../../EventLog.js"
import { backoff } from "./replay.js"

/**
 * The revocations of keys. They reach every node through a channel of the log that brokers alone use:
 *
 *     revoke --> append ..... tail --> observe ---> disconnectKeys
 *                                         |               ^
 *                                    Lost v               |
 *                                      recover --> read --+
 *
 * If the log cannot read them either, all connections that have a key are disconnected.
 */
export interface Revocations {
  /** Revokes a key on every node. */
  readonly revoke: (key: string) => Effect.Effect<void, EventLogError>
  /** Disconnects the keys that are revoked by items of the tail. */
  readonly observe: (items: ReadonlyArray<Item>) => void
  /** Waits until the tail has lost items, and reads the revocations that may be among them. */
  readonly recover: Effect.Effect<void, EventLogError>
}

export const make = Effect.fnUntraced(function*(
  log: EventLog.Service,
  tail: Tail,
  disconnectKeys: (matches: (key: string) => boolean) => void
) {
  const lost = Effect.unsafeMakeLatch(false)
  /** The position up to which the tail has delivered. */
  let observed = yield* log.head
  /** The position after which revocations may be lost. */
  let lostAfter: Cursor | undefined
  yield* tail.follow(channel)

  const disconnect = (revoked: ReadonlyArray<Uint8Array>) => {
    if (revoked.length === 0) return
    const keys = new Set(revoked.map((data) => textDecoder.decode(data)))
    disconnectKeys((key) => keys.has(key))
  }

  const read = Effect.suspend(() => {
    lost.unsafeClose()
    const after = lostAfter ?? observed
    lostAfter = undefined
    return Effect.iterate<{ position: Cursor; more: boolean }, never, EventLogError>({ position: after, more: true }, {
      while: ({ more }) => more,
      body: ({ position }) =>
        Effect.tap(Effect.retry(log.read([channel], position, pageSize), backoff), (page) => {
          disconnect(page.entries.map(({ data }) => data))
          if (Option.isSome(page.missing)) disconnectKeys(() => true)
        })
    })
  })

  const revocations: Revocations = {
    revoke: (key) => Effect.asVoid(log.append(channel, new TextEncoder().encode(key))),
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
