import * as DateTime from "effect/DateTime"

/**
 * The bounds of the events with which a reader begins.
 */
interface Bounds {
  readonly last?: number | undefined
  readonly since?: DateTime.DateTime | undefined
}

/** Returns the rule that a bound breaks, or undefined. A program in JavaScript may pass any value. */
export const boundsFault = ({ last = 0, since }: Bounds): string | undefined =>
  !Number.isSafeInteger(last) || last < 0
    ? "last must be a whole number, zero or more"
    : since !== undefined && !DateTime.isDateTime(since)
    ? "since must be a DateTime"
    : undefined
