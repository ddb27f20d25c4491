import type { Entry } from "../EventLog.js"

/** The last entries of one channel, in the order of their seq, which is also the order of their age. */
export class Ring {
  /** The seq of the last entry that was evicted: what came after it is here. */
  floor: number
  private slots: Array<{ readonly entry: Entry; readonly at: number } | undefined> = []
  private first = 0
  private bytes = 0

  constructor(floor: number) {
    this.floor = floor
  }

  get size(): number {
    return this.slots.length - this.first
  }

  push(entry: Entry, at: number): void {
    this.slots.push({ entry, at })
    this.bytes += entry.data.length
  }

  evict(limits: { readonly capacity: number; readonly maxBytes: number }, notBefore: number): void {
    for (let slot = this.slots[this.first]; slot !== undefined; slot = this.slots[this.first]) {
      if (slot.at >= notBefore && this.size <= limits.capacity && this.bytes <= limits.maxBytes) break
      this.floor = slot.entry.seq
      this.bytes -= slot.entry.data.length
      this.slots[this.first++] = undefined
    }
    // Half of the slots being free pays for moving the other half.
    if (this.first * 2 >= this.slots.length) {
      this.slots = this.slots.slice(this.first)
      this.first = 0
    }
  }

  /** The first entries after a seq and up to another, at most limit. */
  after(seq: number, upTo: number, limit: number): Array<Entry> {
    let [from, to] = [this.first, this.slots.length]
    while (from < to) {
      const middle = (from + to) >>> 1
      const slot = this.slots[middle]
      if (slot !== undefined && slot.entry.seq <= seq) from = middle + 1
      else to = middle
    }
    const found: Array<Entry> = []
    for (let slot = this.slots[from]; slot !== undefined && found.length < limit; slot = this.slots[++from]) {
      if (slot.entry.seq > upTo) break
      found.push(slot.entry)
    }
    return found
  }
}
