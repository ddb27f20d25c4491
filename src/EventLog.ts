/**
 * The port to the world beyond this process: channels of events that are appended, read again after a cursor, and
 * followed as they are appended, by whichever node. `layerMemory` is the log of a single node.
 *
 * All channels of a log share one sequence. That is why one cursor says where a reader of any set of channels is, and why
 * every reader sees the events of its channels in one and the same order.
 *
 * Wherever channels are read or followed, a name in which a whole segment is `*` stands for every channel that has
 * anything in that segment: `orders/*` for `orders/42`, but not for `orders/42/items`. A name that begins with `$` is found
 * by itself alone: no pattern stands for it.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Brand from "effect/Brand"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"

import { merge, Ring, Sequence } from "./EventLog/internal/ring.js"
import { TailBuffer } from "./EventLog/internal/tail.js"
import { channelFault, isPattern, patternFault, PatternMap } from "./internal/channel.js"

/**
 * A place in a log: after the event with this `seq`, or before all of them if it is 0. The `epoch` tells one life of a
 * log from another (1 to 64 characters of `[A-Za-z0-9_-]`), so that a place in a log that lost its events is not taken
 * for a place in the one that came after it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Cursor {
  readonly epoch: string
  readonly seq: number
}

/**
 * A cursor as the `id` of an event: `epoch.seq`, at most 128 bytes of `[A-Za-z0-9._-]`. Anything else in a `Last-Event-ID`
 * would cost a browser a preflight for each reconnection to another origin (Fetch, section 2.2.2).
 *
 * @since 0.1.0
 * @category models
 */
export type EventId = Brand.Branded<string, "effect-realtime/EventId">

/**
 * An event of a log. It is a cursor too: the place right after it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Entry extends Cursor {
  readonly _tag: "Entry"
  readonly channel: string
  /**
   * As it was appended. It is shared by all readers and must not be changed.
   */
  readonly data: Uint8Array
}

/**
 * Why what came after a cursor cannot be given whole: some of it was evicted, the cursor is of another epoch, or the log
 * has not got as far as that.
 *
 * @since 0.1.0
 * @category models
 */
export type Missing = "Evicted" | "OtherEpoch" | "Future"

/**
 * What came after a cursor.
 *
 * @since 0.1.0
 * @category models
 */
export interface Page {
  /**
   * In ascending order of `seq`. Empty if something is missing: a past with holes is not given.
   */
  readonly entries: ReadonlyArray<Entry>
  /**
   * What to read after next. Up to here, nothing is left to be given; if something is missing, this is the head.
   */
  readonly position: Cursor
  readonly missing: Option.Option<Missing>
  /**
   * True if entries that were there already may be left to the next page: a limit was reached, or the search is not over.
   * Such a page may be empty.
   */
  readonly more: boolean
}

/**
 * In this place a tail could not give everything: of these followed channels (or patterns), entries up to the position may
 * be missing. `read` may still have them. If the position is of another epoch, the log has begun again.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lost {
  readonly _tag: "Lost"
  readonly channels: ReadonlyArray<string>
  readonly position: Cursor
}

/**
 * What comes out of a tail.
 *
 * @since 0.1.0
 * @category models
 */
export type Item = Entry | Lost

/**
 * What is appended from now on, by any node, to the channels that are followed.
 *
 * Once `follow` has completed, every entry that is appended from then on comes out of `take` once, even if several of the
 * followed patterns match it, and in ascending order of `seq` over all channels. Where the log cannot keep that, because
 * nothing was taken for too long or because its backend was away, a `Lost` says so. Memory is bounded either way.
 *
 * @since 0.1.0
 * @category models
 */
export interface Tail {
  /**
   * Follows a channel, or a pattern, until the scope is closed. A channel that several scopes follow is unfollowed when the
   * last of them closes. Entries that are pending by then may still be taken.
   */
  readonly follow: (channel: string) => Effect.Effect<void, EventLogError, Scope.Scope>
  /**
   * Waits for at least one item and gives all there are. For one taker at a time.
   */
  readonly take: Effect.Effect<Arr.NonEmptyReadonlyArray<Item>>
}

/**
 * How many are present at the nodes that share a log. It is what the nodes say of themselves: none of it is kept.
 *
 * @since 0.1.0
 * @category models
 */
export interface Presence {
  /**
   * Says how many of this node are present on a channel, or on a pattern, from now on. The others see it a moment later, or
   * if the backend is away, once it is back.
   */
  readonly set: (channel: string, count: number) => Effect.Effect<void>
  /**
   * How many of all other nodes are present on a channel and on the patterns that stand for it. A node that has died counts
   * until the backend has missed it.
   */
  readonly others: (channel: string) => Effect.Effect<number, EventLogError>
}

/**
 * The log could not do what it was asked.
 *
 * - `InvalidChannel`: the name breaks a rule, which `detail` states. A name is 1 to 512 bytes of well-formed Unicode
 *   without control characters, and if it is appended to, none of its segments is `*`.
 * - `Unavailable`: the backend cannot be reached. Nothing was appended.
 * - `Timeout`: the backend has not answered in time. An entry may have been appended.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventLogError extends Schema.TaggedError<EventLogError>("effect-realtime/EventLogError")("EventLogError", {
  reason: Schema.Literal("InvalidChannel", "Unavailable", "Timeout"),
  detail: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  /**
   * Whether the same call may succeed later.
   *
   * @since 0.1.0
   */
  get retryable(): boolean {
    return this.reason !== "InvalidChannel"
  }

  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `${this.reason}: ${this.detail}`
  }
}

/**
 * @since 0.1.0
 * @category tags
 */
export class EventLog extends Context.Tag("effect-realtime/EventLog")<EventLog, EventLog.Service>() {}

/**
 * @since 0.1.0
 */
export declare namespace EventLog {
  /**
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    /**
     * Appends an event, opaque to the log, and gives its place. The bytes are kept, not copied.
     */
    readonly append: (channel: string, data: Uint8Array) => Effect.Effect<Cursor, EventLogError>
    /**
     * The place after everything appended so far.
     */
    readonly head: Effect.Effect<Cursor, EventLogError>
    /**
     * Reads at most `limit` entries of some channels (or patterns) after a cursor, and says whether that is complete. Their
     * data is at most `maxBytes` bytes, 1 MiB by default, unless the first entry alone is larger.
     */
    readonly read: (
      channels: Iterable<string>,
      after: Cursor,
      limit: number,
      maxBytes?: number
    ) => Effect.Effect<Page, EventLogError>
    /**
     * Starts to listen, until the scope is closed. A closed tail gives nothing any more.
     */
    readonly tail: Effect.Effect<Tail, EventLogError, Scope.Scope>
    /**
     * Takes part as a node, until the scope is closed.
     */
    readonly presence: Effect.Effect<Presence, EventLogError, Scope.Scope>
  }
}

/**
 * Makes a log of a backend, which need neither check names nor count followers: a name that breaks a rule fails with
 * `EventLogError` (`InvalidChannel`) before it reaches the backend, and a tail of the backend is asked to follow a channel
 * that it does not follow yet.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import * as EventLog from "effect-realtime/EventLog"
 *
 * const logged = Layer.effect(
 *   EventLog.EventLog,
 *   Effect.map(EventLog.EventLog, (log) =>
 *     EventLog.make({
 *       ...log,
 *       append: (channel, data) => Effect.zipLeft(log.append(channel, data), Effect.logDebug("appended"))
 *     }))
 * ).pipe(Layer.provide(EventLog.layerMemory()))
 * ```
 */
export const make = (backend: EventLog.Service): EventLog.Service => ({
  append: (channel, data) => valid(channelFault(channel), () => backend.append(channel, data)),
  head: backend.head,
  read: (channels, after, limit, maxBytes = maxPageBytes) =>
    Effect.suspend(() => {
      const names = Array.from(channels)
      return valid(
        names.map(patternFault).find((fault) => fault !== undefined),
        () => backend.read(names, after, limit, maxBytes)
      )
    }),
  tail: Effect.map(backend.tail, (tail) => {
    const follow = countFollowers(tail)
    return { follow: (channel) => valid(patternFault(channel), () => follow(channel)), take: tail.take }
  }),
  presence: Effect.map(backend.presence, (presence) => ({
    set: presence.set,
    others: (channel) => valid(channelFault(channel), () => presence.others(channel))
  }))
})

const maxPageBytes = 1024 * 1024

/** A channel that a tail follows, or is about to follow or to unfollow. */
interface Followed {
  followers: number
  /** The scope in which the backend follows the channel, while it does. */
  scope: Scope.CloseableScope | undefined
  /** The permit to ask the backend: an unfollow that is on its way would undo a later follow. */
  readonly turn: Effect.Semaphore
}

/** Follows a channel once for all scopes that ask for it. */
const countFollowers = (tail: Tail): Tail["follow"] => {
  const channels = new Map<string, Followed>()

  const open = (channel: string, followed: Followed) =>
    Effect.suspend(() =>
      followed.scope !== undefined ?
        Effect.void :
        Effect.flatMap(Scope.make(), (scope) =>
          Effect.onExit(Scope.extend(tail.follow(channel), scope), (exit) => {
            if (Exit.isFailure(exit)) return Scope.close(scope, exit)
            followed.scope = scope
            return Effect.void
          }))
    )

  const close = (channel: string, followed: Followed) =>
    Effect.suspend(() => {
      const { followers, scope } = followed
      if (followers > 0) return Effect.void
      followed.scope = undefined
      return Effect.map(scope === undefined ? Effect.void : Scope.close(scope, Exit.void), () => {
        if (followed.followers === 0 && channels.get(channel) === followed) channels.delete(channel)
      })
    })

  const leave = (channel: string, followed: Followed) =>
    Effect.suspend(() =>
      --followed.followers > 0 ? Effect.void : followed.turn.withPermits(1)(close(channel, followed))
    )

  return (channel) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.scope, (scope) => {
        const followed = channels.get(channel) ??
          { followers: 0, scope: undefined, turn: Effect.unsafeMakeSemaphore(1) }
        channels.set(channel, followed)
        followed.followers++
        const opened = followed.scope !== undefined
          ? Effect.void
          : Effect.onError(
            restore(followed.turn.withPermits(1)(open(channel, followed))),
            () => leave(channel, followed)
          )
        return Effect.zipRight(opened, Scope.addFinalizer(scope, leave(channel, followed)))
      })
    )
}

const valid = <A, R>(
  fault: string | undefined,
  then: () => Effect.Effect<A, EventLogError, R>
): Effect.Effect<A, EventLogError, R> =>
  fault === undefined ? then() : new EventLogError({ reason: "InvalidChannel", detail: `a channel ${fault}` })

/**
 * What bounds a log in memory. Of each channel it keeps the last events, as long as none of the three limits is passed.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemoryOptions {
  /**
   * Events of one channel, 1000 by default.
   */
  readonly capacity?: number | undefined
  /**
   * Bytes of the events of one channel, 1 MiB by default. A larger event is delivered, but not kept.
   */
  readonly maxBytes?: number | undefined
  /**
   * Age of an event, 10 minutes by default.
   */
  readonly maxAge?: Duration.DurationInput | undefined
}

/**
 * A log in the memory of this process. It ends with its layer: the next one begins another epoch.
 *
 * The number of channels is bounded by age alone: a channel whose last event is older than `maxAge` is forgotten. Appends
 * to any channel see to that, within the next `maxAge`, each looking at 2 to 10,000 channels; no fiber runs. So the memory
 * is about what was appended within twice `maxAge`, and of that `capacity` events and `maxBytes` for each channel. What
 * remains of all forgotten channels together is one number, at the price that a cursor from before the last event of a
 * forgotten channel is told `Evicted` for every channel that the log knows nothing of.
 *
 * Reading finds the place by binary search, and costs what the page gives; for a pattern it also costs the entries of other
 * channels in between, of which one call looks at 8,192 at most.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as EventLog from "effect-realtime/EventLog"
 *
 * Effect.gen(function*() {
 *   const log = yield* EventLog.EventLog
 *   const start = yield* log.head
 *   yield* log.append("orders/42", new TextEncoder().encode("paid"))
 *   const page = yield* log.read(["orders/*"], start, 100)
 *   return page.entries.length // 1
 * }).pipe(Effect.provide(EventLog.layerMemory({ capacity: 100, maxAge: "1 minute" })))
 * ```
 */
export const layerMemory = (options?: MemoryOptions): Layer.Layer<EventLog> =>
  Layer.sync(EventLog, () => make(makeMemory(options)))

const makeMemory = (options: MemoryOptions | undefined): EventLog.Service => {
  const limits = { capacity: options?.capacity ?? 1000, maxBytes: options?.maxBytes ?? 1024 * 1024 }
  const maxAge = Duration.toMillis(options?.maxAge ?? "10 minutes")
  for (const [name, limit] of Object.entries(limits)) {
    if (limit === Number.POSITIVE_INFINITY || (Number.isSafeInteger(limit) && limit >= 1)) continue
    throw new Cause.IllegalArgumentException(`EventLog: ${name} must be a whole number, one or more, or Infinity`)
  }
  if (!(maxAge > 0)) throw new Cause.IllegalArgumentException("EventLog: maxAge must be longer than zero")
  const epoch = Encoding.encodeBase64Url(crypto.getRandomValues(new Uint8Array(9)))
  const rings = new Map<string, Ring>()
  const sequence = new Sequence()
  const tails = new Set<TailBuffer>()
  const nodes = new Set<PatternMap<number>>()
  let seq = 0
  // The last seq that went with a forgotten channel.
  let forgotten = 0
  let sweep = rings.entries()
  let sweptAt = 0

  const evict = (ring: Ring, now: number) => sequence.noteEvicted(ring.evict(limits, now - maxAge))
  // Looks at some channels, in turn: at two at least, and at all of them within maxAge if that takes no long pause.
  const sweepSome = (now: number) => {
    const share = Math.ceil(rings.size * (now - sweptAt) / Math.max(1, maxAge))
    sweptAt = now
    for (let left = Math.min(rings.size, 10_000, Math.max(2, share)); left > 0; left--) {
      const next = sweep.next()
      if (next.done === true) {
        sweep = rings.entries()
        continue
      }
      const [channel, ring] = next.value
      evict(ring, now)
      if (ring.size > 0) continue
      rings.delete(channel)
      ring.isForgotten = true
      forgotten = Math.max(forgotten, ring.floor)
    }
  }
  const timed = <A>(f: (now: number) => A): Effect.Effect<A> =>
    // The time of day may step: an age is measured by a clock that does not.
    Effect.clockWith((clock) => Effect.sync(() => f(Math.round(Number(clock.unsafeCurrentTimeNanos()) / 1e6))))
  const head = (): Cursor => ({ epoch, seq })

  return {
    append: (channel, data) =>
      timed((now) => {
        seq++
        const entry: Entry = { _tag: "Entry", channel, epoch, seq, data }
        let ring = rings.get(channel)
        if (ring === undefined) rings.set(channel, ring = new Ring(channel, forgotten))
        sequence.push(ring.push(entry, now))
        evict(ring, now)
        sweepSome(now)
        for (const tail of tails) tail.offer(entry)
        return head()
      }),
    head: Effect.sync(head),
    read: (channels, after, limit, maxBytes = maxPageBytes) =>
      timed((now) => {
        const nothing = (missing: Missing): Page => ({
          entries: [],
          position: head(),
          missing: Option.some(missing),
          more: false
        })
        if (after.epoch !== epoch) return nothing("OtherEpoch")
        if (after.seq > seq) return nothing("Future")
        const named = new Set<Ring>()
        const names = new PatternMap<true>()
        let hasPattern = false
        for (const channel of channels) {
          names.set(channel, true)
          if (isPattern(channel)) hasPattern = true
          const ring = rings.get(channel)
          if (ring !== undefined) {
            named.add(ring)
            evict(ring, now)
          }
          if (after.seq < (ring?.floor ?? forgotten)) return nothing("Evicted")
        }
        const entries: Array<Entry> = []
        let bytes = 0
        let place = after.seq
        let more = false
        const next = hasPattern ? sequence.after(after.seq) : merge(named, after.seq)
        let looked = after.seq
        for (let slot = next(), looks = 0; slot !== undefined; slot = next(), looks++) {
          if (looks === maxLooks) {
            place = looked
            more = true
            break
          }
          looked = slot.seq
          if (hasPattern && !names.has(slot.ring.channel)) continue
          const { at, entry } = slot
          if (entry === undefined || at < now - maxAge) return nothing("Evicted")
          bytes += entry.data.length
          if (entries.length >= limit || (bytes > maxBytes && entries.length > 0)) {
            more = true
            break
          }
          entries.push(entry)
          place = slot.seq
        }
        return { entries, position: more ? { epoch, seq: place } : head(), missing: Option.none(), more }
      }),
    tail: Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => {
          const tail = new TailBuffer()
          tails.add(tail)
          return tail
        }),
        (tail) => Effect.sync(() => tails.delete(tail))
      ),
      (tail): Tail => ({
        follow: (channel) =>
          Effect.acquireRelease(
            Effect.sync(() => tail.follow(channel)),
            () => Effect.sync(() => tail.unfollow(channel))
          ),
        take: tail.take
      })
    ),
    presence: Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => {
          const node = new PatternMap<number>()
          nodes.add(node)
          return node
        }),
        (node) => Effect.sync(() => nodes.delete(node))
      ),
      (self): Presence => ({
        set: (channel, count) => Effect.sync(() => count === 0 ? self.delete(channel) : self.set(channel, count)),
        others: (channel) =>
          Effect.sync(() =>
            Array.from(nodes).flatMap((node) => node === self ? [] : node.match(channel))
              .reduce((sum, count) => sum + count, 0)
          )
      })
    )
  }
}

// The number of entries, of any channels, that one read of a pattern examines at most.
const maxLooks = 8192

/**
 * The `id` of an event, or of any other place in a log.
 *
 * @since 0.1.0
 * @category conversions
 * @example
 * ```ts
 * import * as EventLog from "effect-realtime/EventLog"
 *
 * EventLog.formatEventId({ epoch: "q3Zb0aXu-Yw9", seq: 42 }) // "q3Zb0aXu-Yw9.42"
 * ```
 */
export const formatEventId = (cursor: Cursor): EventId => EventId(`${cursor.epoch}.${cursor.seq}`)

const EventId = Brand.nominal<EventId>()

/**
 * The place that an `id` from outside names, or none if it is not one that a log has given. It may be anything: what it
 * costs does not grow with its length.
 *
 * @since 0.1.0
 * @category conversions
 * @example
 * ```ts
 * import * as EventLog from "effect-realtime/EventLog"
 *
 * EventLog.parseEventId("q3Zb0aXu-Yw9.42") // Some({ epoch: "q3Zb0aXu-Yw9", seq: 42 })
 * EventLog.parseEventId("q3Zb0aXu-Yw9.1e3") // None
 * ```
 */
export const parseEventId = (id: string): Option.Option<Cursor> => {
  const match = id.length <= 128 ? /^([\w-]{1,64})\.(0|[1-9]\d{0,15})$/.exec(id) : null
  const [, epoch, digits] = match ?? []
  if (epoch === undefined || digits === undefined) return Option.none()
  const seq = Number(digits)
  return Number.isSafeInteger(seq) ? Option.some({ epoch, seq }) : Option.none()
}
