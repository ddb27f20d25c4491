/** Returns true if the value of `Accept` admits an event stream as the response (RFC 9110, section 12.5.1). */
export const acceptsEvents = (accept = ""): boolean =>
  accept.trim() === "" || accepts(accept, ["text/event-stream", "text/*", "*/*"])

/**
 * Returns true if a request names event streams, as an `EventSource` does. Where the route is not known, `*` is no
 * evidence: most requests for other resources have it in `Accept`.
 */
export const namesEvents = (accept = ""): boolean => accepts(accept, ["text/event-stream"])

/** Looks for the media ranges in their order, from the most precise one. The first that is present decides. */
const accepts = (accept: string, medias: ReadonlyArray<string>): boolean => {
  const ranges = accept.split(",").map((range) => range.split(";").map((part) => part.trim().toLowerCase()))
  for (const media of medias) {
    const range = ranges.find(([type]) => type === media)
    if (range !== undefined) return !range.some((part) => /^q=0(\.0*)?$/.test(part))
  }
  return false
}
