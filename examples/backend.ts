/**
 * The smallest backend of `EventLog`: one array of entries, a table of what each channel has lost, and the tails and
 * nodes that share them. `test/EventLog/backend.test.ts` runs the cases of every log over it.
 */
import { Clock, Effect, Layer, Option, Scope } from "effect"
import { EventLog } from "effect-realtime"

export interface Limits {
  /** The number of events of one channel. */
  readonly capacity: number
  /** The age of an event in milliseconds. */
  readonly maxAge?: number | undefined
}

const make = Effect.fn(function*({ capacity, maxAge = 600_000 }: Limits) {
  const epoch = yield* EventLog.makeEpoch
  const tails = new Set<EventLog.TailBuffer>()
  const nodes = new Set<EventLog.PatternMap<number>>()
  // The last seq that each channel has lost, and what was appended for each key.
  const lost = new Map<string, number>()
  const keys = new Map<string, { readonly cursor: EventLog.Cursor; readonly at: number }>()
  let stored: Array<{ readonly entry: EventLog.Entry; readonly at: number }> = []
  let seq = 0
  const head = (): EventLog.Cursor => ({ epoch, seq })

  const evict = (now: number) => {
    const counts = new Map<string, number>()
    stored = stored.reverse().filter(({ at, entry: { channel, seq } }) => {
      const count = (counts.get(channel) ?? 0) + 1
      counts.set(channel, count)
      if (count <= capacity && at >= now - maxAge) return true
      lost.set(channel, Math.max(lost.get(channel) ?? 0, seq))
      return false
    }).reverse()
    for (const [key, { at }] of keys) if (at < now - maxAge) keys.delete(key)
  }
  const lostOf = (names: EventLog.PatternMap<true>) =>
    Math.max(0, ...Array.from(lost, ([channel, seq]) => names.has(channel) ? seq : 0))
  const toNames = (channels: Iterable<string>) => {
    const names = EventLog.makePatternMap<true>()
    for (const channel of channels) names.set(channel, true)
    return names
  }
  /** Evicts what is due, and then uses the log in one step. */
  const step = <A>(use: (now: number) => A) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      evict(now)
      return use(now)
    })

  const append = ({ channel, data, key }: EventLog.NewEntry, now: number): EventLog.Cursor => {
    const known = key === undefined ? undefined : keys.get(`${channel}\n${key}`)
    if (known !== undefined) return known.cursor
    seq++
    const entry: EventLog.Entry = { _tag: "Entry", channel, epoch, seq, data }
    stored.push({ entry, at: now })
    if (key !== undefined) keys.set(`${channel}\n${key}`, { cursor: head(), at: now })
    for (const tail of tails) tail.offer(entry)
    return head()
  }

  return EventLog.make({
    appendAll: (events) => step((now) => events.map((event) => append(event, now))),
    head: Effect.sync(head),
    read: (channels, after, limit, maxBytes = 1024 * 1024) =>
      step((): EventLog.Page => {
        const names = toNames(channels)
        const missing: EventLog.Missing | undefined = after.epoch !== epoch ?
          "OtherEpoch" :
          after.seq > seq ?
          "Future" :
          lostOf(names) > after.seq ?
          "Evicted" :
          undefined
        if (missing !== undefined) {
          return { entries: [], position: head(), missing: Option.some(missing), more: false }
        }
        const entries: Array<EventLog.Entry> = []
        let bytes = 0
        for (const { entry } of stored) {
          if (entry.seq <= after.seq || !names.has(entry.channel)) continue
          bytes += entry.data.length
          const last = entries.at(-1)
          if (last !== undefined && (entries.length >= limit || bytes > maxBytes)) {
            return { entries, position: { epoch, seq: last.seq }, missing: Option.none(), more: true }
          }
          entries.push(entry)
        }
        return { entries, position: head(), missing: Option.none(), more: false }
      }),
    last: (channels, maxBytes, after) =>
      step(() => {
        const names = toNames(channels)
        const found = stored.map(({ entry }) => entry).filter(({ channel }) => names.has(channel))
        const entries = Array.from(new Map(found.map((entry) => [entry.channel, entry])).values())
        return {
          head: head(),
          entries: entries.filter(({ data }) => data.length <= maxBytes),
          isCurrent: after !== undefined && after.epoch === epoch && after.seq <= seq &&
            Math.max(found.at(-1)?.seq ?? 0, lostOf(names)) <= after.seq
        }
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
