import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as MutableList from "effect/MutableList"

import * as Frame from "./frame.js"
import * as Metrics from "./metrics.js"

/**
 * What carries the frames of a connection to its client. It is called, never awaited: no fiber runs for an event.
 */
export interface Sink {
  /** There is something to take, or nothing more to come. */
  readonly ready: () => void
  /** Takes what is queued now. Only for a connection that is not blocked. */
  readonly flush: () => void
  /** Cuts the client off, if it is not gone: what it has not read is lost. */
  readonly abort: (reason: AbortReason) => void
}

export type AbortReason = "Left" | "TimedOut" | "Disconnected"

export interface Settings {
  readonly capacity: number
  readonly maxBytes: number
  readonly strategy: "sliding" | "dropping" | "suspend" | "disconnect"
  readonly heartbeat: number
  readonly writeTimeout: number
  readonly maxAge: number
  /** The reconnection time that is sent when the connection opens, in milliseconds. */
  readonly retry: number | undefined
  /** The reconnection time that is sent when the server shuts down. */
  readonly farewell: number
  /** False for clients that do not understand `retry`. */
  readonly sendsRetry: boolean
}

const none: ReadonlyArray<Frame.Frame> = []

interface Publisher {
  readonly frame: Frame.Frame
  readonly resume: (taken: boolean) => void
}

/** The milliseconds for which a publisher waits for a client that makes no progress, once: then its strategy acts. */
const patience = 250
/** The turns of the event loop that come on top: if the process itself stood still, the client had no chance to be read. */
const extraTurns = 20

/**
 * The state of one connection: frames go in at one end and out to a sink at the other. Every method is synchronous, so
 * that one loop over many connections is all that an event costs.
 */
export class Connection {
  readonly settings: Settings
  dropped = 0
  /** What an idle connection is kept open with. */
  heartbeat = (): Frame.Frame => Frame.heartbeat
  /** The time by `now` since which what was written is unread: each write that completes clears it. */
  blockedSince: number | undefined
  private state: "open" | "ending" | "ended" = "open"
  private sink: Sink | undefined
  private opening: Frame.Frame | undefined
  /** The parts of a frame larger than one write, and the number of those that were taken. */
  private parts = none
  private partsTaken = 0
  private queuedBytes = 0
  private gap = 0
  private stalledAt = performance.now()
  private turnsLeft = extraTurns
  private isStopped = false
  private takenListener: (() => void) | undefined
  private lastSent: number
  private endsAt: number
  private expiresAt = Number.POSITIVE_INFINITY
  private readonly clock: Clock.Clock
  private readonly openedAt: number
  private readonly queue = MutableList.empty<Frame.Frame>()
  private readonly publishers = new Set<Publisher>()
  private readonly stopListeners = new Set<() => void>()
  private endListener: (() => void) | undefined

  constructor(settings: Settings, clock: Clock.Clock) {
    this.settings = settings
    this.clock = clock
    this.openedAt = this.now
    this.lastSent = this.openedAt
    this.endsAt = this.openedAt + settings.maxAge
  }

  /** The time in milliseconds since any moment. The time of day may step: no interval is measured by it. */
  private get now(): number {
    return Math.round(Number(this.clock.unsafeCurrentTimeNanos()) / 1e6)
  }

  get isOpen(): boolean {
    return this.state === "open"
  }

  /** A sink carries it to a client, which has not read all of it. */
  get isCarried(): boolean {
    return this.sink !== undefined && this.state !== "ended"
  }

  /**
   * Returns the milliseconds for which a publisher may wait for room, or undefined if it may not. A burst can fill the queue
   * of a client that keeps up, and a busy machine can keep that client from reading. A client that makes no progress is
   * waited for only once, however many events are published. The network has a time of its own, which no test clock moves.
   */
  takePatience(): number | undefined {
    const left = this.stalledAt + patience - performance.now()
    if (left > 0) return left
    return this.turnsLeft-- > 0 ? 0 : undefined
  }

  get queueLength(): number {
    return MutableList.length(this.queue)
  }

  /** Nothing is queued, and nothing more will be. */
  get isDrained(): boolean {
    return this.state === "ended" ||
      (this.state === "ending" && MutableList.isEmpty(this.queue) && this.parts.length === 0)
  }

  private get keepsUp(): boolean {
    return this.sink !== undefined && this.blockedSince === undefined
  }

  /**
   * A client gets its first bytes at once, or `onopen` would wait for the first event. A second sink finds the
   * connection taken.
   */
  attach(sink: Sink): boolean {
    if (this.sink !== undefined || this.state === "ended") return false
    this.sink = sink
    this.stalledAt = performance.now()
    this.turnsLeft = extraTurns
    this.opening = this.settings.retry === undefined
      ? Frame.heartbeat
      : Frame.join([Frame.heartbeat, Frame.retry(this.settings.retry)])
    sink.ready()
    return true
  }

  /** The sink is gone, and with it the client. */
  detach(): void {
    if (this.state === "ended") return
    this.state = "ended"
    MutableList.reset(this.queue)
    this.parts = none
    this.partsTaken = 0
    this.queuedBytes = 0
    this.tellTaken()
    this.refusePublishers()
    this.stopProducers()
    this.endListener?.()
  }

  /** What is queued is still delivered. */
  end(): void {
    if (this.state !== "open") return
    this.state = "ending"
    this.refusePublishers()
    this.sink?.ready()
  }

  /** Ends with one more frame, which is not refused for want of room. */
  endWith(frame: Frame.Frame): void {
    if (this.state === "open") this.pushAfterGap(frame)
    this.end()
  }

  /** Ends at once: what is queued is lost. */
  disconnect(reason: AbortReason = "Disconnected"): void {
    if (this.state === "ended") return
    this.detach()
    this.sink?.abort(reason)
  }

  /**
   * Calls back once, when nothing that is published can reach the client any more: the client left or was cut off, the time
   * is up, the server shuts down, or the last of what was queued at `end` is delivered. At once if that has happened.
   * Returns what removes the listener.
   */
  onStop(listener: () => void): () => void {
    if (this.isStopped) listener()
    else this.stopListeners.add(listener)
    return () => {
      this.stopListeners.delete(listener)
    }
  }

  /** Calls back when the connection has ended: nothing is queued, and no sink carries it any more. */
  onEnd(listener: () => void): void {
    if (this.state === "ended") listener()
    else this.endListener = listener
  }

  /** Ends at a time of day, in milliseconds since 1970, if not before. Returns true if that is yet to come. */
  expireAt(time: number): boolean {
    this.expiresAt = Math.min(this.expiresAt, time)
    return time > this.clock.unsafeCurrentTimeMillis()
  }

  /** Ends with a reconnection time. */
  shutdown(): void {
    if (this.settings.sendsRetry) this.endWith(Frame.retry(this.settings.farewell))
    else this.end()
    this.stopProducers()
  }

  /** Whether the frame can be taken without dropping one, waiting or cutting the client off. */
  hasRoom(frame: Frame.Frame): boolean {
    if (!this.fits(frame) && this.keepsUp) this.sink?.flush()
    return this.publishers.size === 0 && this.fits(frame)
  }

  /** Whether the frame was taken: by the connection's strategy, if there is no room. */
  offer(frame: Frame.Frame): boolean {
    if (this.state !== "open") return false
    if (!this.hasRoom(frame) && !this.makeRoom(frame)) return false
    this.pushAfterGap(frame)
    if (this.keepsUp) this.sink?.ready()
    return true
  }

  /** Calls back once nothing is queued. */
  onTaken(listener: () => void): void {
    if (this.queueLength === 0) listener()
    else this.takenListener = listener
  }

  /** For the strategy "suspend": called back once the frame is taken, or never will be. */
  suspend(publisher: Publisher): () => void {
    if (this.state !== "open") publisher.resume(false)
    else this.publishers.add(publisher)
    return () => this.publishers.delete(publisher)
  }

  /**
   * Takes the frames to deliver next, at most `maxWrite` bytes of events. A larger frame is taken part by part.
   */
  take(): Array<Frame.Frame> {
    const taken: Array<Frame.Frame> = []
    if (this.opening !== undefined) {
      taken.push(this.opening)
      this.opening = undefined
    }
    let bytes = this.takePart(taken)
    if (this.parts.length === 0) {
      if (this.gap > 0 && this.settings.strategy === "sliding") taken.push(this.takeGap())
      this.admitPublishers()
      for (let head = MutableList.head(this.queue); head !== undefined; head = MutableList.head(this.queue)) {
        bytes += head.bytes.length
        if (bytes > Frame.maxWrite && taken.length > 0) break
        this.shift()
        if (bytes > Frame.maxWrite) {
          this.parts = head.parts
          this.takePart(taken)
          break
        }
        taken.push(head)
        this.admitPublishers()
      }
      if (this.gap > 0 && this.queueLength === 0 && this.parts.length === 0) taken.push(this.takeGap())
    }
    if (taken.length > 0) this.lastSent = this.now
    if (this.queueLength === 0) this.tellTaken()
    return taken
  }

  /** The client does not read as fast as it is written to. */
  block(): void {
    if (this.blockedSince !== undefined) return
    this.blockedSince = this.now
    this.stalledAt = performance.now()
  }

  unblock(): void {
    this.blockedSince = undefined
    this.turnsLeft = extraTurns
  }

  /** Does what is due, and returns the milliseconds until the next call. */
  tick(): number {
    const { heartbeat, writeTimeout } = this.settings
    const { now } = this
    const expiresIn = this.expiresAt - this.clock.unsafeCurrentTimeMillis()
    // A connection that no sink takes has a client as little as one that is not read.
    const unreadSince = this.sink === undefined ? this.openedAt : this.blockedSince
    if (unreadSince !== undefined && now - unreadSince >= writeTimeout) this.cutOff("TimedOut")
    if (this.state === "ended") return Number.POSITIVE_INFINITY
    if (now >= this.endsAt || expiresIn <= 0) {
      this.endsAt = Number.POSITIVE_INFINITY
      this.expiresAt = Number.POSITIVE_INFINITY
      this.expire()
    }
    if (this.keepsUp && this.state === "open" && now - this.lastSent >= heartbeat) {
      this.push(this.heartbeat())
      this.lastSent = now
      this.sink?.flush()
    }
    return Math.min(
      this.endsAt - now,
      expiresIn > 0 ? expiresIn : Number.POSITIVE_INFINITY,
      (this.keepsUp ? this.lastSent - now : 0) + heartbeat,
      // A connection that blocks after this tick is examined before its time is up.
      (unreadSince ?? now) + writeTimeout - now
    )
  }

  /** Takes the next part of a large frame, before which nothing else may come. Returns its size. */
  private takePart(taken: Array<Frame.Frame>): number {
    const part = this.parts[this.partsTaken]
    if (part === undefined) return 0
    taken.push(part)
    if (++this.partsTaken === this.parts.length) {
      this.parts = none
      this.partsTaken = 0
    }
    return part.bytes.length
  }

  private fits(frame: Frame.Frame): boolean {
    const length = this.queueLength
    return length < this.settings.capacity &&
      (this.queuedBytes + frame.bytes.length <= this.settings.maxBytes ||
        // Nothing is held up by an event that is larger than the queue, while nobody has stopped reading.
        (length === 0 && this.blockedSince === undefined))
  }

  private makeRoom(frame: Frame.Frame): boolean {
    const { maxBytes, strategy } = this.settings
    if (strategy === "disconnect") {
      this.cutOff("Disconnected")
      return false
    }
    if (strategy === "sliding" && frame.bytes.length <= maxBytes) {
      while (!this.fits(frame)) {
        this.shift()
        this.drop()
      }
      return true
    }
    this.drop()
    return false
  }

  private cutOff(reason: AbortReason): void {
    if (this.state !== "ended") Metrics.add(Metrics.slowDisconnects, 1)
    this.disconnect(reason)
  }

  private expire(): void {
    this.end()
    this.stopProducers()
  }

  private tellTaken(): void {
    const listener = this.takenListener
    this.takenListener = undefined
    listener?.()
  }

  private stopProducers(): void {
    this.isStopped = true
    for (const listener of this.stopListeners) listener()
    this.stopListeners.clear()
  }

  private drop(): void {
    this.dropped++
    this.gap++
    Metrics.add(Metrics.dropped, 1)
  }

  private takeGap(): Frame.Frame {
    Metrics.add(Metrics.gaps, 1)
    const frame = Frame.gap(this.gap)
    this.gap = 0
    return frame
  }

  private pushAfterGap(frame: Frame.Frame): void {
    if (this.gap > 0 && this.settings.strategy === "dropping") this.push(this.takeGap())
    this.push(frame)
  }

  private push(frame: Frame.Frame): void {
    // The frame of an event without any field: as a chunk of HTTP/1.1 it would end the body.
    if (frame.bytes.length === 0) return
    MutableList.append(this.queue, frame)
    this.queuedBytes += frame.bytes.length
  }

  private shift(): void {
    this.queuedBytes -= MutableList.shift(this.queue)?.bytes.length ?? 0
  }

  private admitPublishers(): void {
    for (const publisher of this.publishers) {
      if (!this.fits(publisher.frame)) return
      this.publishers.delete(publisher)
      this.pushAfterGap(publisher.frame)
      publisher.resume(true)
    }
  }

  private refusePublishers(): void {
    for (const publisher of this.publishers) publisher.resume(false)
    this.publishers.clear()
  }
}

/**
 * Offers a frame. With the strategy "suspend" it waits for room as long as the connection is open. With any other strategy
 * it waits as long as the connection allows a publisher to wait, before the strategy acts.
 */
export const offer = (
  connection: Connection,
  frame: Frame.Frame,
  strategy = connection.settings.strategy
): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    if (!connection.isOpen || connection.hasRoom(frame)) return Effect.succeed(connection.offer(frame))
    const timeout = strategy === "suspend" ? Number.POSITIVE_INFINITY : connection.takePatience()
    return timeout === undefined ? Effect.succeed(connection.offer(frame)) : waitForRoom(connection, frame, timeout)
  })

const waitForRoom = (connection: Connection, frame: Frame.Frame, timeout: number): Effect.Effect<boolean> =>
  Effect.async<boolean>((resume) => {
    const stop = later(timeout, () => {
      cancel()
      resume(offer(connection, frame))
    })
    // A connection that is not open resumes at once.
    const cancel = connection.suspend({
      frame,
      resume: (taken) => {
        stop()
        resume(Effect.succeed(taken))
      }
    })
    return Effect.sync(() => {
      stop()
      cancel()
    })
  })

/** Calls back after some milliseconds, or in the next turn of the event loop. Returns the function that cancels it. */
const later = (millis: number, callback: () => void): () => void => {
  if (millis === Number.POSITIVE_INFINITY) return () => {}
  if (millis > 0 || typeof setImmediate !== "function") {
    const timer = setTimeout(callback, millis)
    return () => clearTimeout(timer)
  }
  const immediate = setImmediate(callback)
  return () => clearImmediate(immediate)
}
