import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

import { type Cursor, type Entry, formatEventId, type Item } from "../../EventLog.js"
import type { Connection } from "../../EventStream/internal/connection.js"
import * as Frame from "../../EventStream/internal/frame.js"
import { isPattern, PatternMap, shapeOf } from "../../internal/channel.js"
import { monotonicMillis } from "../../internal/clock.js"
import { add } from "../../internal/counter.js"
import { later } from "../../internal/nextTurn.js"
import * as Metrics from "../../Metrics.js"
import type * as Topic from "../../Topic.js"
import * as StoredEvent from "./storedEvent.js"

/** A channel, or a pattern. A string is the name of a channel. */
export type Channel = string | Topic.Channel | Topic.Pattern

/**
 * A connection and its cursor: the place in the log up to which the client has been sent everything.
 *
 *     replaying <--> behind          reads the log
 *         |            ^
 *         v            |
 *        live ---------+             is sent each entry that the tail delivers
 */
export class Subscriber {
  readonly connection: Connection
  /** The channels and patterns by their names in the log. */
  readonly granted: ReadonlyMap<string, Channel>
  readonly channels: ReadonlyArray<string>
  readonly owner: string | undefined
  /** True if the client is sent cursors that no event carries. */
  readonly hasCursor: boolean
  /** True if the client is sent the channel of each event. */
  readonly isAttributed: boolean
  /** True for a consumer in this process, to which no limit of connections and no hook applies. */
  readonly isLocal: boolean
  /** Reads the log again, in a fiber of its own. Runs when a live subscriber has fallen behind. */
  readonly catchUp: Effect.Effect<unknown>
  /** The progress of the hooks: `onLeave` runs once, and only after `onJoin`. */
  hooks: "none" | "joining" | "joined" | "left" = "none"
  /** True while the subscriber is counted in the presence of the log. */
  isPresent = false
  epoch = ""
  seq = 0
  /** True if the cursor has moved past an entry that was not sent: the client does not know of it. */
  isAhead = false
  /** The channels that have ended up to the cursor. */
  private ended: Set<string> | undefined
  private state: "replaying" | "behind" | "live" = "replaying"

  constructor(
    connection: Connection,
    granted: ReadonlyMap<string, Channel>,
    owner: string | undefined,
    hasCursor: boolean,
    isAttributed: boolean,
    isLocal: boolean,
    catchUp: Effect.Effect<unknown>
  ) {
    this.connection = connection
    this.granted = granted
    this.channels = Array.from(granted.keys())
    this.owner = owner
    this.hasCursor = hasCursor
    this.isAttributed = isAttributed
    this.isLocal = isLocal
    this.catchUp = catchUp
  }

  get isLive(): boolean {
    return this.state === "live"
  }

  /** Notes that an entry was delivered which the subscriber must read from the log. Returns true if it was live. */
  fallBehind(): boolean {
    const wasLive = this.isLive
    this.state = "behind"
    return wasLive
  }

  /** Begins to read the log: the next page includes everything that was delivered before. */
  replay(): void {
    this.state = "replaying"
  }

  /** Goes live, unless an entry was delivered since `replay`. Returns true if the subscriber is live. */
  goLive(): boolean {
    if (this.state === "replaying") this.state = "live"
    return this.isLive
  }

  /** True if all channels have ended up to the cursor. A pattern never does. */
  get hasEnded(): boolean {
    return this.ended?.size === this.granted.size
  }

  /** Notes that a channel has ended. */
  noteEnd(channel: string): void {
    if (this.granted.has(channel)) this.ended = (this.ended ?? new Set()).add(channel)
  }

  /** Notes the last entries of channels that have ended. */
  noteEnds(ends: ReadonlyArray<Entry>): void {
    for (const { channel } of ends) this.noteEnd(channel)
  }

  /** Notes that an event was published to a channel, which may have ended before. */
  noteEvent(channel: string): void {
    this.ended?.delete(channel)
  }

  /** Forgets which channels have ended: an event that the log no longer has may have opened them again. */
  forgetEnds(): void {
    this.ended = undefined
  }

  moveTo({ epoch, seq }: Cursor): void {
    this.epoch = epoch
    this.seq = seq
  }
}

/**
 * The subscribers of this node by channel and by owner. An event costs one loop over its subscribers: no fiber runs for
 * it, and it is encoded once.
 */
export class Hub {
  readonly subscribers = new Set<Subscriber>()
  /** Open while there are connections. */
  readonly occupied = Effect.unsafeMakeLatch(false)
  /** Open while there are none. */
  readonly empty = Effect.unsafeMakeLatch(true)
  /** Connections without a subscriber, whose clients have not read all of the queue. */
  private readonly ending = new Set<Connection>()
  /** The last entry that was dispatched. */
  private position: Cursor | undefined
  private readonly byChannel = new PatternMap<Set<Subscriber>>()
  private locals = 0
  private readonly byOwner = new Map<string, number>()
  private readonly shapes = new Map<string, number>()
  /**
   * Weak on both sides: a log retains its entries for long, and with their frames they would occupy twice the memory.
   */
  private readonly frames = new WeakMap<Entry, WeakRef<Frame.Frame>>()
  private readonly attributedFrames = new WeakMap<Entry, WeakRef<Frame.Frame>>()

  /** Time until which the events of this turn of the event loop are gathered. */
  private gathersUntil = Number.NEGATIVE_INFINITY
  private readonly clock: Clock.Clock

  constructor(clock: Clock.Clock) {
    this.clock = clock
  }

  get channels(): ReadonlyArray<Channel> {
    return Array.from(new Map(Array.from(this.subscribers).flatMap(({ granted }) => Array.from(granted))).values())
  }

  get isEmpty(): boolean {
    return this.subscribers.size === 0 && this.ending.size === 0
  }

  /** Returns all connections, also those without a subscriber. */
  connections(): ReadonlyArray<Connection> {
    return [...Array.from(this.subscribers, ({ connection }) => connection), ...this.ending]
  }

  /** The number of subscribers that are clients. */
  get clients(): number {
    return this.subscribers.size - this.locals
  }

  countOfOwner(owner: string): number {
    return this.byOwner.get(owner) ?? 0
  }

  /** Returns true if the name, a channel or a pattern, has a subscriber. */
  hasChannel(name: string): boolean {
    return this.byChannel.get(name) !== undefined
  }

  /**
   * Returns true if the patterns may be added. At most one pattern of each shape matches a channel, so that the number
   * of shapes bounds the work of a publish.
   */
  hasRoomFor(channels: ReadonlyArray<string>): boolean {
    const added = new Set(channels.filter(isPattern).map(shapeOf).filter((shape) => !this.shapes.has(shape)))
    return added.size === 0 || this.shapes.size + added.size <= maxShapes
  }

  /** Returns the number of subscribers that an event on the channel reaches. */
  countOf(channel: string): number {
    const [first, ...others] = this.byChannel.match(channel)
    if (first === undefined) return 0
    if (others.length === 0) return first.size
    const found = new Set(first)
    for (const some of others) for (const subscriber of some) found.add(subscriber)
    return found.size
  }

  add(subscriber: Subscriber): void {
    this.subscribers.add(subscriber)
    if (subscriber.isLocal) this.locals++
    if (subscriber.owner !== undefined) this.byOwner.set(subscriber.owner, this.countOfOwner(subscriber.owner) + 1)
    for (const channel of subscriber.channels) {
      if (isPattern(channel)) this.countShape(shapeOf(channel), 1)
      const some = this.byChannel.get(channel)
      if (some === undefined) this.byChannel.set(channel, new Set([subscriber]))
      else some.add(subscriber)
    }
    this.occupied.unsafeOpen()
    this.empty.unsafeClose()
    Metrics.connections.unsafeUpdate(this.clients, [])
  }

  /** Removes a subscriber from its channels. Its connection is timed until `forget`. */
  remove(subscriber: Subscriber): void {
    if (!this.subscribers.delete(subscriber)) return
    this.ending.add(subscriber.connection)
    if (subscriber.isLocal) this.locals--
    if (subscriber.owner !== undefined) {
      const left = this.countOfOwner(subscriber.owner) - 1
      if (left === 0) this.byOwner.delete(subscriber.owner)
      else this.byOwner.set(subscriber.owner, left)
    }
    for (const channel of subscriber.channels) {
      if (isPattern(channel)) this.countShape(shapeOf(channel), -1)
      const some = this.byChannel.get(channel)
      some?.delete(subscriber)
      if (some?.size === 0) this.byChannel.delete(channel)
    }
    Metrics.connections.unsafeUpdate(this.clients, [])
    // No tick follows that would update it.
    if (this.subscribers.size === 0) Metrics.framesQueued.unsafeUpdate(0, [])
  }

  /** Stops timing a connection that has ended, or that no sink carries. */
  forget(connection: Connection): void {
    this.ending.delete(connection)
    if (!this.isEmpty) return
    this.occupied.unsafeClose()
    this.empty.unsafeOpen()
  }

  /** Sends the items of the tail to their subscribers. Returns those that were live and now have to read the log. */
  dispatch(items: ReadonlyArray<Item>): ReadonlySet<Subscriber> {
    const fallen = new Set<Subscriber>()
    const now = monotonicMillis(this.clock)
    // The first event of a turn of the event loop is written at once. Those after it are queued, and written together.
    const isFirst = items.length === 1 && now >= this.gathersUntil
    const fallBehind = (subscriber: Subscriber) => {
      if (subscriber.fallBehind()) fallen.add(subscriber)
    }
    let delivered = 0
    for (const item of items) {
      if (item._tag === "Lost") {
        for (const channel of item.channels) this.byChannel.get(channel)?.forEach(fallBehind)
        continue
      }
      this.position = item
      const isEnd = StoredEvent.isEnd(item.data)
      const except = StoredEvent.exceptOf(item.data)
      let plain: Frame.Frame | undefined
      let attributed: Frame.Frame | undefined
      for (const some of this.byChannel.match(item.channel)) {
        for (const subscriber of some) {
          if (!subscriber.isLive || item.epoch !== subscriber.epoch) fallBehind(subscriber)
          // A subscriber that matches several patterns has received this entry already.
          else if (item.seq > subscriber.seq) {
            subscriber.seq = item.seq
            if (isEnd) {
              subscriber.isAhead = true
              subscriber.noteEnd(item.channel)
              this.endIfEnded(subscriber, item)
              continue
            }
            subscriber.noteEvent(item.channel)
            if (except !== undefined && except === subscriber.owner) subscriber.isAhead = true
            else {
              const frame = subscriber.isAttributed
                ? attributed ??= this.frameOf(item, true)
                : plain ??= this.frameOf(item, false)
              const { connection } = subscriber
              if (isFirst ? connection.deliver(frame, now) : connection.offer(frame, true)) delivered++
            }
          }
        }
      }
    }
    if (isFirst) {
      const end = monotonicMillis(this.clock)
      this.gathersUntil = end + Math.max(minGathering, end - now)
      later(this.endGathering)
    }
    add(Metrics.eventsDelivered, delivered)
    return fallen
  }

  /** Ends the connection of a subscriber if all of its channels have ended, the last of them with the entry. */
  endIfEnded(subscriber: Subscriber, entry: Entry): void {
    if (subscriber.hasEnded) subscriber.connection.endWith(this.frameOf(entry, false))
  }

  /** Returns the frame of an entry, with or without its channel, which all connections share. */
  frameOf(entry: Entry, isAttributed: boolean): Frame.Frame {
    const frames = isAttributed ? this.attributedFrames : this.frames
    let frame = frames.get(entry)?.deref()
    if (frame === undefined) {
      const event = StoredEvent.frameOf(entry.data)
      frame = Frame.withId(formatEventId(entry), isAttributed ? Frame.withChannel(entry.channel, event) : event)
      frames.set(entry, new WeakRef(frame))
    }
    return frame
  }

  /**
   * Returns the heartbeat of a subscriber, with the position of the log if that has advanced: an idle client resumes
   * there.
   */
  heartbeatOf(subscriber: Subscriber): Frame.Frame {
    const { epoch, seq } = this.position ?? subscriber
    const hasAdvanced = subscriber.isAhead || seq > subscriber.seq
    if (!subscriber.hasCursor || !subscriber.isLive || epoch !== subscriber.epoch || !hasAdvanced) {
      return Frame.heartbeat
    }
    subscriber.seq = Math.max(seq, subscriber.seq)
    subscriber.isAhead = false
    return Frame.heartbeatAt(formatEventId(subscriber))
  }

  /** Does what is due for each connection, and returns the milliseconds until the next call. */
  tick(): number {
    let wait = Number.POSITIVE_INFINITY
    let queued = 0
    for (const connection of this.ending) wait = Math.min(wait, connection.tick())
    for (const { connection } of this.subscribers) {
      wait = Math.min(wait, connection.tick())
      queued += connection.queueLength
    }
    Metrics.framesQueued.unsafeUpdate(queued, [])
    return wait
  }

  private readonly endGathering = (): void => {
    this.gathersUntil = Number.NEGATIVE_INFINITY
  }

  private countShape(shape: string, change: 1 | -1): void {
    const count = (this.shapes.get(shape) ?? 0) + change
    if (count === 0) this.shapes.delete(shape)
    else this.shapes.set(shape, count)
  }
}

/** Milliseconds for which events are gathered in a long turn of the event loop, unless a write to all takes longer. */
const minGathering = 5

const maxShapes = 512
