import * as RegularExpression from "effect/RegExp"

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
  patternFault(channel) ?? (isPattern(channel) ? `must not have "${wildcard}" as a segment` : undefined)

/** Whether some segment stands for any segment. */
export const isPattern = (pattern: string): boolean => pattern.includes(wildcard) && /(^|\/)\*($|\/)/.test(pattern)

/** What a channel must look like to be one of those that a pattern stands for. */
export const toRegExp = (pattern: string): RegExp => {
  const segments = pattern.split("/").map((segment) =>
    segment === wildcard ? "[^/]*" : RegularExpression.escape(segment)
  )
  return new RegExp(`^(?!\\${hidden})${segments.join("/")}$`)
}

/** Whether no pattern stands for it. */
export const isHidden = (channel: string): boolean => channel.startsWith(hidden)

/** The names without those that others of them stand for. */
export const withoutCovered = (patterns: ReadonlyArray<string>): ReadonlyArray<string> => {
  const wild = patterns.filter(isPattern).map((pattern) => ({ pattern, names: toRegExp(pattern) }))
  return patterns.filter((name) => !wild.some(({ names, pattern }) => pattern !== name && names.test(name)))
}

// A UTF-16 code unit is at most three bytes of UTF-8.
const isShort = (name: string): boolean =>
  name.length * 3 <= maxBytes || (name.length <= maxBytes && new TextEncoder().encode(name).length <= maxBytes)

/**
 * Values by channel or pattern, found by channel. Patterns with wildcards in the same places share a shape, and a
 * look-up costs one step for each shape there is, however many patterns have it.
 */
export class PatternMap<A> {
  private readonly values = new Map<string, A>()
  private readonly shapes = new Map<string, { readonly segments: ReadonlyArray<string>; patterns: number }>()

  get(pattern: string): A | undefined {
    return this.values.get(pattern)
  }

  keys(): IterableIterator<string> {
    return this.values.keys()
  }

  set(pattern: string, value: A): void {
    if (isPattern(pattern) && !this.values.has(pattern)) {
      const key = shapeOf(pattern)
      const shape = this.shapes.get(key)
      if (shape === undefined) this.shapes.set(key, { segments: key.split("/"), patterns: 1 })
      else shape.patterns++
    }
    this.values.set(pattern, value)
  }

  delete(pattern: string): void {
    if (!this.values.delete(pattern) || !isPattern(pattern)) return
    const key = shapeOf(pattern)
    const shape = this.shapes.get(key)
    if (shape !== undefined && --shape.patterns === 0) this.shapes.delete(key)
  }

  /** The values of the channel itself and of every pattern that it matches. */
  match(channel: string): Array<A> {
    const found: Array<A> = []
    const add = (key: string) => {
      const value = this.values.get(key)
      if (value !== undefined) found.push(value)
    }
    add(channel)
    if (this.shapes.size === 0 || isHidden(channel)) return found
    const segments = channel.split("/")
    for (const shape of this.shapes.values()) {
      if (shape.segments.length !== segments.length) continue
      add(segments.map((segment, i) => shape.segments[i] === wildcard ? wildcard : segment).join("/"))
    }
    return found
  }
}

/** Where the wildcards of a pattern are. */
export const shapeOf = (pattern: string): string =>
  pattern.split("/").map((segment) => segment === wildcard ? wildcard : "").join("/")
