import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"

import type { Cursor, Entry, Item } from "../../EventLog.js"
import { PatternMap } from "../../internal/channel.js"

// What may wait for a taker that does not take. A taker that keeps up has a batch of what was appended in one tick.
const maxItems = 16_384
const maxBytes = 16 * 1024 * 1024

/** What a backend's listener puts its entries in: it keeps those that are followed until they are taken. */
export class TailBuffer {
  private readonly followed = new PatternMap<string>()
  private readonly latch = Effect.unsafeMakeLatch(false)
  private items: Array<Item> = []
  private bytes = 0

  follow(pattern: string): void {
    this.followed.set(pattern, pattern)
  }

  unfollow(pattern: string): void {
    this.followed.delete(pattern)
  }

  /** An entry is kept if it is followed. If too much waits, all of it becomes one Lost. */
  offer(entry: Entry): void {
    if (!this.followed.has(entry.channel)) return
    this.bytes += entry.data.length
    if (this.items.length < maxItems && (this.bytes <= maxBytes || this.items.length === 0)) {
      this.items.push(entry)
      this.latch.unsafeOpen()
    } else {
      this.lose(entry)
    }
  }

  /** Up to here, what is followed may be missing: with what waits, it becomes one Lost. */
  lose({ epoch, seq }: Cursor): void {
    const channels = Array.from(this.followed.keys())
    if (channels.length === 0) return
    this.items = [{ _tag: "Lost", channels, position: { epoch, seq } }]
    this.bytes = 0
    this.latch.unsafeOpen()
  }

  /** Up to this place, entries of its channel may be missing: what waits of others stays. */
  loseOf({ channel, epoch, seq }: Cursor & { readonly channel: string }): void {
    const channels = this.followed.match(channel)
    if (channels.length === 0) return
    if (this.items.length >= maxItems) return this.lose({ epoch, seq })
    this.items.push({ _tag: "Lost", channels, position: { epoch, seq } })
    this.latch.unsafeOpen()
  }

  readonly take: Effect.Effect<Arr.NonEmptyReadonlyArray<Item>> = Effect.suspend(() => {
    const items = this.items
    if (!Arr.isNonEmptyArray(items)) return Effect.zipRight(this.latch.await, this.take)
    this.items = []
    this.bytes = 0
    this.latch.unsafeClose()
    return Effect.succeed(items)
  })
}
