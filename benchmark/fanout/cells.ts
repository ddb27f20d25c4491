import type { Measured } from "./load.js"

/** One measurement of a server. `mode` and `connections` name the row of servers that it is compared with. */
export interface Cell extends Measured {
  readonly part: string
  readonly mode: string
  readonly connections: number
  readonly server: string
  readonly repetition: number
}

/** A measurement of a part before the runner adds the server, of which it may be a variant, and the repetition. */
export interface Row extends Measured {
  readonly variant?: string
  readonly mode: string
  readonly connections: number
}

/** Returns the q-quantile, and NaN for no values. */
export const quantile = (values: ReadonlyArray<number>, q: number): number =>
  Array.from(values).sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))] ?? Number.NaN
