import * as Context from "effect/Context"

/** The part of a request that its transport alone knows, for those requests for which it is provided. */
export class Transmission extends Context.Tag("effect-realtime/internal/Transmission")<Transmission, {
  /** The number of requests that the service may have got; `undefined` if the transport does not count them. */
  sent: number | undefined
}>() {}
