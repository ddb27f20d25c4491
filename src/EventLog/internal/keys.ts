/** The last idempotency keys of a log, with what was appended for each. */
export class Keys<A> {
  /** In the order of their appends, which is also the order of their age. */
  private readonly known = new Map<string, { readonly value: A; readonly at: number }>()

  /** Returns the value of a key that is not older than `notBefore`, or adds the one that `make` returns. */
  getOrAdd(key: string, now: number, notBefore: number, make: () => A): A {
    const found = this.known.get(key)
    if (found !== undefined && found.at >= notBefore) return found.value
    this.known.delete(key)
    for (const [oldest, { at }] of this.known) {
      if (at >= notBefore && this.known.size < maxKeys) break
      this.known.delete(oldest)
    }
    const value = make()
    this.known.set(key, { value, at: now })
    return value
  }
}

const maxKeys = 65_536
