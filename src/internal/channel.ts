/**
 * The rules of names of channels and of idempotency keys, and a map that finds the patterns that match a channel.
 */
const wildcard = "*"
// No pattern matches a name with this prefix, as in MQTT (5.0, section 4.7.2).
const hidden = "$"
const maxBytes = 512
const maxKeyBytes = 256

const textEncoder = new TextEncoder()

/** Returns the rule that a name breaks that is read or followed, or undefined if it breaks none. */
export const patternFault = (pattern: string): string | undefined => fault(pattern, maxBytes)

/** Returns the rule that an idempotency key breaks, or undefined if it breaks none. */
export const keyFault = (key: string): string | undefined => fault(key, maxKeyBytes)

const fault = (name: string, maxBytes: number): string | undefined =>
  // A program in JavaScript may pass any value.
  typeof name !== "string" ?
    "must be a string" :
    name === "" ?
    "must not be empty" :
    !isShort(name, maxBytes) ?
    `must be at most ${maxBytes} bytes long` :
    /\p{Cc}/u.test(name) ?
    "must not contain control characters" :
    name.isWellFormed() ?
    undefined :
    "must be well-formed Unicode, without lone surrogates"

/** Returns the rule that a name breaks that is appended to, or undefined if it breaks none. */
export const channelFault = (channel: string): string | undefined =>
  patternFault(channel) ??
    (isPattern(channel) ? `must not have "${wildcard}" as a segment; Topic.pattern makes a pattern` : undefined)

/** Returns true if a segment is the wildcard. */
export const isPattern = (pattern: string): boolean => pattern.includes(wildcard) && /(^|\/)\*($|\/)/.test(pattern)

/** Returns true if no pattern matches the channel. */
export const isHidden = (channel: string): boolean => channel.startsWith(hidden)

/** Returns the names without those that another of them, a pattern, matches. */
export const withoutCovered = (names: ReadonlyArray<string>): ReadonlyArray<string> => {
  const patterns = new PatternMap<true>()
  for (const name of names) if (isPattern(name)) patterns.set(name, true)
  return patterns.size === 0
    ? names
    : names.filter((name) => patterns.match(name).length <= (isPattern(name) ? 1 : 0))
}

// A UTF-16 code unit is at most three bytes of UTF-8, so most names need not be encoded.
const isShort = (name: string, maxBytes: number): boolean =>
  name.length * 3 <= maxBytes || (name.length <= maxBytes && textEncoder.encode(name).length <= maxBytes)

/** A node of the tree of patterns, below the segments that lead to it. Each segment is a name or the wildcard. */
class Node<A> {
  value: A | undefined
  readonly children = new Map<string, Node<A>>()
}

/**
 * A map from channels and patterns to values. The patterns are a tree of their segments. A look-up by channel walks,
 * for each segment, the child of its name and the child of the wildcard, and so meets no pattern that begins
 * differently.
 */
export class PatternMap<A> {
  private readonly values = new Map<string, A>()
  private readonly root = new Node<A>()

  get size(): number {
    return this.values.size
  }

  get(pattern: string): A | undefined {
    return this.values.get(pattern)
  }

  keys(): IterableIterator<string> {
    return this.values.keys()
  }

  set(pattern: string, value: A): void {
    this.values.set(pattern, value)
    if (!isPattern(pattern)) return
    let node = this.root
    for (const segment of pattern.split("/")) {
      let child = node.children.get(segment)
      if (child === undefined) node.children.set(segment, child = new Node())
      node = child
    }
    node.value = value
  }

  delete(pattern: string): void {
    if (!this.values.delete(pattern) || !isPattern(pattern)) return
    const segments = pattern.split("/")
    const path = [this.root]
    for (const segment of segments) {
      const child = path.at(-1)?.children.get(segment)
      if (child === undefined) return
      path.push(child)
    }
    for (let node = path.pop(); node !== undefined; node = path.pop()) {
      if (path.length === segments.length) node.value = undefined
      if (node.value !== undefined || node.children.size > 0) return
      path.at(-1)?.children.delete(segments[path.length - 1] ?? "")
    }
  }

  /** Returns true if the map has the channel, or a pattern that matches it. */
  has(channel: string): boolean {
    return this.values.has(channel) ||
      (this.root.children.size > 0 && !isHidden(channel) && hasMatch(this.root, channel.split("/"), 0))
  }

  /** Returns the values of the channel itself and of each pattern that matches it. */
  match(channel: string): Array<A> {
    const found: Array<A> = []
    if (!isPattern(channel)) {
      const own = this.values.get(channel)
      if (own !== undefined) found.push(own)
    }
    if (this.root.children.size === 0 || isHidden(channel)) return found
    let nodes = [this.root]
    for (const segment of channel.split("/")) {
      const next: Array<Node<A>> = []
      for (const { children } of nodes) {
        const named = segment === wildcard ? undefined : children.get(segment)
        if (named !== undefined) next.push(named)
        const wild = children.get(wildcard)
        if (wild !== undefined) next.push(wild)
      }
      if (next.length === 0) return found
      nodes = next
    }
    for (const { value } of nodes) if (value !== undefined) found.push(value)
    return found
  }
}

const hasMatch = <A>({ children, value }: Node<A>, segments: ReadonlyArray<string>, depth: number): boolean => {
  const segment = segments[depth]
  if (segment === undefined) return value !== undefined
  return [children.get(segment), children.get(wildcard)].some((child) =>
    child !== undefined && hasMatch(child, segments, depth + 1)
  )
}

/** Returns the shape of a pattern: the positions of its wildcards. */
export const shapeOf = (pattern: string): string =>
  pattern.split("/").map((segment) => segment === wildcard ? wildcard : "").join("/")
