/**
 * An `EventLog` on Redis Streams. An event that is published on one node reaches the clients of every node. A node that
 * has lost its connection delivers the events that its clients have missed, or the reason why an event is missing.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"

import * as EventLog from "../EventLog.js"
import type { Settings } from "./internal/client.js"
import * as RedisLog from "./internal/log.js"

/**
 * The address of Redis, and the limits of the log in it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The URL `redis://host:port/database`, or with `rediss:` for TLS. `redis://localhost:6379` by default.
   */
  readonly url?: string | undefined
  /**
   * The user of Redis. The one of the URL by default.
   */
  readonly username?: string | undefined
  /**
   * The password of the user. The one of the URL by default.
   */
  readonly password?: Redacted.Redacted | undefined
  /**
   * The prefix, in braces, of the names of keys and channels in Redis. `effect-realtime` by default. Logs with
   * different prefixes, or in different databases, are separate. It must not be empty, nor contain braces.
   */
  readonly prefix?: string | undefined
  /**
   * The number of events of one channel, a whole number from 1. 1000 by default.
   */
  readonly capacity?: number | undefined
  /**
   * The age of an event, in milliseconds or as a Duration, at least one millisecond. 10 minutes by default. An event
   * may be evicted later by a 256th of it.
   */
  readonly maxAge?: Duration.DurationInput | undefined
  /**
   * Time without an answer after which the connection counts as lost, in milliseconds or as a Duration, from 2
   * milliseconds to 24 days. 5 seconds by default. A page of history or a large event may take longer to arrive.
   */
  readonly timeout?: Duration.DurationInput | undefined
}

/**
 * Provides a log in Redis 7 or newer, shared by all nodes that use the same Redis, database and prefix. A node has
 * three connections, for any number of clients: one for commands, one for the announcements of the followed channels,
 * and one for pages of history. It reads two pages at once at most.
 *
 * The layer waits for Redis. It fails with `EventLogError` if Redis cannot be reached within `timeout`, or if the user
 * lacks a permission, which `detail` names. Later, while Redis is away, calls fail with `EventLogError` at once or
 * within `timeout`, and the node connects again by itself. It then reads the events that it has missed before it
 * delivers newer ones. While Redis refuses writes, `append` fails with the code of Redis in `detail`, and all other
 * operations continue.
 *
 * A Redis that has lost its data begins another epoch. So does one that has lost its last events, as soon as a node
 * connects that knows a later place.
 *
 * All keys are in one slot of a Redis Cluster, since one script numbers, stores and announces an event in one step. So
 * a log is as fast as one shard. Use logs with different prefixes to use several shards.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { EventBroker } from "effect-realtime"
 * import { RedisEventLog } from "effect-realtime/redis"
 *
 * const Broker = EventBroker.layer.pipe(
 *   Layer.provide(RedisEventLog.layer({ url: "redis://localhost:6379" }))
 * )
 * ```
 */
export const layer = (options: Options = {}): Layer.Layer<EventLog.EventLog, EventLog.EventLogError> =>
  Layer.scoped(
    EventLog.EventLog,
    toSettings(options).pipe(Effect.flatMap(RedisLog.make), Effect.map(EventLog.make))
  )

/**
 * Provides a log in Redis with options from the configuration.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { RedisEventLog } from "effect-realtime/redis"
 *
 * const Log = RedisEventLog.layerConfig({
 *   url: Config.string("REDIS_URL"),
 *   password: Config.redacted("REDIS_PASSWORD")
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<EventLog.EventLog, EventLog.EventLogError | ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))

const toSettings = Effect.fnUntraced(function*(options: Options) {
  const prefix = options.prefix ?? "effect-realtime"
  yield* rule(
    /^[^{}]+$/.test(prefix) && prefix.isWellFormed(),
    "prefix must be well-formed Unicode, not empty, and without braces"
  )
  const capacity = options.capacity ?? 1000
  yield* rule(Number.isSafeInteger(capacity) && capacity >= 1, "capacity must be a whole number, one or more")
  const maxAge = millisOf(options.maxAge ?? "10 minutes")
  yield* rule(maxAge >= 1, "maxAge must be a millisecond or more")
  const timeout = millisOf(options.timeout ?? "5 seconds")
  // A ping has half of the timeout for its answer, and the longest timer of Node.js is 2^31 - 1 milliseconds.
  yield* rule(timeout >= 2 && timeout < 2 ** 31, "timeout must be two milliseconds or more, and less than 24 days")
  const settings: Settings = {
    url: options.url ?? "redis://localhost:6379",
    username: options.username,
    password: options.password,
    prefix,
    capacity,
    maxAge: Math.min(maxAge, Number.MAX_SAFE_INTEGER),
    timeout
  }
  return settings
})

const millisOf = (duration: Duration.DurationInput): number =>
  Option.match(Duration.decodeUnknown(duration), { onNone: () => Number.NaN, onSome: Duration.toMillis })

const rule = (holds: boolean, rule: string): Effect.Effect<void> =>
  holds ? Effect.void : Effect.die(new Cause.IllegalArgumentException(`RedisEventLog: ${rule}`))
