/** Upper limit of a delay that a server asks for, in milliseconds. A timer of 25 days or more would never fire. */
export const maxDelay = 3_600_000

/**
 * Returns the delay that `Retry-After` asks for, in milliseconds. A date is of the server's clock, which the header
 * `Date` shows where the page can read it.
 */
export const toMillis = (headers: Headers, now: number): number | undefined => {
  const header = headers.get("retry-after")?.trim()
  if (header === undefined || header === "") return undefined
  const date = Date.parse(headers.get("date") ?? "")
  const millis = /^\d+$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - (Number.isNaN(date) ? now : date)
  return Number.isNaN(millis) ? undefined : Math.min(Math.max(0, millis), maxDelay)
}
