/**
 * Returns true if the value of a `Content-Type` header is that of an event stream: the last value that is a media type
 * counts (Fetch, "extract a MIME type").
 */
export const isEventStream = (contentType: string | null | undefined): boolean =>
  (contentType ?? "").match(/(?:[^",]|"(?:\\.|[^"\\])*"?)+/g)?.reduce((essence, value) => {
    const found = /^\s*([\w!#$%&'*+.^`|~-]+\/[\w!#$%&'*+.^`|~-]+)\s*(?:;|$)/.exec(value)?.[1]
    return found === undefined || found === "*/*" ? essence : found
  }, "").toLowerCase() === "text/event-stream"
