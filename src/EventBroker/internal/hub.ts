import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

import type { Cursor, Entry, Item } from "../../EventLog.js"
import type { Connection } from "../../EventStream/internal/connection.js"
import * as Frame from "../../EventStream/internal/frame.js"
import * as Metrics from "../../EventStream/internal/metrics.js"
import { isPattern, PatternMap, shapeOf } from "../../internal/channel.js"
import type { Pattern } from "../../Topic.js"

/**
 * A connection and the place in the log up to which it has been given everything.
 */
export class Subscriber {
  readonly connection: Connection
  /** By their names in the log. */
  readonly granted: ReadonlyMap<string, string | Pattern>
  readonly channels: ReadonlyArray<string>
  readonly key: string | undefined
  /** True if the client gets cursors of their own, without an event. */
  readonly hasCursor: boolean
  /** What a live connection does that can no longer rely on what it is given: it reads the log until it can. */
  goAstray: Effect.Effect<unknown> = Effect.void
  /** Live connections are given what is published; others read it from the log. */
  isLive = false
  /** Something was published that a connection which is not live may not have read yet. */
  isBehind = false
  /** The scope in which the log follows its channels. */
  readonly followed: Scope.CloseableScope
  isPresent = false
  /** Which of the hooks has run for it. */
  announcement: "none" | "joining" | "joined" | "left" = "none"
  epoch = ""
  seq = 0

  constructor(
    connection: Connection,
    granted: ReadonlyMap<string, string | Pattern>,
    key: string | undefined,
    hasCursor: boolean,
    followed: Scope.CloseableScope
  ) {
    this.connection = connection
    this.granted = granted
    this.channels = Array.from(granted.keys())
    this.key = key
    this.hasCursor = hasCursor
    this.followed = followed
  }

  moveTo({ epoch, seq }: Cursor): void {
    this.epoch = epoch
    this.seq = seq
  }
}

/**
 * Who gets what. One loop over the connections is all that an event costs: no fiber, and no encoding but one.
 */
export class Hub {
  readonly all = new Set<Subscriber>()
  /** Connections that nothing more is published to, while what is queued is still on its way. */
  private readonly ending = new Set<Connection>()
  /** Up to here everything that is published to the channels of this hub has been handed out. */
  private position: Cursor | undefined
  private readonly byChannel = new PatternMap<Set<Subscriber>>()
  private readonly byKey = new Map<string, number>()
  private readonly shapes = new Map<string, number>()

  get channels(): ReadonlyArray<string | Pattern> {
    return Array.from(new Map(Array.from(this.all).flatMap(({ granted }) => Array.from(granted))).values())
  }

  get isEmpty(): boolean {
    return this.all.size === 0 && this.ending.size === 0
  }

  /** All connections, also those that nothing more is published to. */
  connections(): ReadonlyArray<Connection> {
    return [...Array.from(this.all, ({ connection }) => connection), ...this.ending]
  }

  connectionsOf(key: string): number {
    return this.byKey.get(key) ?? 0
  }

  /** Returns true if the patterns may be added. Of each shape one at most stands for a channel: so many a publish finds. */
  hasRoomFor(channels: ReadonlyArray<string>): boolean {
    const added = new Set(channels.filter(isPattern).map(shapeOf).filter((shape) => !this.shapes.has(shape)))
    return added.size === 0 || this.shapes.size + added.size <= maxShapes
  }

  countOf(channel: string): number {
    const [first, ...others] = this.byChannel.match(channel)
    if (first === undefined) return 0
    if (others.length === 0) return first.size
    const found = new Set(first)
    for (const some of others) for (const subscriber of some) found.add(subscriber)
    return found.size
  }

  add(subscriber: Subscriber): void {
    this.all.add(subscriber)
    if (subscriber.key !== undefined) this.byKey.set(subscriber.key, this.connectionsOf(subscriber.key) + 1)
    for (const channel of subscriber.channels) {
      if (isPattern(channel)) this.countShape(shapeOf(channel), 1)
      const some = this.byChannel.get(channel)
      if (some === undefined) this.byChannel.set(channel, new Set([subscriber]))
      else some.add(subscriber)
    }
    Metrics.connections.unsafeUpdate(this.all.size, [])
  }

  /** Takes it from its channels: no more is published to it, and it is timed until its connection has ended. */
  remove(subscriber: Subscriber): void {
    if (!this.all.delete(subscriber)) return
    this.ending.add(subscriber.connection)
    if (subscriber.key !== undefined) {
      const left = this.connectionsOf(subscriber.key) - 1
      if (left === 0) this.byKey.delete(subscriber.key)
      else this.byKey.set(subscriber.key, left)
    }
    for (const channel of subscriber.channels) {
      if (isPattern(channel)) this.countShape(shapeOf(channel), -1)
      const some = this.byChannel.get(channel)
      some?.delete(subscriber)
      if (some?.size === 0) this.byChannel.delete(channel)
    }
    Metrics.connections.unsafeUpdate(this.all.size, [])
    // Nobody is left to be counted with the next tick.
    if (this.all.size === 0) Metrics.queued.unsafeUpdate(0, [])
  }

  /** The connection has ended, or its time is kept elsewhere. */
  forget(connection: Connection): void {
    this.ending.delete(connection)
  }

  private countShape(shape: string, change: 1 | -1): void {
    const count = (this.shapes.get(shape) ?? 0) + change
    if (count === 0) this.shapes.delete(shape)
    else this.shapes.set(shape, count)
  }

  /** Hands out what the tail of the log gave, and says who has to read the log instead. */
  dispatch(items: ReadonlyArray<Item>): ReadonlySet<Subscriber> {
    const astray = new Set<Subscriber>()
    const stray = (subscriber: Subscriber) => {
      if (subscriber.isLive) astray.add(subscriber)
      subscriber.isLive = false
      subscriber.isBehind = true
    }
    let delivered = 0
    for (const item of items) {
      if (item._tag === "Lost") {
        for (const channel of item.channels) this.byChannel.get(channel)?.forEach(stray)
        continue
      }
      this.position = item
      const frame = frameOf(item)
      for (const some of this.byChannel.match(item.channel)) {
        for (const subscriber of some) {
          if (!subscriber.isLive) subscriber.isBehind = true
          else if (item.epoch !== subscriber.epoch) stray(subscriber)
          // Whoever is found twice has it by then.
          else if (item.seq > subscriber.seq) {
            subscriber.seq = item.seq
            if (subscriber.connection.offer(frame)) delivered++
          }
        }
      }
    }
    Metrics.add(Metrics.delivered, delivered)
    return astray
  }

  /**
   * An idle client is told how far the log has got, so that it can resume from there however long nothing came.
   */
  heartbeatOf(subscriber: Subscriber): Frame.Frame {
    const { epoch, seq } = this.position ?? subscriber
    if (!subscriber.hasCursor || !subscriber.isLive || epoch !== subscriber.epoch || seq <= subscriber.seq) {
      return Frame.heartbeat
    }
    subscriber.seq = seq
    return Frame.fromString(`:\nid: ${epoch}.${seq}\n\n`)
  }

  /** Does what is due for each connection, and says after how many milliseconds to be called again. */
  tick(): number {
    let wait = Number.POSITIVE_INFINITY
    let queued = 0
    for (const connection of this.ending) wait = Math.min(wait, connection.tick())
    for (const { connection } of this.all) {
      wait = Math.min(wait, connection.tick())
      queued += connection.queueLength
    }
    Metrics.queued.unsafeUpdate(queued, [])
    return wait
  }
}

const maxShapes = 512

const textEncoder = new TextEncoder()
// Held weakly on either side: a log keeps its entries for long, and their frames would take twice the memory again.
const frames = new WeakMap<Entry, WeakRef<Frame.Frame>>()

const newline = 0x0a
const lineEnd = Uint8Array.of(newline)

/** Returns false for comments and `retry`, which have no blank line. With an id they need one: it takes effect there. */
const endsEvent = (data: Uint8Array): boolean => data.at(-1) === newline && data.at(-2) === newline

/** The frame of an entry, made once for all connections that it goes to at the time. */
export const frameOf = (entry: Entry): Frame.Frame => {
  let frame = frames.get(entry)?.deref()
  if (frame === undefined) {
    const id = textEncoder.encode(`id: ${entry.epoch}.${entry.seq}\n`)
    frame = new Frame.Frame(Frame.concat(endsEvent(entry.data) ? [id, entry.data] : [id, entry.data, lineEnd]))
    frames.set(entry, new WeakRef(frame))
  }
  return frame
}
