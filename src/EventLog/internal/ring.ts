import type { Entry } from "../../EventLog.js"

/** The place of an entry in its ring and in the sequence of all. */
export interface Slot {
  readonly seq: number
  readonly at: number
  readonly ring: Ring
  /** Undefined once it is evicted. */
  entry: Entry | undefined
}

/** The last entries of one channel, in the order of their seq, which is also the order of their age. */
export class Ring {
  readonly channel: string
  /** The seq of the last entry that was evicted: what came after it is here. */
  floor: number
  isForgotten = false
  private slots: Array<Slot | undefined> = []
  private first = 0
  private bytes = 0

  constructor(channel: string, floor: number) {
    this.channel = channel
    this.floor = floor
  }

  get size(): number {
    return this.slots.length - this.first
  }

  push(entry: Entry, at: number): Slot {
    const slot: Slot = { seq: entry.seq, at, ring: this, entry }
    this.slots.push(slot)
    this.bytes += entry.data.length
    return slot
  }

  /** Returns the number of entries that were evicted. */
  evict(limits: { readonly capacity: number; readonly maxBytes: number }, notBefore: number): number {
    let evicted = 0
    for (let slot = this.slots[this.first]; slot !== undefined; slot = this.slots[this.first]) {
      if (slot.at >= notBefore && this.size <= limits.capacity && this.bytes <= limits.maxBytes) break
      this.floor = slot.seq
      this.bytes -= slot.entry?.data.length ?? 0
      slot.entry = undefined
      this.slots[this.first++] = undefined
      evicted++
    }
    // Half of the slots being free pays for moving the other half.
    if (this.first * 2 >= this.slots.length) {
      this.slots = this.slots.slice(this.first)
      this.first = 0
    }
    return evicted
  }

  /** Gives the slots after a seq, one at a call. */
  after(seq: number): () => Slot | undefined {
    let next = firstAfter(this.slots, seq, this.first)
    return () => this.slots[next++]
  }
}

/**
 * The slots of all rings in the order of their seq. A slot whose entry was evicted stays as long as no later one of its ring
 * was: a reader that comes by sees that something is missing.
 */
export class Sequence {
  private slots: Array<Slot> = []
  private stale = 0

  push(slot: Slot): void {
    this.slots.push(slot)
  }

  /** Counts entries that were evicted. As many as half of the slots pay for moving the other half. */
  noteEvicted(count: number): void {
    this.stale += count
    if (this.stale * 2 <= this.slots.length) return
    this.slots = this.slots.filter(({ entry, ring, seq }) =>
      entry !== undefined || (ring.floor === seq && !ring.isForgotten)
    )
    this.stale = 0
  }

  /** Gives the slots after a seq, one at a call. */
  after(seq: number): () => Slot | undefined {
    let next = firstAfter(this.slots, seq, 0)
    return () => this.slots[next++]
  }
}

const firstAfter = (slots: ReadonlyArray<Slot | undefined>, seq: number, from: number): number => {
  let to = slots.length
  while (from < to) {
    const middle = (from + to) >>> 1
    const slot = slots[middle]
    if (slot !== undefined && slot.seq <= seq) from = middle + 1
    else to = middle
  }
  return from
}

/** Gives the slots of several rings after a seq in the order of their seq, one at a call. */
export const merge = (rings: Iterable<Ring>, seq: number): () => Slot | undefined => {
  const heads = Array.from(rings, (ring) => {
    const next = ring.after(seq)
    return { next, slot: next() }
  }).filter(({ slot }) => slot !== undefined)
  return () => {
    let first = heads[0]
    for (const head of heads) {
      if (head.slot !== undefined && (first?.slot === undefined || head.slot.seq < first.slot.seq)) first = head
    }
    const slot = first?.slot
    if (first !== undefined) first.slot = first.next()
    return slot
  }
}
