/** Returns true if the response may be an event stream (RFC 9110, section 12.5.1). */
export const acceptsEvents = (accept = ""): boolean =>
  accept.trim() === "" || accepts(accept, ["text/event-stream", "text/*", "*/*"])

/**
 * Returns true if a request names event streams, as an `EventSource` does. Where the route is not known, `*` means little:
 * it is the `Accept` of most requests that are for something else.
 */
export const namesEvents = (accept = ""): boolean => accepts(accept, ["text/event-stream"])

/** The first of the ranges that is there decides: it is the most precise one. */
const accepts = (accept: string, medias: ReadonlyArray<string>): boolean => {
  const ranges = accept.split(",").map((range) => range.split(";").map((part) => part.trim().toLowerCase()))
  for (const media of medias) {
    const range = ranges.find(([type]) => type === media)
    if (range !== undefined) return !range.some((part) => /^q=0(\.0*)?$/.test(part))
  }
  return false
}
