import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"

import type { Options } from "../../EventStream.js"
import type { Settings } from "./connection.js"

/** The options of a connection with their defaults, and with the random part of its own. */
export const make = (options: Options): Effect.Effect<Settings> =>
  Effect.flatMap(Random.next, (spread) => {
    const { capacity = 1000, heartbeat = "15 seconds", jitter = 0.5, maxBytes = 1024 * 1024, retry } = options
    const maxAge = Duration.toMillis(options.maxAge ?? Duration.infinity)
    const writeTimeout = Duration.toMillis(options.writeTimeout ?? "30 seconds")
    const heartbeatMillis = heartbeat === "off" ? Number.POSITIVE_INFINITY : Duration.toMillis(heartbeat)
    const spreadRetry = (retry: Duration.DurationInput) =>
      Math.round(Duration.toMillis(retry) * (1 + jitter * (2 * spread - 1)))
    const opening = retry === undefined || retry === "off" ? undefined : spreadRetry(retry)
    if (!(heartbeatMillis > 0)) return illegal("heartbeat must be longer than zero; \"off\" turns it off")
    if (!(Number.isSafeInteger(capacity) && capacity >= 1)) {
      return illegal("capacity must be a whole number, one or more")
    }
    if (!(maxBytes >= 1)) return illegal("maxBytes must be one or more")
    if (!(jitter >= 0 && jitter <= 1)) return illegal("jitter must be between 0 and 1")
    if (!(maxAge > 0)) return illegal("maxAge must be longer than zero")
    if (!(writeTimeout > 0)) return illegal("writeTimeout must be longer than zero")
    if (!(opening === undefined || Number.isSafeInteger(opening))) return illegal("retry must be finite")
    return Effect.succeed<Settings>({
      capacity,
      maxBytes,
      strategy: options.strategy ?? "sliding",
      heartbeat: heartbeatMillis,
      writeTimeout,
      maxAge: maxAge === Number.POSITIVE_INFINITY ? maxAge : Math.round(maxAge * (1 - jitter * spread)),
      retry: opening,
      farewell: opening ?? spreadRetry("3 seconds"),
      sendsRetry: retry !== "off"
    })
  })

const illegal = (rule: string): Effect.Effect<never> =>
  Effect.die(new Cause.IllegalArgumentException(`EventStream: ${rule}`))
