import * as DateTime from "effect/DateTime"

/** Returns the rule that a bound breaks, or undefined. A program in JavaScript may pass any value. */
export const boundsFault = (
  { last = 0, since }: { readonly last?: unknown; readonly since?: unknown }
): string | undefined =>
  !Number.isSafeInteger(last) || Number(last) < 0
    ? "last must be a whole number, zero or more"
    : since !== undefined && !DateTime.isDateTime(since)
    ? "since must be a DateTime"
    : undefined
