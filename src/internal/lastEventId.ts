const maxLength = 4096

/**
 * Returns the id that the next request resumes after, or undefined if no request can carry it: servers and proxies
 * accept lines of 8 kB, and a byte may take three in a query.
 */
export const sendableId = (
  { lastEventId: id, refusedId }: { readonly lastEventId: string; readonly refusedId: string | undefined }
): string | undefined =>
  id === refusedId || id.length > maxLength || new URLSearchParams({ id }).toString().length > maxLength
    ? undefined
    : id

/** Returns the address with the id in the query. */
export const inQuery = (address: URL, id: string): URL => {
  if (id === "") return address
  const resumed = new URL(address)
  resumed.searchParams.set("lastEventId", id)
  return resumed
}

/**
 * Returns the id as a header value, one character for each byte of its UTF-8, or undefined if no header can carry it:
 * control characters are refused, and spaces at the ends are removed (RFC 9110, section 5.5).
 */
export const toHeader = (id: string): string | undefined => {
  const header = String.fromCharCode(...new TextEncoder().encode(id))
  return /^[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?$/.test(header) ? header : undefined
}

/** Tests for a request to another origin, where the header `Last-Event-ID` causes a preflight. */
export const isCrossOrigin = (address: URL): boolean =>
  globalThis.location !== undefined && address.origin !== globalThis.location.origin
