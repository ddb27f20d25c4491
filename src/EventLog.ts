/**
 * The port to the log that the nodes of an application share: channels of events that are appended, read again after a
 * cursor, and followed as they are appended by any node. `layerMemory` is the log of a single node.
 *
 * All channels of a log share one sequence. So one cursor is the place of a reader of any set of channels, and all
 * readers observe the events of their channels in the same order.
 *
 * To read and to follow, a name with `*` as a whole segment is a pattern: it matches every channel that has any segment
 * in that place. `orders/*` matches `orders/42`, but not `orders/42/items`. No pattern matches a name that begins with
 * `$`.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Brand from "effect/Brand"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"

import { Keys } from "./EventLog/internal/keys.js"
import { Ring, Sequence } from "./EventLog/internal/rings.js"
import { boundsFault } from "./internal/bounds.js"
import * as Channel from "./internal/channel.js"
import { monotonicMillis } from "./internal/clock.js"
import { nextTurn } from "./internal/nextTurn.js"
import { limitFault } from "./internal/retention.js"

/**
 * A place in a log: after the event with this `seq`, or before all events if it is 0. A log that has lost its events
 * begins another `epoch` (1 to 64 characters of `[A-Za-z0-9_-]`), so that an old cursor is not taken for a place in it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Cursor {
  readonly epoch: string
  readonly seq: number
}

/**
 * A cursor as the `id` of an event: `epoch.seq`, at most 128 bytes of `[A-Za-z0-9._-]`. With any other value of
 * `Last-Event-ID`, a browser sends a preflight before each reconnection to another origin (Fetch, section 2.2.2).
 *
 * @since 0.1.0
 * @category models
 */
export type EventId = Brand.Branded<string, "effect-realtime/EventId">

/**
 * An event of a log. It is also a cursor: the place after this event.
 *
 * @since 0.1.0
 * @category models
 */
export interface Entry extends Cursor {
  readonly _tag: "Entry"
  readonly channel: string
  /**
   * The bytes that were appended. All readers share them, so they must not be changed. Their buffer may be larger, and
   * have the data of other entries.
   */
  readonly data: Uint8Array
}

/**
 * The reason why a page cannot be complete:
 *
 * - `Evicted`: the log has evicted some of the entries after the cursor.
 * - `OtherEpoch`: the cursor is of another epoch.
 * - `Future`: the cursor is after the head of the log.
 *
 * @since 0.1.0
 * @category models
 */
export type Missing = "Evicted" | "OtherEpoch" | "Future"

/**
 * The entries after a cursor.
 *
 * @since 0.1.0
 * @category models
 */
export interface Page {
  /**
   * The entries in ascending order of `seq`. Empty if an entry is missing: a page has no holes.
   */
  readonly entries: ReadonlyArray<Entry>
  /**
   * The cursor of the next read: all entries up to here are in this page or before it. The head, if an entry is
   * missing.
   */
  readonly position: Cursor
  /**
   * The reason why the page is not complete, if it is not.
   */
  readonly missing: Option.Option<Missing>
  /**
   * True if the next page may have entries that are in the log already, because a limit was reached or the search has
   * not ended. Such a page may be empty.
   */
  readonly more: boolean
}

/**
 * The bounds of the entries with which a reader of some channels begins: those that exceed no bound. Without a bound,
 * all that are stored.
 *
 * @since 0.1.0
 * @category models
 */
export interface Bounds {
  /**
   * The number of the last entries of all the channels together, a whole number from 0. All that are stored, if there
   * are fewer.
   */
  readonly last?: number | undefined
  /**
   * The time of the earliest append, by the clock of the backend. All entries that are stored, if the log has none that
   * is older, and none for a time in the future.
   */
  readonly since?: DateTime.DateTime | undefined
}

/**
 * A gap in a tail: entries of these followed channels (or patterns) up to the position may be missing. `read` may still
 * have them. If the position is of another epoch, the log has begun again.
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
 * An element of a tail.
 *
 * @since 0.1.0
 * @category models
 */
export type Item = Entry | Lost

/**
 * A queue of the entries that any node appends to the followed channels.
 *
 * After `follow` has completed, `take` returns each entry that is appended once, even if several followed patterns
 * match it, in ascending order of `seq` over all channels. A `Lost` replaces the entries that the log could not
 * deliver, because the tail was not taken from for too long or because the backend was away. So memory is bounded.
 *
 * @since 0.1.0
 * @category models
 */
export interface Tail {
  /**
   * Follows a channel, or a pattern, until the scope is closed. A channel that several scopes follow is unfollowed when
   * the last of them closes. Entries that are pending by then may still be taken.
   */
  readonly follow: (channel: string) => Effect.Effect<void, EventLogError, Scope.Scope>
  /**
   * Waits for at least one item and returns all items. One fiber at a time may take.
   */
  readonly take: Effect.Effect<Arr.NonEmptyReadonlyArray<Item>>
}

/**
 * The number of subscribers on each channel at the nodes that share a log. Each node announces its own; none is stored.
 *
 * @since 0.1.0
 * @category models
 */
export interface Presence {
  /**
   * Announces the number of subscribers of this node on a channel, or on a pattern. Other nodes observe it shortly
   * after, or when the backend is back.
   */
  readonly set: (channel: string, count: number) => Effect.Effect<void>
  /**
   * Returns the number of subscribers of all other nodes on a channel and on the patterns that match it. A node that
   * has died counts until the backend has noticed that.
   */
  readonly others: (channel: string) => Effect.Effect<number, EventLogError>
}

/**
 * An event to append.
 *
 * @since 0.1.0
 * @category models
 */
export interface NewEntry extends AppendOptions {
  readonly channel: string
  /**
   * The bytes. The log does not interpret them, and need not copy them: they must not be changed afterwards.
   */
  readonly data: Uint8Array
}

/**
 * The limits of the events that a log stores of one channel. Each limit that is absent is that of the log.
 *
 * @since 0.1.0
 * @category models
 */
export interface Retention {
  /**
   * The number of events, a whole number from 1, or Infinity.
   */
  readonly capacity?: number | undefined
  /**
   * The size of the events in bytes, a whole number from 1, or Infinity. An event that is larger alone is delivered to
   * tails. A log may store it until the next event of the channel, or not at all.
   */
  readonly maxBytes?: number | undefined
  /**
   * The age of an event in milliseconds, longer than zero, or Infinity. An older event is not read.
   */
  readonly maxAge?: number | undefined
}

/**
 * The options of an append.
 *
 * @since 0.1.0
 * @category models
 */
export interface AppendOptions {
  /**
   * The idempotency key: a further append with the key of an earlier one to the same channel appends nothing and
   * returns the place of the earlier entry, even if the data differs. So a caller repeats an append after a `Timeout`
   * with the same key, and the event is appended once. A key is 1 to 256 bytes of well-formed Unicode without control
   * characters.
   *
   * The log remembers a key for as long as it stores entries by age, 10 minutes by default, even if the entry was
   * evicted by count or size. The memory log and `RedisEventLog` remember at most the last 65,536 keys, and forget all
   * of them when another epoch begins.
   */
  readonly key?: string | undefined
  /**
   * The limits of the channel, in place of those of the log. The last append decides: its `capacity` and `maxBytes`, or
   * without them those of the log, apply to all events of the channel from now on. `maxAge` is that of this event. So
   * two nodes with different limits for a channel both get theirs until the other one appends. A limit that is out of
   * range is a defect (`IllegalArgumentException`).
   */
  readonly retention?: Retention | undefined
  /**
   * The `seq` of the event that must be the last one of its channel, or 0 if the channel must have none: the event is
   * appended only then. Otherwise nothing is appended, and the `seq` of its place is 0. The last event counts even if
   * the log has evicted it, for as long as the log knows its channel. So of two writers that each append after the last
   * event that they know of, one appends, and the other one learns that it is late.
   *
   * After a `Timeout`, the event may be the last one itself: a repetition is then refused. Such an event has no `key`,
   * and is the only one of its channel in a call. Both are defects otherwise (`IllegalArgumentException`), and so is
   * such an event in a transaction of PostgreSQL, which has no last event before its commit.
   */
  readonly after?: number | undefined
}

/**
 * The failure of an operation of the log.
 *
 * - `InvalidChannel`: the name breaks the rule that `detail` states. A name is 1 to 512 bytes of well-formed Unicode
 *   without control characters. No segment of a name that is appended to is `*`.
 * - `InvalidKey`: the idempotency key breaks the rule that `detail` states.
 * - `Unavailable`: the backend cannot be reached. No entry was appended.
 * - `Timeout`: the backend has not answered in time. An entry may have been appended.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventLogError extends Schema.TaggedError<EventLogError>("effect-realtime/EventLogError")("EventLogError", {
  reason: Schema.Literal("InvalidChannel", "InvalidKey", "Unavailable", "Timeout"),
  detail: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  /**
   * True if the same call may succeed later.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return this.reason === "Unavailable" || this.reason === "Timeout"
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
  export interface Service extends Backend {
    /**
     * Appends an event and returns its place. The log does not interpret the bytes, and need not copy
     * them: they must not be changed afterwards.
     */
    readonly append: (
      channel: string,
      data: Uint8Array,
      options?: AppendOptions
    ) => Effect.Effect<Cursor, EventLogError>
  }

  /**
   * The operations that a backend implements.
   *
   * @since 0.1.0
   * @category models
   */
  export interface Backend {
    /**
     * Appends events to any channels, in their order, in one step and one round trip: all of them or none. Returns the
     * place of each. An event whose key the log knows for its channel, from an earlier append or from an earlier event
     * of the same call, is not appended: its place is that of the earlier entry. Nor is an event whose `after` is not
     * the last place of its channel: the `seq` of its place is 0. The others of the call are appended.
     */
    readonly appendAll: (events: ReadonlyArray<NewEntry>) => Effect.Effect<ReadonlyArray<Cursor>, EventLogError>
    /**
     * The place after all entries.
     */
    readonly head: Effect.Effect<Cursor, EventLogError>
    /**
     * Reads at most `limit` entries of channels (or patterns) after a cursor. Their data is at most `maxBytes` bytes, 1
     * MiB by default, unless the first entry alone is larger.
     */
    readonly read: (
      channels: Iterable<string>,
      after: Cursor,
      limit: number,
      maxBytes?: number
    ) => Effect.Effect<Page, EventLogError>
    /**
     * Returns the head, and the last entry up to there of each of the channels, if the log still has it and its data is
     * at most `maxBytes` bytes. `isCurrent` is true if a `read` after the cursor would be complete and have no entries.
     */
    readonly last: (
      channels: Iterable<string>,
      maxBytes: number,
      after?: Cursor
    ) => Effect.Effect<
      { readonly head: Cursor; readonly entries: ReadonlyArray<Entry>; readonly isCurrent: boolean },
      EventLogError
    >
    /**
     * Finds the cursor before the first entry of channels (or patterns) that exceeds no bound. Without a bound, that is
     * the first entry that is stored. A `read` after it is complete: the log has evicted no entry of the channels after
     * the cursor. `make` answers `last: 0` with `head`. Fails with `Unavailable` or `Timeout` like `read`, and with
     * `InvalidChannel`.
     */
    readonly seek: (channels: Iterable<string>, bounds: Bounds) => Effect.Effect<Cursor, EventLogError>
    /**
     * Opens a tail, until the scope is closed. A closed tail emits no further entries.
     */
    readonly tail: Effect.Effect<Tail, EventLogError, Scope.Scope>
    /**
     * Joins the log as a node that has subscribers, until the scope is closed.
     */
    readonly presence: Effect.Effect<Presence, EventLogError, Scope.Scope>
  }
}

/**
 * Makes a log from a backend, which need neither check names and keys nor count followers. An operation with a name
 * that breaks a rule fails with `EventLogError` (`InvalidChannel`) before it reaches the backend, and an append of no
 * events does not reach it. Data that is no `Uint8Array`, a cursor or a time that is none, and a limit or a count that
 * is not a whole number die with `IllegalArgumentException`. A tail of the backend follows each channel once at most,
 * and is not asked to follow a channel before it has unfollowed it.
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
 *       appendAll: (events) => Effect.zipLeft(log.appendAll(events), Effect.logDebug(`appended ${events.length}`))
 *     }))
 * ).pipe(Layer.provide(EventLog.layerMemory))
 * ```
 */
export const make = (backend: EventLog.Backend): EventLog.Service => ({
  append: (channel, data, options) =>
    Effect.suspend(() => {
      const event: NewEntry = { channel, data, after: options?.after, key: options?.key, retention: options?.retention }
      return invalid(event) ??
        Effect.flatMap(
          backend.appendAll([event]),
          ([cursor]) => cursor === undefined ? Effect.dieMessage(noCursor) : Effect.succeed(cursor)
        )
    }),
  appendAll: (events) =>
    Effect.suspend((): Effect.Effect<ReadonlyArray<Cursor>, EventLogError> => {
      if (!Array.isArray(events)) return illegal("events must be an array")
      if (events.length === 0) return Effect.succeed([])
      for (const event of events) {
        const failure = invalid(event)
        if (failure !== undefined) return failure
      }
      const fenced = events.filter(({ after }) => after !== undefined)
      return fenced.some((event) => events.some((other) => other !== event && other.channel === event.channel))
        ? illegal("an event with after must be the only one of its channel in a call")
        : backend.appendAll(events)
    }),
  head: backend.head,
  read: (channels, after, limit, maxBytes = maxPageBytes) =>
    Effect.suspend(() => {
      const names = Array.from(channels)
      if (!isCursor(after)) return illegal("after must be a cursor")
      if (!isCount(limit) || limit === 0) return illegal("limit must be a whole number, one or more")
      if (!(maxBytes >= 0)) return illegal("maxBytes must be a number, zero or more")
      return valid(
        names.map(Channel.patternFault).find((fault) => fault !== undefined),
        () => backend.read(names, after, limit, maxBytes)
      )
    }),
  last: (channels, maxBytes, after) =>
    Effect.suspend(() => {
      const names = Array.from(channels)
      if (after !== undefined && !isCursor(after)) return illegal("after must be a cursor")
      if (!(maxBytes >= 0)) return illegal("maxBytes must be a number, zero or more")
      return valid(
        names.map(Channel.channelFault).find((fault) => fault !== undefined),
        () => backend.last(names, maxBytes, after)
      )
    }),
  seek: (channels, bounds) =>
    Effect.suspend(() => {
      const names = Array.from(channels)
      const fault = boundsFault(bounds)
      if (fault !== undefined) return illegal(fault)
      return valid(
        names.map(Channel.patternFault).find((fault) => fault !== undefined),
        () => bounds.last === 0 ? backend.head : backend.seek(names, bounds)
      )
    }),
  tail: Effect.map(backend.tail, (tail) => {
    const follow = countFollowers(tail)
    return { follow: (channel) => valid(Channel.patternFault(channel), () => follow(channel)), take: tail.take }
  }),
  presence: Effect.map(backend.presence, (presence) => ({
    set: (channel, count) =>
      Effect.suspend(() => {
        const fault = Channel.patternFault(channel)
        if (fault !== undefined) return illegal(`a channel ${fault}`)
        return isCount(count) ? presence.set(channel, count) : illegal("count must be a whole number, zero or more")
      }),
    others: (channel) => valid(Channel.channelFault(channel), () => presence.others(channel))
  }))
})

const maxPageBytes = 1024 * 1024

/** A channel that a tail follows, or is about to follow or to unfollow. */
interface Followed {
  followers: number
  /** The scope in which the backend follows the channel, while it does. */
  scope: Scope.CloseableScope | undefined
  /** The permit to ask the backend, while there are requests. It orders a follow after an unfollow in progress. */
  turn: Effect.Semaphore | undefined
  requests: number
}

/** Follows a channel once for all scopes that follow it. */
const countFollowers = (tail: Tail): Tail["follow"] => {
  const channels = new Map<string, Followed>()

  // A semaphore for each channel would be most of the memory of a channel.
  const inTurn = <A, E>(followed: Followed, request: Effect.Effect<A, E>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        followed.requests++
        return followed.turn ??= Effect.unsafeMakeSemaphore(1)
      }),
      (turn) => turn.withPermits(1)(request),
      () =>
        Effect.sync(() => {
          if (--followed.requests === 0) followed.turn = undefined
        })
    )

  const open = (channel: string, followed: Followed) =>
    Effect.suspend(() =>
      followed.scope !== undefined ?
        Effect.void :
        Effect.flatMap(Scope.make(), (scope) => {
          // Finalizers may retain the context, and the channel may be followed for longer than the request lasts.
          const opened = Effect.mapInputContext(
            tail.follow(channel),
            (_: Context.Context<never>) => Context.make(Scope.Scope, scope)
          )
          return Effect.onExit(opened, (exit) => {
            if (Exit.isFailure(exit)) return Scope.close(scope, exit)
            followed.scope = scope
            return Effect.void
          })
        })
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
    Effect.suspend(() => --followed.followers > 0 ? Effect.void : inTurn(followed, close(channel, followed)))

  return (channel) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.scope, (scope) => {
        const followed = channels.get(channel) ??
          { followers: 0, scope: undefined, turn: undefined, requests: 0 }
        channels.set(channel, followed)
        followed.followers++
        const opened = followed.scope !== undefined
          ? Effect.void
          : Effect.onError(
            restore(inTurn(followed, open(channel, followed))),
            () => leave(channel, followed)
          )
        return Effect.zipRight(opened, Scope.addFinalizer(scope, leave(channel, followed)))
      })
    )
}

const noCursor = "EventLog: the backend has appended an event, and returned no cursor"

/** Returns the failure of an event that breaks a rule, or undefined. A program in JavaScript may append any value. */
const invalid = (event: NewEntry): Effect.Effect<never, EventLogError> | undefined => {
  if (!Predicate.hasProperty(event, "data") || !Predicate.isUint8Array(event.data)) {
    return illegal("data must be a Uint8Array")
  }
  const { after, channel, key, retention } = event
  if (after !== undefined) {
    if (!isCount(after)) return illegal("after must be a whole number, zero or more")
    if (key !== undefined) return illegal("after must not be combined with key")
  }
  const ofRetention = retention === undefined ? undefined : limitFault(retention)
  if (ofRetention !== undefined) return illegal(ofRetention)
  const ofChannel = Channel.channelFault(channel)
  if (ofChannel !== undefined) return new EventLogError({ reason: "InvalidChannel", detail: `a channel ${ofChannel}` })
  const ofKey = key === undefined ? undefined : Channel.keyFault(key)
  return ofKey === undefined ? undefined : new EventLogError({ reason: "InvalidKey", detail: `a key ${ofKey}` })
}

const isCursor = (cursor: Cursor): boolean =>
  Predicate.isObject(cursor) && typeof cursor.epoch === "string" && Number.isSafeInteger(cursor.seq)

const isCount = (count: number): boolean => Number.isSafeInteger(count) && count >= 0

const valid = <A, R>(
  fault: string | undefined,
  then: () => Effect.Effect<A, EventLogError, R>
): Effect.Effect<A, EventLogError, R> =>
  fault === undefined ? then() : new EventLogError({ reason: "InvalidChannel", detail: `a channel ${fault}` })

/**
 * Makes an epoch for a log that begins: 12 random characters.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as EventLog from "effect-realtime/EventLog"
 *
 * const start = Effect.map(EventLog.makeEpoch, (epoch): EventLog.Cursor => ({ epoch, seq: 0 }))
 * ```
 */
export const makeEpoch: Effect.Effect<string> = Effect.sync(() =>
  Encoding.encodeBase64Url(crypto.getRandomValues(new Uint8Array(9)))
)

/**
 * Returns true if a name is a pattern: one of its segments is `*`.
 *
 * @since 0.1.0
 * @category patterns
 * @example
 * ```ts
 * import * as EventLog from "effect-realtime/EventLog"
 *
 * EventLog.isPattern("orders/*") // true
 * EventLog.isPattern("orders/a*") // false
 * ```
 */
export const isPattern = (name: string): boolean => Channel.isPattern(name)

/**
 * A map from channels and patterns to values, for backends. It finds the patterns that match a channel without a walk
 * over all of them. Its methods are synchronous, so that the callback of a driver can call them.
 *
 * @since 0.1.0
 * @category patterns
 */
export interface PatternMap<in out A> {
  /**
   * The number of channels and patterns.
   */
  readonly size: number
  /**
   * Returns the channels and patterns.
   */
  readonly keys: () => IterableIterator<string>
  /**
   * Returns the value of exactly this channel or pattern.
   */
  readonly get: (name: string) => A | undefined
  readonly set: (name: string, value: A) => void
  readonly delete: (name: string) => void
  /**
   * Returns true if the map has the channel, or a pattern that matches it.
   */
  readonly has: (channel: string) => boolean
  /**
   * Returns the values of the channel itself and of each pattern that matches it.
   */
  readonly match: (channel: string) => Array<A>
}

/**
 * Makes a map from channels and patterns to values.
 *
 * @since 0.1.0
 * @category patterns
 * @example
 * ```ts
 * import * as EventLog from "effect-realtime/EventLog"
 *
 * const subscribers = EventLog.makePatternMap<number>()
 * subscribers.set("orders/42", 1)
 * subscribers.set("orders/*", 2)
 * subscribers.has("orders/7") // true
 * subscribers.match("orders/42") // [1, 2]
 * ```
 */
export const makePatternMap = <A>(): PatternMap<A> => new Channel.PatternMap<A>()

/**
 * The buffer of a tail, for backends. The listener of a backend offers it all entries, in ascending order of `seq`; it
 * stores those that a followed channel or pattern matches until they are taken. At most 16,384 items and 16 MiB are
 * pending: one more entry replaces all of them with one `Lost`.
 *
 * All methods but `take` are synchronous, so that the callback of a driver can call them.
 *
 * @since 0.1.0
 * @category models
 */
export interface TailBuffer {
  /**
   * Stores the entries of a channel, or of a pattern, from now on.
   */
  readonly follow: (channel: string) => void
  /**
   * Ignores the entries of a channel, or of a pattern, from now on.
   */
  readonly unfollow: (channel: string) => void
  /**
   * Stores an entry if it is followed.
   */
  readonly offer: (entry: Entry) => void
  /**
   * Replaces the pending items with one `Lost` of all followed channels.
   */
  readonly lose: (position: Cursor) => void
  /**
   * Adds a `Lost` of one channel, and of the followed patterns that match it. The pending items stay.
   */
  readonly loseOf: (channel: string, position: Cursor) => void
  /**
   * Waits for at least one item and returns all items. One fiber at a time may take.
   */
  readonly take: Tail["take"]
}

/**
 * Makes the buffer of a tail.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect, Scope } from "effect"
 * import * as EventLog from "effect-realtime/EventLog"
 *
 * // A tail of a backend whose driver calls back for each entry.
 * const makeTail = (onEntry: (listener: (entry: EventLog.Entry) => void) => () => void) =>
 *   Effect.gen(function*() {
 *     const buffer = yield* EventLog.makeTailBuffer
 *     yield* Effect.acquireRelease(
 *       Effect.sync(() => onEntry(buffer.offer)),
 *       (removeListener) => Effect.sync(removeListener)
 *     )
 *     const tail: EventLog.Tail = {
 *       follow: (channel) =>
 *         Effect.uninterruptible(
 *           // Unlike the finalizer of `acquireRelease`, this one does not retain the context of the caller.
 *           Effect.flatMap(Effect.scope, (scope) => {
 *             buffer.follow(channel)
 *             return Scope.addFinalizer(scope, Effect.sync(() => buffer.unfollow(channel)))
 *           })
 *         ),
 *       take: buffer.take
 *     }
 *     return tail
 *   })
 * ```
 */
export const makeTailBuffer: Effect.Effect<TailBuffer> = Effect.sync(() => {
  const followed = makePatternMap<string>()
  const latch = Effect.unsafeMakeLatch(false)
  let items: Array<Item> = []
  let bytes = 0

  const lose = ({ epoch, seq }: Cursor) => {
    const channels = Array.from(followed.keys())
    if (channels.length === 0) return
    items = [{ _tag: "Lost", channels, position: { epoch, seq } }]
    bytes = 0
    latch.unsafeOpen()
  }
  const take: Tail["take"] = Effect.suspend(() => {
    const taken = items
    if (!Arr.isNonEmptyArray(taken)) return Effect.zipRight(latch.await, take)
    items = []
    bytes = 0
    latch.unsafeClose()
    return Effect.succeed(taken)
  })

  return {
    follow: (channel) => followed.set(channel, channel),
    unfollow: (channel) => followed.delete(channel),
    offer: (entry) => {
      if (!followed.has(entry.channel)) return
      bytes += entry.data.length
      if (items.length >= maxPending || (bytes > maxPendingBytes && items.length > 0)) return lose(entry)
      items.push(entry)
      latch.unsafeOpen()
    },
    lose,
    loseOf: (channel, { epoch, seq }) => {
      const channels = followed.match(channel)
      if (channels.length === 0) return
      if (items.length >= maxPending) return lose({ epoch, seq })
      items.push({ _tag: "Lost", channels, position: { epoch, seq } })
      latch.unsafeOpen()
    },
    take
  }
})

// A batch that is appended in one turn of the event loop must fit in.
const maxPending = 16_384
const maxPendingBytes = 16 * 1024 * 1024

/**
 * The limits of a log in memory. It stores the last events of each channel that exceed none of the three, unless an
 * append states limits of its own.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemoryOptions {
  /**
   * The number of events of one channel, a whole number from 1, or Infinity. 1000 by default.
   */
  readonly capacity?: number | undefined
  /**
   * The size of the events of one channel in bytes, a whole number from 1, or Infinity. 1 MiB by default. A larger
   * event is delivered to tails, but not stored.
   */
  readonly maxBytes?: number | undefined
  /**
   * The age of an event, in milliseconds or as a Duration, longer than zero. 10 minutes by default.
   */
  readonly maxAge?: Duration.DurationInput | undefined
}

/**
 * Provides a log in the memory of this process. It ends with the layer: the next one begins another epoch.
 *
 * Age alone bounds the number of channels. No fiber runs for this. Each append to any channel examines 2 to 10,000
 * channels, so that all are examined within `maxAge`. So memory is proportional to the events of the last two `maxAge`,
 * up to `capacity` events and `maxBytes` of each channel. Of a channel whose last event is too old, the name remains,
 * so that a channel that has lost nothing is never `Evicted`. Of more than 65,536 such channels, the log forgets the
 * first. One number remains of all forgotten channels together: a cursor from before the last event of one of them
 * gets `Evicted` for each channel that the log does not know.
 *
 * An event occupies at most 120 bytes besides its data, and a channel about 300. Data of up to 2 KiB is copied, many
 * events to a buffer of 32 KiB. While many events are evicted and few between them stay, the buffers may occupy three
 * times as much as the data in them.
 *
 * A read after the head examines nothing. Any other finds its place by binary search, and its cost is proportional to
 * the page. A read by pattern also walks the entries of other channels in between, 8,192 in one call at most. Neither
 * depends on the number of channels.
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
 * }).pipe(Effect.provide(EventLog.layerMemory))
 * ```
 */
export const layerMemory: Layer.Layer<EventLog> = Layer.effect(EventLog, Effect.suspend(() => makeMemory({})))

/**
 * Provides a log in the memory of this process with other limits. Dies with `IllegalArgumentException` if a limit is
 * out of range.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import * as EventLog from "effect-realtime/EventLog"
 *
 * const ShortLog = EventLog.layerMemoryWith({ capacity: 100, maxAge: "1 minute" })
 * ```
 */
export const layerMemoryWith = (options: MemoryOptions): Layer.Layer<EventLog> =>
  Layer.effect(EventLog, makeMemory(options))

const makeMemory = Effect.fnUntraced(function*(options: MemoryOptions) {
  const limits = { capacity: options.capacity ?? 1000, maxBytes: options.maxBytes ?? 1024 * 1024 }
  const maxAge = Duration.toMillis(options.maxAge ?? "10 minutes")
  const fault = limitFault({ ...limits, maxAge })
  if (fault !== undefined) yield* illegal(fault)
  const epoch = yield* makeEpoch
  const rings = new Map<string, Ring>()
  // The rings of the channels whose events were all evicted by age.
  const past = new Map<string, Ring>()
  const makeEntry = (channel: string, seq: number, data: Uint8Array): Entry => ({
    _tag: "Entry",
    channel,
    epoch,
    seq,
    data
  })
  const sequence = new Sequence(makeEntry)
  const tails = new Set<TailBuffer>()
  const nodes = new Set<PatternMap<number>>()
  const keys = new Keys<Cursor>()
  let seq = 0
  // The last seq of all forgotten channels.
  let forgotten = 0
  let sweep = rings.entries()
  let sweptAt = 0

  // Examines the next channels in turn, at least two, and so many that all are examined within maxAge.
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
      sequence.evict(ring, now)
      if (ring.size > 0) continue
      rings.delete(channel)
      past.set(channel, ring)
      if (past.size > maxPast) forgetOne()
    }
  }
  const forgetOne = () => {
    for (const [channel, ring] of past) {
      past.delete(channel)
      ring.isForgotten = true
      forgotten = Math.max(forgotten, ring.floor)
      return
    }
  }
  const find = (channel: string) => rings.get(channel) ?? past.get(channel)
  const timed = <A>(f: (now: number, at: number) => A): Effect.Effect<A> =>
    Effect.clockWith((clock) => Effect.sync(() => f(monotonicMillis(clock), clock.unsafeCurrentTimeMillis())))
  const head = (): Cursor => ({ epoch, seq })

  const append = ({ channel, data, retention }: NewEntry, now: number, at: number): Cursor => {
    seq++
    let ring = rings.get(channel)
    if (ring === undefined) {
      ring = past.get(channel) ?? new Ring(channel, forgotten, limits)
      past.delete(channel)
      rings.set(channel, ring)
    }
    ring.limits = retention === undefined
      ? limits
      : { capacity: retention.capacity ?? limits.capacity, maxBytes: retention.maxBytes ?? limits.maxBytes }
    sequence.push(ring, seq, data, at, now + (retention?.maxAge ?? maxAge))
    sequence.evict(ring, now)
    sweepSome(now)
    if (tails.size > 0) {
      const entry = makeEntry(channel, seq, data)
      for (const tail of tails) tail.offer(entry)
    }
    return head()
  }

  /** Returns true if the event is to be appended after another one than the last of its channel. */
  const isLate = ({ after, channel }: NewEntry): boolean => {
    if (after === undefined) return false
    const ring = find(channel)
    return after !== (ring?.last ?? ring?.floor ?? 0)
  }

  const backend: EventLog.Backend = {
    appendAll: (events) =>
      timed((now, at) =>
        events.map((event) =>
          isLate(event)
            ? { epoch, seq: 0 }
            : event.key === undefined
            ? append(event, now, at)
            : keys.getOrAdd(`${event.channel}\n${event.key}`, now, now - maxAge, () => append(event, now, at))
        )
      ),
    head: Effect.sync(head),
    read: (channels, after, limit, maxBytes = maxPageBytes) =>
      timed((now) => {
        const incomplete = (missing: Missing): Page => ({
          entries: [],
          position: head(),
          missing: Option.some(missing),
          more: false
        })
        if (after.epoch !== epoch) return incomplete("OtherEpoch")
        if (after.seq > seq) return incomplete("Future")
        if (after.seq === seq) return { entries: [], position: head(), missing: Option.none(), more: false }
        const named = new Set<Ring>()
        const names = makePatternMap<true>()
        let hasPattern = false
        for (const channel of channels) {
          names.set(channel, true)
          if (isPattern(channel)) hasPattern = true
          const ring = find(channel)
          if (ring !== undefined) {
            named.add(ring)
            sequence.evict(ring, now)
          }
          if (after.seq < (ring?.floor ?? forgotten)) return incomplete("Evicted")
        }
        const entries: Array<Entry> = []
        let bytes = 0
        let place = after.seq
        let more = false
        const next = hasPattern
          ? sequence.after(after.seq)
          : sequence.merge(Array.from(named, (ring) => ring.after(after.seq)), false)
        let examined = after.seq
        for (let index = next(), count = 0; index !== undefined; index = next(), count++) {
          if (count === maxExamined) {
            place = examined
            more = true
            break
          }
          examined = sequence.seqAt(index)
          if (hasPattern && !names.has(sequence.channelAt(index))) continue
          const entry = sequence.entryAt(index)
          if (entry === undefined || sequence.untilAt(index) < now) return incomplete("Evicted")
          bytes += entry.data.length
          if (entries.length >= limit || (bytes > maxBytes && entries.length > 0)) {
            more = true
            break
          }
          entries.push(entry)
          place = examined
        }
        return { entries, position: more ? { epoch, seq: place } : head(), missing: Option.none(), more }
      }),
    last: (channels, maxBytes, after) =>
      timed((now) => {
        let isCurrent = after !== undefined && after.epoch === epoch && after.seq <= seq
        const entries = Array.from(new Set(channels)).flatMap((channel) => {
          const ring = find(channel)
          const last = ring?.last
          if (after !== undefined && Math.max(last ?? 0, ring?.floor ?? forgotten) > after.seq) isCurrent = false
          if (last === undefined) return []
          const index = sequence.indexOf(last)
          const entry = sequence.untilAt(index) < now ? undefined : sequence.entryAt(index)
          return entry === undefined || entry.data.length > maxBytes ? [] : [entry]
        })
        return { head: head(), entries, isCurrent }
      }),
    seek: (channels, { last = Number.POSITIVE_INFINITY, since }) => {
      const names = makePatternMap<true>()
      for (const channel of channels) names.set(channel, true)
      const isWalk = names.size > maxMerged || Array.from(names.keys()).some(isPattern)
      const earliest = since === undefined ? Number.NEGATIVE_INFINITY : DateTime.toEpochMillis(since)
      // Walks back to the last entry that a reader does not begin with.
      const walk = (from: number, left: number): Effect.Effect<Cursor> =>
        Effect.flatten(timed((now) => {
          let floor = 0
          const named = new Set<Ring>()
          for (const name of names.keys()) {
            const ring = find(name)
            if (ring !== undefined) {
              named.add(ring)
              sequence.evict(ring, now)
            }
            floor = Math.max(floor, ring?.floor ?? forgotten)
          }
          const next = isWalk ? sequence.upTo(from) : sequence.merge(Array.from(named, (ring) => ring.upTo(from)), true)
          let count = 0
          let index = next()
          for (; index !== undefined && sequence.seqAt(index) > floor; index = next()) {
            if (count++ === maxExamined) return Effect.zipRight(nextTurn, walk(sequence.seqAt(index), left))
            if (isWalk && !names.has(sequence.channelAt(index))) continue
            if (
              left === 0 || sequence.isEvictedAt(index) || sequence.untilAt(index) < now ||
              sequence.atAt(index) < earliest
            ) break
            left--
          }
          return Effect.succeed({ epoch, seq: Math.max(floor, index === undefined ? 0 : sequence.seqAt(index)) })
        }))
      return Effect.suspend(() => walk(seq, last))
    },
    tail: Effect.map(
      Effect.acquireRelease(
        Effect.tap(makeTailBuffer, (tail) => Effect.sync(() => tails.add(tail))),
        (tail) => Effect.sync(() => tails.delete(tail))
      ),
      (tail): Tail => ({
        // `acquireRelease` would retain the context of the fiber, which is that of a request, for each channel.
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
          const node = makePatternMap<number>()
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
  return make(backend)
})

const illegal = (rule: string) => Effect.die(new Cause.IllegalArgumentException(`EventLog: ${rule}`))

// The number of entries, of any channels, that one read by pattern examines at most.
const maxExamined = 8192
// The number of channels whose entries a search merges. It examines those of all channels for more.
const maxMerged = 128
// The number of channels without events that the log knows at most.
const maxPast = 65_536

/**
 * Formats the `id` of an event, or of any other place in a log.
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
 * Parses an `id` from outside. Returns none if `formatEventId` cannot have formatted it. Its cost does not depend on
 * the length of the text.
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
