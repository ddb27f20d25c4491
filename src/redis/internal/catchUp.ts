/**
 * The pages of events that the tails have missed.
 */
import * as Effect from "effect/Effect"

import type { Cursor, PatternMap } from "../../EventLog.js"
import type { Pages } from "./client.js"
import { pageBytes } from "./client.js"
import type { Delivery } from "./delivery.js"
import type * as Scripts from "./scripts.js"

/**
 * Makes a function that reads and delivers the next page. The delivery is `Behind` afterwards if it needs another one.
 */
export const makeCatchUp = ({ delivery, follows, keys, note, skip }: {
  readonly delivery: Delivery
  readonly follows: PatternMap<number>
  readonly keys: Scripts.Keys
  readonly note: (cursor: Cursor) => void
  readonly skip: (count: number) => Effect.Effect<void>
}) => {
  /** Reads a page by the places of all events. A read by name would cost Redis a command for each of the names. */
  const catchUpInOrder = Effect.fnUntraced(function*(pages: Pages, context: Scripts.Context) {
    const { position } = delivery
    const listed = yield* pages.read((client) => client.list(context, position, maxListed))
    const end = listed.position
    note(end)
    // The channels that lost events are not known. Their readers find that out.
    if (listed.missing !== undefined) delivery.loseUntil(end)
    const wanted = listed.places.filter(({ channel }) => follows.has(channel))
    const requested = wanted.slice(0, pageSize)
    const found = requested.length === 0
      ? []
      : yield* pages.read((client) => client.readAt(keys, end.epoch, requested, pageBytes))
    found.forEach((data, i) => {
      const place = requested[i]
      if (place === undefined) return
      if (data === null) delivery.loseOne({ epoch: end.epoch, ...place })
      else delivery.offer({ _tag: "Entry", epoch: end.epoch, ...place, data })
    })
    if (found.length === wanted.length) delivery.moveTo(end)
    if (listed.more || listed.missing !== undefined || found.length < wanted.length) delivery.fallBehind()
  })

  return Effect.fnUntraced(function*(pages: Pages, context: Scripts.Context) {
    delivery.buffer()
    if (follows.size > maxNames) return yield* catchUpInOrder(pages, context)
    const { position } = delivery
    const found = yield* pages.read((client) => client.readLog(context, follows.keys(), position, pageSize, pageBytes))
    yield* skip(found.foreign)
    note(found.position)
    if (found.missing !== undefined) delivery.loseUntil(found.position)
    for (const event of found.events) delivery.offer({ _tag: "Entry", epoch: found.position.epoch, ...event })
    delivery.moveTo(found.position)
    if (found.more || found.missing !== undefined) delivery.fallBehind()
  })
}

const pageSize = 256
// A page for more names than these is read in the order of all events.
const maxNames = 512
const maxListed = 1024
