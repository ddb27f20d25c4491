/**
 * The store of a log in memory. Each channel has a ring of its last entries. The sequence has the slots of all rings in
 * the order of their seq: a read by pattern walks it, a read by name merges the rings.
 *
 *     ring a     floor 3   [ 5 | 8 | 9 ]                 3: the last seq that a has evicted
 *     ring b     floor 0   [ 2 | 7 ]
 *
 *     sequence             [ 2 | 3x | 5 | 7 | 8 | 9 ]    3x: the slot remains, its entry does not
 *                            b   a    a   b   a   a
 *
 * A reader of `*` after 2 meets 3x, and so finds that an entry is missing.
 */

/** The part of an entry that the store knows. */
interface Stored {
  readonly seq: number
  readonly data: Uint8Array
}

/** The place of an entry in its ring and in the sequence. */
export interface Slot<A extends Stored> {
  readonly seq: number
  /** The time of the append, in milliseconds since 1970. */
  readonly at: number
  /** The time until which the entry is stored, in milliseconds of a clock that is never set. */
  readonly until: number
  readonly ring: Ring<A>
  /** The entry, or undefined after its eviction. */
  entry: A | undefined
}

/** The bounds of the entries of one channel. */
export interface Limits {
  readonly capacity: number
  readonly maxBytes: number
}

/** The last entries of one channel, in the order of their seq. One may be stored for longer than those after it. */
export class Ring<A extends Stored> {
  readonly channel: string
  /** The seq of the last entry that was evicted. All later entries are present. */
  floor: number
  isForgotten = false
  limits: Limits
  private slots: Array<Slot<A> | undefined> = []
  private first = 0
  private bytes = 0

  constructor(channel: string, floor: number, limits: Limits) {
    this.channel = channel
    this.floor = floor
    this.limits = limits
  }

  get size(): number {
    return this.slots.length - this.first
  }

  get last(): Slot<A> | undefined {
    return this.slots.at(-1)
  }

  push(entry: A, at: number, until: number): Slot<A> {
    const slot: Slot<A> = { seq: entry.seq, at, until, ring: this, entry }
    this.slots.push(slot)
    this.bytes += entry.data.length
    return slot
  }

  /** Evicts entries until no limit is exceeded and the first is not too old. Returns their number. */
  evict(now: number): number {
    let evicted = 0
    for (let slot = this.slots[this.first]; slot !== undefined; slot = this.slots[this.first]) {
      if (slot.until >= now && this.size <= this.limits.capacity && this.bytes <= this.limits.maxBytes) break
      this.floor = slot.seq
      this.bytes -= slot.entry?.data.length ?? 0
      slot.entry = undefined
      this.slots[this.first++] = undefined
      evicted++
    }
    // At least half of the slots are free, so that a move costs a constant time for each entry.
    if (this.first * 2 >= this.slots.length) {
      this.slots = this.slots.slice(this.first)
      this.first = 0
    }
    return evicted
  }

  /** Returns a function that returns the next slot after a seq at each call. */
  after(seq: number): () => Slot<A> | undefined {
    let next = firstAfter(this.slots, seq, this.first)
    return () => this.slots[next++]
  }

  /** Returns a function that returns the next slot at or before a seq at each call, the last one first. */
  upTo(seq: number): () => Slot<A> | undefined {
    let next = firstAfter(this.slots, seq, this.first)
    return () => this.slots[--next]
  }
}

/**
 * The slots of all rings in the order of their seq. The slot of the last evicted entry of each ring stays, so that a
 * reader finds that an entry is missing.
 */
export class Sequence<A extends Stored> {
  private slots: Array<Slot<A>> = []
  private stale = 0

  push(slot: Slot<A>): void {
    this.slots.push(slot)
  }

  /** Counts evicted entries, and removes their slots when they are more than half of all slots. */
  noteEvicted(count: number): void {
    this.stale += count
    if (this.stale * 2 <= this.slots.length) return
    this.slots = this.slots.filter(({ entry, ring, seq }) =>
      entry !== undefined || (ring.floor === seq && !ring.isForgotten)
    )
    this.stale = 0
  }

  /** Returns a function that returns the next slot after a seq at each call. */
  after(seq: number): () => Slot<A> | undefined {
    let next = firstAfter(this.slots, seq, 0)
    return () => this.slots[next++]
  }

  /** Returns a function that returns the next slot at or before a seq at each call, the last one first. */
  upTo(seq: number): () => Slot<A> | undefined {
    let next = firstAfter(this.slots, seq, 0)
    return () => this.slots[--next]
  }
}

/** Returns the index of the first slot after a seq, by binary search. */
const firstAfter = (
  slots: ReadonlyArray<{ readonly seq: number } | undefined>,
  seq: number,
  from: number
): number => {
  let to = slots.length
  while (from < to) {
    const middle = (from + to) >>> 1
    const slot = slots[middle]
    if (slot !== undefined && slot.seq <= seq) from = middle + 1
    else to = middle
  }
  return from
}

/**
 * Joins functions that each return the next slot of a ring at each call: returns one that returns the next slot of all,
 * in the order of their seq, or in reverse.
 */
export const merge = <A extends Stored>(
  nexts: Iterable<() => Slot<A> | undefined>,
  isReversed: boolean
): () => Slot<A> | undefined => {
  const heads = Array.from(nexts, (next) => ({ next, slot: next() })).filter(({ slot }) => slot !== undefined)
  return () => {
    let first = heads[0]
    for (const head of heads) {
      if (
        head.slot !== undefined &&
        (first?.slot === undefined || (isReversed ? head.slot.seq > first.slot.seq : head.slot.seq < first.slot.seq))
      ) first = head
    }
    const slot = first?.slot
    if (first !== undefined) first.slot = first.next()
    return slot
  }
}
