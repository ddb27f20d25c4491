/**
 * The delivery of announced events to the tails of this node, in the order of the log and without loss.
 *
 *                    connected               a page is requested
 *     Disconnected ────────────▶ Behind ───────────────────────────▶ Buffering ◀────────▶ Live
 *                                  ▲                                     │
 *                                  └─────────────────────────────────────┘
 *                           a further page is needed, or the buffer is full
 *
 * - `Disconnected`, `Behind`: events were missed. Announcements are ignored, since pages of the log have their events.
 * - `Buffering`: announcements are pending until a page has been read, until a tail has followed its channel, or until
 *   the data of an earlier announcement has been read.
 * - `Live`: announcements go to the tails at once. An announcement without data, or a follow, begins `Buffering` again.
 *
 * A lost connection leads from every state to `Disconnected`.
 */
import type { Cursor, Entry, TailBuffer } from "../../EventLog.js"

/** An event that was announced without its data. */
export interface Pointer extends Cursor {
  readonly _tag: "Pointer"
  readonly channel: string
}

export type Announcement = Entry | Pointer

/** The announcements that are pending, with the size of their data in bytes. */
export interface Buffering {
  readonly _tag: "Buffering"
  readonly pending: Array<Announcement>
  bytes: number
}

export type State =
  | { readonly _tag: "Disconnected" }
  | { readonly _tag: "Behind" }
  | Buffering
  | { readonly _tag: "Live" }

export class Delivery {
  readonly tails = new Set<TailBuffer>()
  state: State = { _tag: "Disconnected" }
  /** The place up to which the tails have been offered all followed events. */
  position: Cursor = { epoch: "", seq: 0 }

  /** Begins a session. The first one begins at the head of the log, later ones where the last one ended. */
  connect(head: Cursor): void {
    if (this.position.epoch === "") this.position = head
    this.state = { _tag: "Behind" }
  }

  disconnect(): void {
    this.state = { _tag: "Disconnected" }
  }

  fallBehind(): void {
    this.state = { _tag: "Behind" }
  }

  /** Buffers announcements from now on. A page that is requested next has the events of all earlier ones. */
  buffer(): void {
    this.state = { _tag: "Buffering", pending: [], bytes: 0 }
  }

  /** Buffers announcements from now on, if they were delivered at once until now. */
  pause(): void {
    if (this.state._tag === "Live") this.buffer()
  }

  /** Returns true if announcements are delivered at once from now on: the tails have been offered all pending ones. */
  resume(): boolean {
    const { epoch, seq } = this.position
    if (
      this.state._tag === "Buffering" && this.state.pending.every((item) => item.epoch === epoch && item.seq <= seq)
    ) {
      this.state = { _tag: "Live" }
    }
    return this.state._tag === "Live"
  }

  /** Delivers or buffers an announcement. Returns false if it was not delivered. */
  receive(item: Announcement): boolean {
    if (this.state._tag === "Live" && item._tag === "Entry") {
      this.offer(item)
      return true
    }
    this.pause()
    if (this.state._tag !== "Buffering") return false
    this.state.pending.push(item)
    this.state.bytes += sizeOf(item)
    if (this.state.bytes > maxBytes || this.state.pending.length > maxPending) this.fallBehind()
    return false
  }

  /** Removes the first pending announcement. */
  shift(state: Buffering): void {
    const item = state.pending.shift()
    if (item !== undefined) state.bytes -= sizeOf(item)
  }

  /** Returns false if the tails have been offered this place already: several followed patterns may match an event. */
  private advanceTo({ epoch, seq }: Cursor): boolean {
    if (epoch !== this.position.epoch) this.loseUntil({ epoch, seq: seq - 1 })
    if (seq <= this.position.seq) return false
    this.position = { epoch, seq }
    return true
  }

  /** Moves to the end of a page that the tails have been offered. */
  moveTo(cursor: Cursor): void {
    this.position = cursor
  }

  offer(entry: Entry): void {
    if (!this.advanceTo(entry)) return
    for (const tail of this.tails) tail.offer(entry)
  }

  /** Loses an event whose data is gone. Other channels lose nothing. */
  loseOne(pointer: Cursor & { readonly channel: string }): void {
    if (!this.advanceTo(pointer)) return
    for (const tail of this.tails) tail.loseOf(pointer.channel, pointer)
  }

  /** Notes the head of the log. The connection has delivered all announcements before it. */
  confirm(head: Cursor): void {
    if (this.state._tag !== "Live") return
    if (head.epoch !== this.position.epoch) this.loseUntil(head)
    else if (head.seq > this.position.seq) this.position = head
  }

  loseUntil(cursor: Cursor): void {
    this.position = cursor
    for (const tail of this.tails) tail.lose(cursor)
  }
}

const sizeOf = (item: Announcement): number => item._tag === "Entry" ? item.data.length : 0

const maxPending = 16_384
const maxBytes = 16 * 1024 * 1024
