import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"

import type { Options } from "../EventStream.js"
import type { Settings } from "./connection.js"

/** The options of a connection with their defaults, and with the random part of its own. */
export const make = (options: Options): Effect.Effect<Settings> =>
  Effect.gen(function*() {
    const { capacity = 1000, heartbeat = "15 seconds", jitter = 0.5, maxBytes = 1024 * 1024, retry } = options
    const maxAge = Duration.toMillis(options.maxAge ?? Duration.infinity)
    const writeTimeout = Duration.toMillis(options.writeTimeout ?? "30 seconds")
    const heartbeatMillis = heartbeat === "off" ? Number.POSITIVE_INFINITY : Duration.toMillis(heartbeat)
    yield* rule(heartbeatMillis > 0, "heartbeat must be longer than zero; \"off\" turns it off")
    yield* rule(Number.isSafeInteger(capacity) && capacity >= 1, "capacity must be a whole number, one or more")
    yield* rule(maxBytes >= 1, "maxBytes must be one or more")
    yield* rule(jitter >= 0 && jitter <= 1, "jitter must be between 0 and 1")
    yield* rule(maxAge > 0, "maxAge must be longer than zero")
    yield* rule(writeTimeout > 0, "writeTimeout must be longer than zero")
    const spread = yield* Random.next
    const spreadRetry = (retry: Duration.DurationInput) =>
      Math.round(Duration.toMillis(retry) * (1 + jitter * (2 * spread - 1)))
    const opening = retry === undefined || retry === "off" ? undefined : spreadRetry(retry)
    yield* rule(opening === undefined || Number.isSafeInteger(opening), "retry must be finite")
    return {
      capacity,
      maxBytes,
      strategy: options.strategy ?? "sliding",
      heartbeat: heartbeatMillis,
      writeTimeout,
      maxAge: maxAge === Number.POSITIVE_INFINITY ? maxAge : Math.round(maxAge * (1 - jitter * spread)),
      retry: opening,
      farewell: opening ?? spreadRetry("3 seconds"),
      sendsRetry: retry !== "off"
    }
  })

const rule = (holds: boolean, rule: string): Effect.Effect<void> =>
  holds ? Effect.void : Effect.die(new Cause.IllegalArgumentException(`EventStream: ${rule}`))
