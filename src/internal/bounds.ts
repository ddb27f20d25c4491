import * as DateTime from "effect/DateTime"
import * as Predicate from "effect/Predicate"

/** Returns the rule that bounds break, or undefined. A program in JavaScript may pass any value. */
export const boundsFault = (bounds: unknown): string | undefined => {
  if (!Predicate.isRecord(bounds) || Predicate.isDate(bounds) || DateTime.isDateTime(bounds)) {
    return "the place at which a client begins must be now, beginning, or an object with last or since"
  }
  const { last = 0, since } = bounds
  return !Number.isSafeInteger(last) || Number(last) < 0
    ? "last must be a whole number, zero or more"
    : since !== undefined && !DateTime.isDateTime(since)
    ? "since must be a DateTime"
    : undefined
}
