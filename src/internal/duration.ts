import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

/** Decodes a duration. A negative one and `NaN` are none, although `Duration.decode` turns them into zero. */
export const decode = (input: unknown): Option.Option<Duration.Duration> =>
  /^-|NaN/.test(String(input)) ? Option.none() : Duration.decodeUnknown(input)

/** Returns the milliseconds of a duration. Those of a negative or invalid one are `NaN`. */
export const toMillis = (input: unknown): number =>
  Option.match(decode(input), { onNone: () => Number.NaN, onSome: Duration.toMillis })
