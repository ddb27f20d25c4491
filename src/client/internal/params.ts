import { encodeSegment } from "../../internal/segment.js"

/** Returns the parameters of a channel by the path of its topic, or undefined if it is not a channel of the topic. */
export const paramsOf = (path: string, channel: string): { readonly [name: string]: string } | undefined => {
  const names = path.split("/")
  const segments = channel.split("/")
  if (names.length !== segments.length || names.some((name, i) => !isParam(name) && name !== segments[i])) return
  try {
    const params = names.flatMap((name, i): Array<[string, string]> =>
      isParam(name) ? [[name.slice(1), decode(segments[i] ?? "")]] : []
    )
    const values = params.map(([, value]) => encodeSegment(value))
    return segments.filter((_, i) => isParam(names[i] ?? "")).every((segment, i) => segment === values[i])
      ? Object.fromEntries(params)
      : undefined
  } catch {
    // The segment is not one that `Topic.channel` makes.
    return
  }
}

/** Tests for a path of a topic with parameters. */
export const hasParams = (path: string): boolean => path.split("/").some(isParam)

const isParam = (segment: string) => segment.startsWith(":")

// A lone surrogate has no encoding in UTF-8, and is written as `%uD800`.
const decode = (segment: string): string =>
  segment.replace(
    /%u(D[\dA-F]{3})|[^]+?(?=%u|$)/g,
    (part, unit: string | undefined) =>
      unit === undefined ? decodeURIComponent(part) : String.fromCharCode(Number.parseInt(unit, 16))
  )
