/**
 * The smallest backend of `EventLog`: a map of channels, each with its entries and the last `seq` that it has lost, and
 * the tails and nodes that share it. `test/EventLog/backend.test.ts` runs the cases of every log, and that of a broker,
 * over it.
 */
import { Clock, DateTime, Effect, Layer, Option, Scope } from "effect"
import { EventLog } from "effect-realtime"

export interface Limits {
  /** The number of events of one channel. */
  readonly capacity: number
  /** The age of an event in milliseconds. */
  readonly maxAge?: number | undefined
}

/** The entries of one channel after `floor`, with the times of their appends and those until which they are stored. */
interface Stored {
  floor: number
  capacity: number
  maxBytes: number
  entries: ReadonlyArray<{ readonly entry: EventLog.Entry; readonly at: number; readonly until: number }>
}

const make = Effect.fn(function*({ capacity, maxAge = 600_000 }: Limits) {
  const epoch = yield* EventLog.makeEpoch
  const tails = new Set<EventLog.TailBuffer>()
  const nodes = new Set<EventLog.PatternMap<number>>()
  const channels = new Map<string, Stored>()
  const keys = new Map<string, { readonly cursor: EventLog.Cursor; readonly at: number }>()
  let seq = 0
  const head = (): EventLog.Cursor => ({ epoch, seq })

  /** Evicts an entry that exceeds a limit, with all earlier ones of its channel: what is left has no holes. */
  const evict = (stored: Stored, now: number) => {
    let [count, bytes] = [0, 0]
    for (const { entry, until } of Array.from(stored.entries).reverse()) {
      bytes += entry.data.length
      if (++count <= stored.capacity && bytes <= stored.maxBytes && until >= now) continue
      stored.floor = entry.seq
      break
    }
    stored.entries = stored.entries.filter(({ entry }) => entry.seq > stored.floor)
  }
  const append = ({ after, channel, data, key, retention }: EventLog.NewEntry, now: number): EventLog.Cursor => {
    const known = key === undefined ? undefined : keys.get(`${channel}\n${key}`)
    if (known !== undefined && known.at >= now - maxAge) return known.cursor
    const stored = channels.get(channel) ?? { floor: 0, capacity, maxBytes: Infinity, entries: [] }
    if (after !== undefined && after !== (stored.entries.at(-1)?.entry.seq ?? stored.floor)) return { epoch, seq: 0 }
    seq++
    const entry: EventLog.Entry = { _tag: "Entry", channel, epoch, seq, data }
    channels.set(channel, stored)
    stored.capacity = retention?.capacity ?? capacity
    stored.maxBytes = retention?.maxBytes ?? Infinity
    stored.entries = [...stored.entries, { entry, at: now, until: now + (retention?.maxAge ?? maxAge) }]
    evict(stored, now)
    if (key !== undefined) keys.set(`${channel}\n${key}`, { cursor: head(), at: now })
    for (const tail of tails) tail.offer(entry)
    return head()
  }
  /** Finds the entries of channels and patterns in their order, and the last seq that one of them has lost. */
  const find = (asked: Iterable<string>, now: number) => {
    const names = EventLog.makePatternMap<true>()
    for (const name of asked) names.set(name, true)
    const found = Array.from(channels).flatMap(([channel, stored]) => names.has(channel) ? [stored] : [])
    for (const stored of found) evict(stored, now)
    const stored = found.flatMap(({ entries }) => entries).sort((a, b) => a.entry.seq - b.entry.seq)
    return {
      stored,
      entries: stored.map(({ entry }) => entry),
      floor: Math.max(0, ...found.map(({ floor }) => floor))
    }
  }

  return EventLog.make({
    appendAll: (events) => Effect.map(Clock.currentTimeMillis, (now) => events.map((event) => append(event, now))),
    head: Effect.sync(head),
    read: (asked, after, limit, maxBytes = 1024 * 1024) =>
      Effect.map(Clock.currentTimeMillis, (now): EventLog.Page => {
        const incomplete = (missing: EventLog.Missing): EventLog.Page => ({
          entries: [],
          position: head(),
          missing: Option.some(missing),
          more: false
        })
        const found = find(asked, now)
        if (after.epoch !== epoch) return incomplete("OtherEpoch")
        if (after.seq > seq) return incomplete("Future")
        if (after.seq < found.floor) return incomplete("Evicted")
        const entries: Array<EventLog.Entry> = []
        let bytes = 0
        for (const entry of found.entries) {
          if (entry.seq <= after.seq) continue
          bytes += entry.data.length
          const last = entries.at(-1)
          if (last !== undefined && (entries.length >= limit || bytes > maxBytes)) {
            return { entries, position: { epoch, seq: last.seq }, missing: Option.none(), more: true }
          }
          entries.push(entry)
        }
        return { entries, position: head(), missing: Option.none(), more: false }
      }),
    last: (asked, maxBytes, after) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const { entries, floor } = find(asked, now)
        const last = Array.from(new Map(entries.map((entry) => [entry.channel, entry])).values())
        return {
          head: head(),
          entries: last.filter(({ data }) => data.length <= maxBytes),
          isCurrent: after !== undefined && after.epoch === epoch && after.seq <= seq &&
            Math.max(entries.at(-1)?.seq ?? 0, floor) <= after.seq
        }
      }),
    seek: (asked, { last = Infinity, since }) =>
      Effect.map(Clock.currentTimeMillis, (now): EventLog.Cursor => {
        const { floor, stored } = find(asked, now)
        const earliest = since === undefined ? -Infinity : DateTime.toEpochMillis(since)
        const before = stored.filter(({ at }, i) => at < earliest || i < stored.length - last).at(-1)
        return { epoch, seq: Math.max(floor, before?.entry.seq ?? 0) }
      }),
    tail: Effect.map(
      Effect.acquireRelease(
        Effect.tap(EventLog.makeTailBuffer, (tail) => Effect.sync(() => tails.add(tail))),
        (tail) => Effect.sync(() => tails.delete(tail))
      ),
      (tail): EventLog.Tail => ({
        follow: (channel) =>
          Effect.uninterruptible(Effect.flatMap(Effect.scope, (scope) => {
            tail.follow(channel)
            return Scope.addFinalizer(scope, Effect.sync(() => tail.unfollow(channel)))
          })),
        take: tail.take
      })
    ),
    presence: Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => {
          const node = EventLog.makePatternMap<number>()
          nodes.add(node)
          return node
        }),
        (node) => Effect.sync(() => nodes.delete(node))
      ),
      (self): EventLog.Presence => ({
        set: (channel, count) => Effect.sync(() => count === 0 ? self.delete(channel) : self.set(channel, count)),
        others: (channel) =>
          Effect.sync(() => {
            let sum = 0
            for (const node of nodes) if (node !== self) { for (const count of node.match(channel)) sum += count }
            return sum
          })
      })
    )
  })
})

/** Provides the log. */
export const layer = (limits: Limits): Layer.Layer<EventLog.EventLog> => Layer.effect(EventLog.EventLog, make(limits))
