const wildcard = "*"
// As in MQTT: what begins so is not found by those who ask for everything.
const hidden = "$"
const maxBytes = 512

/** Which rule a name breaks that is to be read or followed, or undefined if it breaks none. */
export const patternFault = (pattern: string): string | undefined =>
  pattern === "" ?
    "must not be empty" :
    !isShort(pattern) ?
    `must be at most ${maxBytes} bytes long` :
    /\p{Cc}/u.test(pattern) ?
    "must not contain control characters" :
    pattern.isWellFormed() ?
    undefined :
    "must be well-formed Unicode, without lone surrogates"

/** Which rule a name breaks that is to be appended to, or undefined if it breaks none. */
export const channelFault = (channel: string): string | undefined =>
  patternFault(channel) ??
    (isPattern(channel) ? `must not have "${wildcard}" as a segment; Topic.pattern makes a pattern` : undefined)

/** Whether some segment stands for any segment. */
export const isPattern = (pattern: string): boolean => pattern.includes(wildcard) && /(^|\/)\*($|\/)/.test(pattern)

/** Whether no pattern stands for it. */
export const isHidden = (channel: string): boolean => channel.startsWith(hidden)

/** Returns the names without those that others of them stand for. */
export const withoutCovered = (names: ReadonlyArray<string>): ReadonlyArray<string> => {
  const patterns = new PatternMap<true>()
  for (const name of names) if (isPattern(name)) patterns.set(name, true)
  return patterns.size === 0
    ? names
    : names.filter((name) => patterns.match(name).length <= (isPattern(name) ? 1 : 0))
}

// A UTF-16 code unit is at most three bytes of UTF-8.
const isShort = (name: string): boolean =>
  name.length * 3 <= maxBytes || (name.length <= maxBytes && new TextEncoder().encode(name).length <= maxBytes)

/** A place in the tree of patterns: after some segments, of which each is a name or the wildcard. */
class Node<A> {
  value: A | undefined
  readonly children = new Map<string, Node<A>>()
}

/**
 * Values by channel or pattern, found by channel. The patterns are a tree over their segments: a look-up follows the name
 * and the wildcard of each segment, and sees no pattern that begins in another way.
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

  /** Returns whether the channel is here, or a pattern that stands for it. */
  has(channel: string): boolean {
    return this.values.has(channel) ||
      (this.root.children.size > 0 && !isHidden(channel) && hasMatch(this.root, channel.split("/"), 0))
  }

  /** Returns the values of the channel itself and of every pattern that stands for it. */
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

/** Where the wildcards of a pattern are. */
export const shapeOf = (pattern: string): string =>
  pattern.split("/").map((segment) => segment === wildcard ? wildcard : "").join("/")
