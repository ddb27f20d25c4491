import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as MutableList from "effect/MutableList"
import * as Option from "effect/Option"
import * as Pipeable from "effect/Pipeable"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"

import { monotonicMillis } from "../../internal/clock.js"
import { add } from "../../internal/counter.js"
import * as Metrics from "../../Metrics.js"
import type { ServerSentEvent } from "../../ServerSentEvent.js"
import * as Frame from "./frame.js"

/**
 * The carrier of the frames of a connection to its client. Its methods are called and never awaited: no fiber runs for
 * an event.
 */
export interface Sink {
  /**
   * Is called when frames can be taken, or no more frames will come. With `atTurnEnd`, more frames may follow in this
   * turn of the event loop.
   */
  readonly ready: (atTurnEnd?: boolean) => void
  /** Takes the queued frames now. Is called only while the connection is not blocked. */
  readonly flush: () => void
  /**
   * Writes a frame now. Is called only while the connection is not blocked and nothing is queued. A sink that has it
   * joins the frames that it takes to one.
   */
  readonly write?: (frame: Frame.Frame) => void
  /** Cuts off the client, if it is still connected. The client loses all that it has not read. */
  readonly abort: (reason: AbortReason) => void
}

export type AbortReason = "Left" | "TimedOut" | "Disconnected"

/** The options of a stream, as `EventStream.Options` documents them. */
interface Options {
  readonly heartbeat?: Duration.DurationInput | "off" | undefined
  readonly capacity?: number | undefined
  readonly maxBytes?: number | undefined
  readonly strategy?: Settings["strategy"] | undefined
  readonly retry?: Duration.DurationInput | "off" | undefined
  readonly jitter?: number | undefined
  readonly maxAge?: Duration.DurationInput | undefined
  readonly writeTimeout?: Duration.DurationInput | undefined
}

/** The options of one connection, with defaults and with its own random part. Times are in milliseconds. */
export interface Settings {
  readonly capacity: number
  readonly maxBytes: number
  readonly strategy: "sliding" | "dropping" | "suspend" | "disconnect"
  readonly heartbeat: number
  readonly writeTimeout: number
  readonly maxAge: number
  /** Reconnection time that is sent when the connection opens. */
  readonly retry: number | undefined
  /** Reconnection time that is sent when the server shuts down. */
  readonly shutdownRetry: number
  /** False for clients that do not understand `retry`. */
  readonly sendsRetry: boolean
}

/** The options with defaults, from which each connection makes its settings. */
export type Defaults = ReturnType<typeof parse>

/** Adds the defaults. Times are in milliseconds. Throws `IllegalArgumentException` if an option is out of range. */
export const parse = (options: Options) => {
  const { capacity = 1000, heartbeat = "15 seconds", jitter = 0.5, maxBytes = 1024 * 1024, retry } = options
  const { strategy = "sliding" } = options
  const maxAge = toMillis("maxAge", options.maxAge ?? Duration.infinity)
  const writeTimeout = toMillis("writeTimeout", options.writeTimeout ?? "30 seconds")
  const heartbeatMillis = heartbeat === "off" ? Number.POSITIVE_INFINITY : toMillis("heartbeat", heartbeat)
  const retryMillis = retry === undefined || retry === "off" ? undefined : toMillis("retry", retry)
  check(heartbeatMillis > 0, "heartbeat must be longer than zero; \"off\" turns it off")
  check(Number.isSafeInteger(capacity) && capacity >= 1, "capacity must be a whole number, one or more")
  check(maxBytes >= 1, "maxBytes must be one or more")
  check(jitter >= 0 && jitter <= 1, "jitter must be between 0 and 1")
  check(maxAge > 0, "maxAge must be longer than zero")
  check(writeTimeout > 0, "writeTimeout must be longer than zero")
  check(retryMillis === undefined || Number.isSafeInteger(Math.round(retryMillis * 2)), "retry must be finite")
  check(strategies.has(strategy), `strategy must be one of ${[...strategies].join(", ")}`)
  return {
    capacity,
    maxBytes,
    jitter,
    strategy,
    heartbeat: heartbeatMillis,
    maxAge,
    writeTimeout,
    retry: retryMillis,
    sendsRetry: retry !== "off"
  }
}

const strategies: ReadonlySet<string> = new Set<Settings["strategy"]>(["sliding", "dropping", "suspend", "disconnect"])

const toMillis = (name: string, input: Duration.DurationInput): number =>
  Duration.toMillis(Option.getOrThrowWith(Duration.decodeUnknown(input), () => illegal(`${name} must be a duration`)))

const check = (holds: boolean, rule: string): void => {
  if (!holds) throw illegal(rule)
}

const illegal = (rule: string) => new Cause.IllegalArgumentException(`EventStream: ${rule}`)

/** Makes the settings of one connection. */
export const makeSettings = ({ jitter, maxAge, retry, ...settings }: Defaults): Effect.Effect<Settings> =>
  Effect.map(Random.next, (spread) => {
    const spreadRetry = (retry: number) => Math.round(retry * (1 + jitter * (2 * spread - 1)))
    const opening = retry === undefined ? undefined : spreadRetry(retry)
    return {
      ...settings,
      maxAge: maxAge === Number.POSITIVE_INFINITY ? maxAge : Math.round(maxAge * (1 - jitter * spread)),
      retry: opening,
      shutdownRetry: opening ?? spreadRetry(3_000)
    }
  })

interface Publisher {
  readonly frame: Frame.Frame
  readonly resume: (taken: boolean) => void
}

/**
 * The state of a connection:
 *
 *     Open ---- end, maxAge, shutdown ---> Closing ---- all delivered ---> Done
 *       +------ client left, cut off or timed out -------------------------->
 */
type State = Open | Closing | Done

/** Takes frames of publishers. */
interface Open {
  readonly _tag: "Open"
  readonly delivery: Delivery
  waiting: Waiting | undefined
}

interface Waiting {
  /** Publishers that wait for room, first come first served. */
  readonly publishers: Set<Publisher>
  readonly closeListeners: Set<() => void>
}

/** Takes no more frames. The queued ones are still delivered. */
interface Closing {
  readonly _tag: "Closing"
  readonly delivery: Delivery
}

/** Delivers nothing any more: no sink carries the connection. */
interface Done {
  readonly _tag: "Done"
}

/** The frames that are on their way to the client, until the connection is done. */
interface Delivery {
  sink: Sink | undefined
  /** Time by `now` since which written bytes are unread. Each write that completes clears it. */
  blockedSince: number | undefined
  /** Frame that is sent before all others. */
  opening: Frame.Frame | undefined
  readonly queue: MutableList.MutableList<Frame.Frame>
  /** Number of frames in the queue and in the batch. */
  queued: number
  /** Size of the queue and of the batch. */
  queuedBytes: number
  /** Texts of the frames after the queue, which are encoded together. */
  batch: string
  batched: number
  batchedBytes: number
  /** Parts of a frame that is larger than one write, and the number of those that were taken. */
  parts: ReadonlyArray<Frame.Frame>
  partsTaken: number
  /** Undefined once the producers were stopped. */
  stopListeners: ReadonlyArray<() => void> | undefined
  drainListener: (() => void) | undefined
  endListener: (() => void) | undefined
}

const done: Done = { _tag: "Done" }
const noParts: ReadonlyArray<Frame.Frame> = []
const noListeners: ReadonlyArray<() => void> = []
const idle = (): Frame.Frame => Frame.heartbeat

/**
 * Time in milliseconds for which publishers wait, once, for a client that makes no progress. Then the strategy acts.
 */
const maxStall = 250
/** Turns of the event loop that are added to it: if the process itself stood still, no client could be read. */
const extraTurns = 20

/**
 * One connection: publishers add frames at one end, and a sink takes them at the other. Every method is synchronous, so
 * that one loop over many connections is the whole cost of an event.
 */
export class Connection {
  readonly settings: Settings
  /** Number of events that the strategy has dropped. */
  dropped = 0
  private state: State
  /** Number of dropped events that the client does not know of yet. */
  private gap = 0
  private stalledAt = performance.now()
  private turnsLeft = extraTurns
  private lastSent: number
  private endsAt: number
  private expiresAt = Number.POSITIVE_INFINITY
  private readonly clock: Clock.Clock
  private readonly openedAt: number
  private readonly heartbeat: () => Frame.Frame

  /** @param heartbeat - makes the frame that keeps an idle connection open */
  constructor(settings: Settings, clock: Clock.Clock, heartbeat = idle) {
    this.settings = settings
    this.clock = clock
    this.heartbeat = heartbeat
    this.openedAt = this.now
    this.lastSent = this.openedAt
    this.endsAt = this.openedAt + settings.maxAge
    this.state = {
      _tag: "Open",
      delivery: {
        sink: undefined,
        blockedSince: undefined,
        opening: undefined,
        queue: MutableList.empty(),
        queued: 0,
        queuedBytes: 0,
        batch: "",
        batched: 0,
        batchedBytes: 0,
        parts: noParts,
        partsTaken: 0,
        stopListeners: noListeners,
        drainListener: undefined,
        endListener: undefined
      },
      waiting: undefined
    }
  }

  /** The time in milliseconds since any moment. The time of day may step: no interval is measured by it. */
  private get now(): number {
    return monotonicMillis(this.clock)
  }

  get isOpen(): boolean {
    return this.state._tag === "Open"
  }

  /** True while a sink carries the connection to a client that has not read all of it. */
  get isCarried(): boolean {
    return this.state._tag !== "Done" && this.state.delivery.sink !== undefined
  }

  /** True while the client does not read as fast as it is written to. */
  get isBlocked(): boolean {
    return this.state._tag !== "Done" && this.state.delivery.blockedSince !== undefined
  }

  /** True once nothing is queued and nothing more will be. */
  get isDrained(): boolean {
    const { state } = this
    return state._tag === "Done" ||
      (state._tag === "Closing" && state.delivery.queued === 0 && state.delivery.parts.length === 0)
  }

  get queueLength(): number {
    return this.state._tag === "Done" ? 0 : this.state.delivery.queued
  }

  /** Number of queued frames and of publishers that wait for room. */
  get size(): number {
    return this.queueLength + (this.state._tag === "Open" ? this.state.waiting?.publishers.size ?? 0 : 0)
  }

  /**
   * Returns the milliseconds for which a publisher may wait for room, or undefined if it may not. A burst can fill the
   * queue of a client that keeps up, and a busy machine can prevent that client from reading. A client that makes no
   * progress is waited for only once, however many events are published. The network has its own time, which no test
   * clock moves.
   */
  takeTimeout(): number | undefined {
    const left = this.stalledAt + maxStall - performance.now()
    if (left > 0) return left
    return this.turnsLeft-- > 0 ? 0 : undefined
  }

  /**
   * Attaches the sink. The client receives its first bytes at once: otherwise `onopen` would wait for the first event.
   * Returns false if the connection has a sink already, or is done.
   */
  attach(sink: Sink): boolean {
    if (this.state._tag === "Done" || this.state.delivery.sink !== undefined) return false
    const { delivery } = this.state
    delivery.sink = sink
    delivery.opening = this.settings.retry === undefined
      ? Frame.heartbeat
      : Frame.join([Frame.heartbeat, Frame.retry(this.settings.retry)])
    this.stalledAt = performance.now()
    this.turnsLeft = extraTurns
    sink.ready()
    return true
  }

  /** Makes the connection done: the sink has lost its client. */
  detach(): void {
    const { state } = this
    if (state._tag === "Done") return
    this.state = done
    const { delivery } = state
    // A producer that is slow to stop refers to it.
    clear(delivery)
    if (state._tag === "Open") notifyClosed(state)
    stopProducers(delivery)
    delivery.endListener?.()
  }

  /** Ends the connection. The queued frames are still delivered. */
  end(): void {
    const { state } = this
    if (state._tag !== "Open") return
    this.state = { _tag: "Closing", delivery: state.delivery }
    notifyClosed(state)
    state.delivery.sink?.ready()
  }

  /** Ends the connection without the queued frames. */
  discard(): void {
    if (this.state._tag === "Open") clear(this.state.delivery)
    this.end()
  }

  /** Ends the connection with one more frame, for which there is always room. */
  endWith(frame: Frame.Frame): void {
    if (this.state._tag === "Open") this.pushAfterGap(this.state.delivery, frame)
    this.end()
  }

  /** Ends the connection at once. The queued frames are lost. */
  disconnect(reason: AbortReason = "Disconnected"): void {
    const { state } = this
    if (state._tag === "Done") return
    this.detach()
    state.delivery.sink?.abort(reason)
  }

  /**
   * Calls back once, when no published event can reach the client any more: the client left or was cut off, the time is
   * up, the server shuts down, or the last of the frames that were queued at `end` is delivered. Calls back at once if
   * that has happened. Returns the function that removes the listener.
   */
  onStop(listener: () => void): () => void {
    const delivery = this.state._tag === "Done" ? undefined : this.state.delivery
    if (delivery?.stopListeners === undefined) {
      listener()
      return () => {}
    }
    delivery.stopListeners = [...delivery.stopListeners, listener]
    return () => {
      delivery.stopListeners = delivery.stopListeners?.filter((other) => other !== listener)
    }
  }

  /** Calls back once, when the connection takes no more frames. Returns the function that removes the listener. */
  onClose(listener: () => void): () => void {
    const { state } = this
    if (state._tag !== "Open") {
      listener()
      return () => {}
    }
    const { closeListeners } = state.waiting ??= noneWaiting()
    closeListeners.add(listener)
    return () => closeListeners.delete(listener)
  }

  /** Calls back when the connection is done. Calls back at once if it is. */
  onEnd(listener: () => void): void {
    if (this.state._tag === "Done") listener()
    else this.state.delivery.endListener = listener
  }

  /** Calls back once, when nothing is queued. Calls back at once if nothing is. */
  onDrained(listener: () => void): void {
    if (this.state._tag === "Done" || this.queueLength === 0) listener()
    else this.state.delivery.drainListener = listener
  }

  /**
   * Ends the connection at a time of day, in milliseconds since 1970, if it has not ended before. Returns false if that
   * time is past.
   */
  expireAt(time: number): boolean {
    this.expiresAt = Math.min(this.expiresAt, time)
    return time > this.clock.unsafeCurrentTimeMillis()
  }

  /** Ends the connection with a reconnection time, and stops the producers. */
  shutdown(): void {
    if (this.settings.sendsRetry) this.endWith(Frame.retry(this.settings.shutdownRetry))
    else this.end()
    this.stop()
  }

  /**
   * Queues the frame if it can be taken without dropping one, waiting, or cutting off the client. Returns false
   * otherwise, or if the connection has ended.
   */
  offerIfRoom(frame: Frame.Frame): boolean {
    const { state } = this
    return state._tag === "Open" &&
      (this.addToBatch(state, frame) || (this.flushForRoom(state, frame) && this.accept(frame)))
  }

  /**
   * Delivers the frame as `offer` does, but without the queue and at once if nothing precedes it.
   *
   * @param now - the time of this connection's clock
   */
  deliver(frame: Frame.Frame, now: number): boolean {
    const { state } = this
    if (state._tag !== "Open") return false
    const { delivery } = state
    const { sink } = delivery
    if (
      sink?.write === undefined || delivery.blockedSince !== undefined || delivery.opening !== undefined ||
      delivery.queued > 0 || delivery.parts.length > 0 || this.gap > 0 || frame.size > Frame.maxWrite
    ) return this.offer(frame)
    this.lastSent = now
    sink.write(frame)
    return true
  }

  /**
   * Queues the frame. Returns false if the connection has ended, or has no room and its strategy drops the frame. With
   * `atTurnEnd`, the frames of a turn of the event loop are sent together.
   */
  offer(frame: Frame.Frame, atTurnEnd = false): boolean {
    const { state } = this
    return state._tag === "Open" &&
      (this.flushForRoom(state, frame) || this.makeRoom(state.delivery, frame)) &&
      this.accept(frame, atTurnEnd)
  }

  /**
   * Adds a publisher that waits for room. It is resumed once its frame is taken, or never can be. Returns the function
   * that removes the publisher.
   */
  suspend(publisher: Publisher): () => void {
    const { state } = this
    if (state._tag !== "Open") {
      publisher.resume(false)
      return () => {}
    }
    const { publishers } = state.waiting ??= noneWaiting()
    publishers.add(publisher)
    return () => publishers.delete(publisher)
  }

  /** Takes the frames to deliver next, at most `maxWrite` bytes of events. A larger frame is taken part by part. */
  take(): Array<Frame.Frame> {
    const taken: Array<Frame.Frame> = []
    if (this.state._tag === "Done") return taken
    const { delivery } = this.state
    const { queue } = delivery
    if (delivery.opening !== undefined) {
      taken.push(delivery.opening)
      delivery.opening = undefined
    }
    endBatch(delivery)
    let bytes = takePart(delivery, taken)
    if (delivery.parts.length === 0) {
      if (this.gap > 0 && this.settings.strategy === "sliding") taken.push(this.takeGap())
      this.admitPublishers()
      for (let head = MutableList.head(queue); head !== undefined; head = MutableList.head(queue)) {
        bytes += head.size
        if (bytes > Frame.maxWrite && taken.length > 0) break
        shift(delivery)
        if (bytes > Frame.maxWrite) {
          delivery.parts = head.toParts()
          takePart(delivery, taken)
          break
        }
        taken.push(head)
        this.admitPublishers()
      }
      if (this.gap > 0 && delivery.queued === 0 && delivery.parts.length === 0) taken.push(this.takeGap())
    }
    if (taken.length > 0) this.lastSent = this.now
    if (delivery.queued === 0) notifyDrained(delivery)
    return taken
  }

  /** Is called by the sink when the client does not read as fast as it is written to. */
  block(): void {
    if (this.state._tag === "Done" || this.state.delivery.blockedSince !== undefined) return
    this.state.delivery.blockedSince = this.now
    this.stalledAt = performance.now()
  }

  /** Is called by the sink when the client has read. */
  unblock(): void {
    if (this.state._tag !== "Done") this.state.delivery.blockedSince = undefined
    this.turnsLeft = extraTurns
  }

  /** Does what is due, and returns the milliseconds until the next call. */
  tick(): number {
    if (this.state._tag === "Done") return Number.POSITIVE_INFINITY
    const { delivery } = this.state
    const { heartbeat, writeTimeout } = this.settings
    const { now } = this
    const expiresIn = this.expiresAt - this.clock.unsafeCurrentTimeMillis()
    // A connection without a sink has no more of a client than one that is not read.
    const unreadSince = delivery.sink === undefined ? this.openedAt : delivery.blockedSince
    if (unreadSince !== undefined && now - unreadSince >= writeTimeout) {
      this.cutOff("TimedOut")
      return Number.POSITIVE_INFINITY
    }
    if (now >= this.endsAt || expiresIn <= 0) {
      this.endsAt = Number.POSITIVE_INFINITY
      this.expiresAt = Number.POSITIVE_INFINITY
      this.end()
      this.stop()
    }
    if (this.isOpen && keepsUp(delivery) && now - this.lastSent >= heartbeat) {
      push(delivery, this.heartbeat())
      this.lastSent = now
      delivery.sink?.flush()
    }
    return Math.min(
      this.endsAt - now,
      expiresIn > 0 ? expiresIn : Number.POSITIVE_INFINITY,
      (keepsUp(delivery) ? this.lastSent - now : 0) + heartbeat,
      // A connection that blocks after this tick is examined before its time is up.
      (unreadSince ?? now) + writeTimeout - now
    )
  }

  /**
   * Adds the text of the frame to the batch, if there is room. Returns false if there is none, if the strategy may drop
   * single frames, or if the sink does not join them.
   */
  private addToBatch({ delivery, waiting }: Open, { size, text }: Frame.Frame): boolean {
    const { capacity, maxBytes, strategy } = this.settings
    if (
      strategy !== "suspend" || delivery.sink?.write === undefined || text === undefined || text === "" ||
      text.length > maxBatch || delivery.queued >= capacity || (waiting?.publishers.size ?? 0) > 0
    ) return false
    if (delivery.queuedBytes + size > maxBytes) return false
    if (delivery.batch.length + text.length > maxBatch) endBatch(delivery)
    delivery.batch += text
    delivery.batched++
    delivery.queued++
    delivery.queuedBytes += size
    delivery.batchedBytes += size
    if (delivery.blockedSince === undefined) delivery.sink.ready()
    return true
  }

  /** Returns true if there is room. Flushes the queue of a client that keeps up, if the frame does not fit. */
  private flushForRoom({ delivery, waiting }: Open, frame: Frame.Frame): boolean {
    if (!this.fits(delivery, frame) && keepsUp(delivery)) delivery.sink?.flush()
    return (waiting?.publishers.size ?? 0) === 0 && this.fits(delivery, frame)
  }

  /** Queues a frame for which there is room. Returns false if the flush or the strategy has ended the connection. */
  private accept(frame: Frame.Frame, atTurnEnd = false): boolean {
    if (this.state._tag !== "Open") return false
    const { delivery } = this.state
    this.pushAfterGap(delivery, frame)
    if (keepsUp(delivery)) delivery.sink?.ready(atTurnEnd)
    return true
  }

  private fits(delivery: Delivery, frame: Frame.Frame): boolean {
    return delivery.queued < this.settings.capacity &&
      (delivery.queuedBytes + frame.size <= this.settings.maxBytes ||
        // An event that is larger than the queue may pass alone, while the client reads.
        (delivery.queued === 0 && delivery.blockedSince === undefined))
  }

  private makeRoom(delivery: Delivery, frame: Frame.Frame): boolean {
    const { maxBytes, strategy } = this.settings
    if (strategy === "disconnect") {
      this.cutOff("Disconnected")
      return false
    }
    if (strategy === "sliding" && frame.size <= maxBytes) {
      while (!this.fits(delivery, frame)) {
        shift(delivery)
        this.drop()
      }
      return true
    }
    this.drop()
    return false
  }

  private cutOff(reason: AbortReason): void {
    add(Metrics.slowDisconnects, 1)
    this.disconnect(reason)
  }

  private stop(): void {
    if (this.state._tag !== "Done") stopProducers(this.state.delivery)
  }

  private drop(): void {
    this.dropped++
    this.gap++
    add(Metrics.eventsDropped, 1)
  }

  private takeGap(): Frame.Frame {
    add(Metrics.gaps, 1)
    const frame = Frame.gap(this.gap)
    this.gap = 0
    return frame
  }

  private pushAfterGap(delivery: Delivery, frame: Frame.Frame): void {
    // Both are one frame: a gap takes no place in the queue.
    const reportsGap = this.gap > 0 && this.settings.strategy === "dropping"
    push(delivery, reportsGap ? Frame.join([this.takeGap(), frame]) : frame)
  }

  private admitPublishers(): void {
    const { state } = this
    if (state._tag !== "Open" || state.waiting === undefined) return
    const { publishers } = state.waiting
    for (const publisher of publishers) {
      if (!this.fits(state.delivery, publisher.frame)) return
      publishers.delete(publisher)
      this.pushAfterGap(state.delivery, publisher.frame)
      publisher.resume(true)
    }
  }
}

const keepsUp = ({ blockedSince, sink }: Delivery): boolean => sink !== undefined && blockedSince === undefined

const push = (delivery: Delivery, frame: Frame.Frame): void => {
  // The frame of an event without any field is empty: as a chunk of HTTP/1.1 it would end the body.
  if (frame.size === 0) return
  endBatch(delivery)
  MutableList.append(delivery.queue, frame)
  delivery.queued += frame.places
  delivery.queuedBytes += frame.size
}

const shift = (delivery: Delivery): void => {
  const frame = MutableList.shift(delivery.queue)
  delivery.queued -= frame?.places ?? 0
  delivery.queuedBytes -= frame?.size ?? 0
}

/** Largest length of a batch, which is a small part of a write. */
const maxBatch = Frame.maxWrite / 8

/** Appends the batch to the queue, as one frame. */
const endBatch = (delivery: Delivery): void => {
  const { batch, batched, batchedBytes } = delivery
  if (batched === 0) return
  delivery.batch = ""
  delivery.batched = 0
  delivery.batchedBytes = 0
  MutableList.append(delivery.queue, new Frame.Frame(batch, batchedBytes, batched))
}

/** Takes the next part of a large frame, before which no other frame may be sent. Returns its size in bytes. */
const takePart = (delivery: Delivery, taken: Array<Frame.Frame>): number => {
  const part = delivery.parts[delivery.partsTaken]
  if (part === undefined) return 0
  taken.push(part)
  if (++delivery.partsTaken === delivery.parts.length) {
    delivery.parts = noParts
    delivery.partsTaken = 0
  }
  return part.size
}

const notifyDrained = (delivery: Delivery): void => {
  const listener = delivery.drainListener
  delivery.drainListener = undefined
  listener?.()
}

const stopProducers = (delivery: Delivery): void => {
  const listeners = delivery.stopListeners ?? noListeners
  delivery.stopListeners = undefined
  for (const listener of listeners) listener()
}

const clear = (delivery: Delivery): void => {
  MutableList.reset(delivery.queue)
  delivery.queued = 0
  delivery.batch = ""
  delivery.batched = 0
  delivery.batchedBytes = 0
  delivery.queuedBytes = 0
  delivery.parts = noParts
  delivery.partsTaken = 0
  notifyDrained(delivery)
}

const noneWaiting = (): Waiting => ({ publishers: new Set(), closeListeners: new Set() })

const notifyClosed = (state: Open): void => {
  const { waiting } = state
  state.waiting = undefined
  for (const publisher of waiting?.publishers ?? []) publisher.resume(false)
  for (const listener of waiting?.closeListeners ?? []) listener()
}

export const TypeId = "~effect-realtime/EventStream"

const enqueueVariance = { _In: (_: unknown) => {} }

/**
 * The `EventStream` of a connection: the end of Effect's `Queue` to which events are offered. It has the laws of
 * `Queue.bounded`, `Queue.sliding` and `Queue.dropping`, as the strategy says: test/EventStream/queueLaws.test.ts.
 */
class Handle extends Pipeable.Class() implements Queue.Enqueue<ServerSentEvent> {
  readonly connection: Connection

  constructor(connection: Connection) {
    super()
    this.connection = connection
  }

  get [TypeId](): typeof TypeId {
    return TypeId
  }

  get [Queue.EnqueueTypeId](): typeof enqueueVariance {
    return enqueueVariance
  }

  capacity(): number {
    return this.connection.settings.capacity
  }

  isActive(): boolean {
    return this.connection.isOpen
  }

  get isShutdown(): Effect.Effect<boolean> {
    return Effect.sync(() => !this.connection.isOpen)
  }

  get shutdown(): Effect.Effect<void> {
    return Effect.sync(() => this.connection.discard())
  }

  get awaitShutdown(): Effect.Effect<void> {
    return Effect.async((resume) => {
      const cancel = this.connection.onClose(() => resume(Effect.void))
      return Effect.sync(cancel)
    })
  }

  unsafeSize(): Option.Option<number> {
    return this.connection.isOpen ? Option.some(this.connection.size) : Option.none()
  }

  get size(): Effect.Effect<number> {
    return Effect.suspend(() => Effect.catchAll(this.unsafeSize(), () => Effect.interrupt))
  }

  get isEmpty(): Effect.Effect<boolean> {
    return Effect.map(this.size, (size) => size === 0)
  }

  get isFull(): Effect.Effect<boolean> {
    return Effect.map(this.size, (size) => size >= this.capacity())
  }

  unsafeOffer(event: ServerSentEvent): boolean {
    return this.connection.offerIfRoom(toFrame(event))
  }

  offer(event: ServerSentEvent): Effect.Effect<boolean> {
    return this.offerAll([event])
  }

  offerAll(events: Iterable<ServerSentEvent>): Effect.Effect<boolean> {
    const { connection } = this
    return Effect.suspend(() => {
      if (!connection.isOpen) return Effect.interrupt
      const frames = Array.from(events, toFrame)
      if (connection.settings.strategy !== "suspend") {
        return Effect.succeed(frames.filter((frame) => !connection.offer(frame)).length === 0)
      }
      const surplus = frames.findIndex((frame) => !connection.offerIfRoom(frame))
      return surplus === -1 ? Effect.succeed(true) : offerSurplus(connection, frames.slice(surplus))
    })
  }
}

/** An event that `ServerSentEvent.make` has made is encoded. */
const toFrame = (event: ServerSentEvent): Frame.Frame => Either.getOrThrow(Frame.fromEvent(event))

/** Waits until the queue has taken all frames. Interrupts the fiber if the connection ends before. */
const offerSurplus = (connection: Connection, frames: ReadonlyArray<Frame.Frame>): Effect.Effect<boolean> =>
  Effect.async((resume) => {
    const cancels = frames.map((frame, i) =>
      connection.suspend({
        frame,
        resume: (taken) => {
          if (!taken) resume(Effect.interrupt)
          else if (i === frames.length - 1) resume(Effect.succeed(true))
        }
      })
    )
    return Effect.sync(() => {
      for (const cancel of cancels) cancel()
    })
  })

export const toEventStream = (connection: Connection): Handle => new Handle(connection)

/** Returns the connection of an `EventStream`. Throws for an object that this instance of the library has not made. */
export const fromEventStream = (stream: object): Connection => {
  if (stream instanceof Handle) return stream.connection
  throw new Cause.IllegalArgumentException("EventStream: must be made by EventStream.make or EventBroker.subscribe")
}

/**
 * Opens a connection, which ends with the request that it is opened in. Node's server interrupts the fiber of a request
 * whose client leaves. A web handler has no such fiber once it has responded, and a body that is neither read nor
 * cancelled shows nothing.
 */
export const open = (
  settings: Settings,
  clock: Clock.Clock,
  heartbeat?: () => Frame.Frame
): Effect.Effect<Connection> =>
  Effect.map(Effect.serviceOption(HttpServerRequest), (request) => {
    const connection = new Connection(settings, clock, heartbeat)
    const signal = Option.isSome(request) && request.value.source instanceof Request
      ? request.value.source.signal
      : undefined
    if (signal !== undefined) endWithSignal(connection, signal)
    return connection
  })

const endWithSignal = (connection: Connection, signal: AbortSignal): void => {
  const leave = () => connection.disconnect("Left")
  if (signal.aborted) leave()
  signal.addEventListener("abort", leave)
  connection.onStop(() => signal.removeEventListener("abort", leave))
}

/**
 * Offers a frame. With the strategy "suspend" it waits for room as long as the connection is open. With any other
 * strategy it waits as long as the connection allows a publisher to wait, before the strategy acts.
 */
export const offer = (
  connection: Connection,
  frame: Frame.Frame,
  strategy = connection.settings.strategy
): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    if (connection.offerIfRoom(frame)) return Effect.succeed(true)
    if (!connection.isOpen) return Effect.succeed(false)
    const timeout = strategy === "suspend" ? Number.POSITIVE_INFINITY : connection.takeTimeout()
    return timeout === undefined ? Effect.succeed(connection.offer(frame)) : waitForRoom(connection, frame, timeout)
  })

const waitForRoom = (connection: Connection, frame: Frame.Frame, timeout: number): Effect.Effect<boolean> =>
  Effect.async<boolean>((resume) => {
    const stop = callAfter(timeout, () => {
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
const callAfter = (millis: number, callback: () => void): () => void => {
  if (millis === Number.POSITIVE_INFINITY) return () => {}
  if (millis > 0 || typeof setImmediate !== "function") {
    const timer = setTimeout(callback, millis)
    return () => clearTimeout(timer)
  }
  const immediate = setImmediate(callback)
  return () => clearImmediate(immediate)
}
