/**
 * The store of a log in memory. Each channel has a ring of the seqs of its last entries. The sequence has the entries
 * of all rings in the order of their seq: a read by pattern walks it, a read by name merges the rings.
 *
 *     ring a     floor 3   [ 5 | 8 | 9 ]                 3: the last seq that a has evicted
 *     ring b     floor 0   [ 2 | 7 ]
 *
 *     sequence             [ 2 | 3x | 5 | 7 | 8 | 9 ]    3x: the place remains, its entry does not
 *                            b   a    a   b   a   a
 *
 * A reader of `*` after 2 meets 3x, and so finds that an entry is missing.
 */

/** The part of an entry that the store knows. */
interface Stored {
  readonly seq: number
  readonly data: Uint8Array
}

/** The bounds of the entries of one channel. */
export interface Limits {
  readonly capacity: number
  readonly maxBytes: number
}

/** The last entries of one channel, in the order of their seq. One may be stored for longer than those after it. */
export class Ring {
  readonly channel: string
  /** The seq of the last entry that was evicted. All later entries are present. */
  floor: number
  isForgotten = false
  limits: Limits
  private seqs: Array<number> = []
  private start = 0
  private bytes = 0

  constructor(channel: string, floor: number, limits: Limits) {
    this.channel = channel
    this.floor = floor
    this.limits = limits
  }

  get size(): number {
    return this.seqs.length - this.start
  }

  get first(): number | undefined {
    return this.seqs[this.start]
  }

  get last(): number | undefined {
    return this.seqs.at(-1)
  }

  get isOverLimits(): boolean {
    return this.size > this.limits.capacity || this.bytes > this.limits.maxBytes
  }

  push(seq: number, bytes: number): void {
    // An array that grows by `push` has room for 16 more: too much for each of many channels.
    if (this.seqs.length < maxExact) this.seqs = [...this.seqs, seq]
    else this.seqs.push(seq)
    this.bytes += bytes
  }

  /** Removes the first entry. */
  shift(bytes: number): void {
    this.floor = this.first ?? this.floor
    this.start++
    this.bytes -= bytes
    // At least a third of the seqs are removed, so that a move costs a constant time for each entry.
    if (this.start * 3 < this.seqs.length) return
    this.seqs = this.seqs.slice(this.start)
    this.start = 0
  }

  /** Returns a function that returns the next seq after a seq at each call. */
  after(seq: number): () => number | undefined {
    let next = firstAfter(this.seqs, seq, this.start)
    return () => this.seqs[next++]
  }

  /** Returns a function that returns the next seq at or before a seq at each call, the last one first. */
  upTo(seq: number): () => number | undefined {
    let next = firstAfter(this.seqs, seq, this.start)
    return () => next > this.start ? this.seqs[--next] : undefined
  }
}

/** The data of many entries in one buffer: a buffer for each would occupy as much memory as a short event. */
class Slab {
  readonly bytes = new Uint8Array(slabBytes)
  used = 0
  live = 0
}

/**
 * The entries of all rings in the order of their seq. The place of the last evicted entry of each ring stays, so that a
 * reader finds that an entry is missing. The arrays have one element for each place: an object for each would occupy
 * twice the memory.
 *
 * An index is valid until the next `push` or `evict`.
 */
export class Sequence<A extends Stored> {
  private seqs: Array<number> = []
  /** The times of the appends, in milliseconds since 1970. */
  private ats: Array<number> = []
  /** The times until which the entries are stored, in milliseconds of a clock that is never set. */
  private untils: Array<number> = []
  private rings: Array<Ring> = []
  /** The slab of the data, or the data if it is large, or undefined after the eviction. */
  private stores: Array<Slab | Uint8Array | undefined> = []
  /** The first byte in the slab. */
  private offsets: Array<number> = []
  private lengths: Array<number> = []
  private slab = new Slab()
  /** The memory of all places and slabs, and the part of it that a compaction frees. */
  private weight = 0
  private stale = 0
  /**
   * The last entries that were read, by their seq modulo the size. Readers of the same events share them, and so the
   * frames that are made of them.
   */
  private readonly recent = new Map<number, A>()

  private readonly make: (channel: string, seq: number, data: Uint8Array) => A

  constructor(make: (channel: string, seq: number, data: Uint8Array) => A) {
    this.make = make
  }

  push(ring: Ring, seq: number, data: Uint8Array, at: number, until: number): void {
    const index = this.seqs.push(seq) - 1
    this.ats.push(at)
    this.untils.push(until)
    this.rings.push(ring)
    this.stores.push(data)
    this.offsets.push(0)
    this.lengths.push(data.length)
    if (data.length <= maxInSlab) this.copy(index, data)
    this.weight += this.weightOf(index)
    ring.push(seq, data.length)
  }

  /** Evicts entries of a ring until no limit is exceeded and the first is not too old. */
  evict(ring: Ring, now: number): void {
    for (let seq = ring.first; seq !== undefined; seq = ring.first) {
      const index = this.indexOf(seq)
      if (this.untilAt(index) >= now && !ring.isOverLimits) break
      const length = this.lengthAt(index)
      this.stale += this.weightOf(index)
      const store = this.stores[index]
      if (store instanceof Slab) store.live -= length
      this.stores[index] = undefined
      this.forget(seq)
      ring.shift(length)
    }
    if (this.stale * 3 > this.weight) this.compact()
  }

  seqAt(index: number): number {
    return this.seqs[index] ?? 0
  }

  atAt(index: number): number {
    return this.ats[index] ?? 0
  }

  untilAt(index: number): number {
    return this.untils[index] ?? 0
  }

  channelAt(index: number): string {
    return this.rings[index]?.channel ?? ""
  }

  lengthAt(index: number): number {
    return this.lengths[index] ?? 0
  }

  isEvictedAt(index: number): boolean {
    return this.stores[index] === undefined
  }

  /** Returns the entry, or undefined after its eviction. */
  entryAt(index: number): A | undefined {
    const seq = this.seqAt(index)
    const found = this.recent.get(seq % maxRecent)
    if (found?.seq === seq) return found
    const data = this.dataAt(index)
    if (data === undefined) return undefined
    const entry = this.make(this.channelAt(index), seq, data)
    this.recent.set(seq % maxRecent, entry)
    return entry
  }

  /** Returns the index of an entry that is stored. */
  indexOf(seq: number): number {
    return firstAfter(this.seqs, seq, 0) - 1
  }

  /** Returns a function that returns the index of the next entry after a seq at each call. */
  after(seq: number): () => number | undefined {
    let next = firstAfter(this.seqs, seq, 0)
    return () => next < this.seqs.length ? next++ : undefined
  }

  /** Returns a function that returns the index of the next entry up to a seq at each call, the last one first. */
  upTo(seq: number): () => number | undefined {
    let next = firstAfter(this.seqs, seq, 0)
    return () => next > 0 ? --next : undefined
  }

  /**
   * Joins functions that each return the next seq of a ring at each call: returns one that returns the index of the
   * next entry of all, in the order of their seq, or in reverse.
   */
  merge(nexts: Iterable<() => number | undefined>, isReversed: boolean): () => number | undefined {
    const heads = Array.from(nexts, (next) => ({ next, seq: next() })).filter(({ seq }) => seq !== undefined)
    return () => {
      let first = heads[0]
      for (const head of heads) {
        if (
          head.seq !== undefined &&
          (first?.seq === undefined || (isReversed ? head.seq > first.seq : head.seq < first.seq))
        ) first = head
      }
      const seq = first?.seq
      if (first !== undefined) first.seq = first.next()
      return seq === undefined ? undefined : this.indexOf(seq)
    }
  }

  private dataAt(index: number): Uint8Array | undefined {
    const store = this.stores[index]
    return store instanceof Slab ? this.viewOf(store, index) : store
  }

  private viewOf({ bytes }: Slab, index: number): Uint8Array {
    const offset = this.offsets[index] ?? 0
    return bytes.subarray(offset, offset + this.lengthAt(index))
  }

  private weightOf(index: number): number {
    return placeBytes + (this.stores[index] instanceof Slab ? this.lengthAt(index) : 0)
  }

  private copy(index: number, data: Uint8Array): void {
    if (this.slab.used + data.length > slabBytes) this.slab = new Slab()
    const { slab } = this
    slab.bytes.set(data, slab.used)
    this.stores[index] = slab
    this.offsets[index] = slab.used
    slab.used += data.length
    slab.live += data.length
  }

  private forget(seq: number): void {
    if (this.recent.get(seq % maxRecent)?.seq === seq) this.recent.delete(seq % maxRecent)
  }

  /**
   * Removes the places that no reader needs, and copies the data of slabs that are less than half full. So it copies at
   * most as much as is freed.
   */
  private compact(): void {
    const isKept = (_: unknown, index: number) => {
      const ring = this.rings[index]
      return !this.isEvictedAt(index) || (ring?.floor === this.seqAt(index) && !ring.isForgotten)
    }
    const kept = this.seqs.map(isKept)
    const ofKept = (_: unknown, index: number) => kept[index]
    this.seqs = this.seqs.filter(ofKept)
    this.ats = this.ats.filter(ofKept)
    this.untils = this.untils.filter(ofKept)
    this.rings = this.rings.filter(ofKept)
    this.stores = this.stores.filter(ofKept)
    this.offsets = this.offsets.filter(ofKept)
    this.lengths = this.lengths.filter(ofKept)
    this.stale = 0
    this.weight = 0
    this.stores.forEach((store, index) => {
      if (store instanceof Slab && store !== this.slab && store.live * 2 < slabBytes) {
        this.forget(this.seqAt(index))
        this.copy(index, this.viewOf(store, index))
      }
      this.weight += this.weightOf(index)
    })
  }
}

/** Returns the index of the first seq after another one, by binary search. Finds it at once if no seq is missing. */
const firstAfter = (seqs: ReadonlyArray<number>, seq: number, start: number): number => {
  const last = seqs.at(-1) ?? 0
  const first = seqs[start] ?? 0
  // Between two whole numbers there are at most as many as their difference.
  let from = Math.max(start, seqs.length - Math.max(0, last - seq))
  let to = Math.min(seqs.length, start + Math.max(0, seq - first + 1))
  while (from < to) {
    const middle = (from + to) >>> 1
    if ((seqs[middle] ?? 0) <= seq) from = middle + 1
    else to = middle
  }
  return from
}

const slabBytes = 32 * 1024
// Data that is longer is retained as it is, so that little of a slab is unused.
const maxInSlab = slabBytes / 16
const placeBytes = 64
const maxRecent = 4096
// The longest array that has no room for more.
const maxExact = 16
