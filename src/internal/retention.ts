/**
 * The limits of the events that a log stores of one channel.
 */
interface Limits {
  readonly capacity?: number | undefined
  readonly maxBytes?: number | undefined
  readonly maxAge?: number | undefined
}

/** Returns the rule that a limit breaks, or undefined. The age is in milliseconds. */
export const limitFault = ({ capacity = 1, maxAge = 1, maxBytes = 1 }: Limits): string | undefined =>
  isLimit(capacity) ?
    isLimit(maxBytes) ?
      maxAge > 0 ? undefined : "maxAge must be longer than zero" :
      "maxBytes must be a whole number, one or more, or Infinity" :
    "capacity must be a whole number, one or more, or Infinity"

const isLimit = (limit: number): boolean =>
  limit === Number.POSITIVE_INFINITY || (Number.isSafeInteger(limit) && limit >= 1)
