/**
 * An `EventLog` on Redis Streams: an event that is published on one node reaches the clients of every node, and a node that
 * was cut off gives its clients what they missed, or says that it is gone.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"

import * as EventLog from "../EventLog.js"
import * as RedisLog from "./internal/log.js"

/**
 * Where Redis is, and what bounds the log in it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * `redis://host:port/database`, or `rediss:` for TLS. `redis://localhost:6379` by default.
   */
  readonly url?: string | undefined
  readonly username?: string | undefined
  readonly password?: Redacted.Redacted | undefined
  /**
   * The beginning, in braces, of the names of keys and of channels of Redis: `effect-realtime` by default. Logs with different
   * prefixes, or in different databases, have nothing in common. It must not be empty, nor contain braces.
   */
  readonly prefix?: string | undefined
  /**
   * Events of one channel, a whole number, 1000 by default.
   */
  readonly capacity?: number | undefined
  /**
   * Age of an event, a millisecond or more, 10 minutes by default. It may get older by a 256th.
   */
  readonly maxAge?: Duration.DurationInput | undefined
  /**
   * Time without an answer after which Redis counts as away, 5 seconds by default. No call takes longer to fail, but a page
   * of history or a large event may take longer to arrive.
   */
  readonly timeout?: Duration.DurationInput | undefined
}

/**
 * A log in Redis 7 or newer, shared by all who use the same Redis, database and prefix. A node has three connections,
 * however many clients it has: one for commands, one for the announcements of the channels that it follows, and one for pages
 * of history, of which two at most are read at once.
 *
 * The layer waits for Redis, and fails with `EventLogError` if it cannot be reached within `timeout`, or if the user of
 * Redis lacks a permission, which `detail` names. From then on, while Redis is away, calls fail with `EventLogError` at once
 * or within `timeout`, and the log comes back by itself: what was appended meanwhile by other nodes is read from the streams
 * before anything newer is given. While Redis refuses writes, `append` fails with its code in `detail`, and all else
 * continues. A Redis that lost its data has begun another epoch. One that lost only the last of it has too, as soon as a node
 * is there that knows of a later place than Redis does.
 *
 * All keys are in one slot of a Redis Cluster, since one script numbers, keeps and announces an event in one step: a log is
 * as fast as one shard. Use a prefix for each log that is to be on another.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { EventBroker } from "effect-realtime"
 * import { RedisEventLog } from "effect-realtime/redis"
 *
 * const Broker = EventBroker.layer().pipe(
 *   Layer.provide(RedisEventLog.layer({ url: "redis://localhost:6379" }))
 * )
 * ```
 */
export const layer = (options: Options = {}): Layer.Layer<EventLog.EventLog, EventLog.EventLogError> =>
  Layer.scoped(EventLog.EventLog, Effect.map(RedisLog.make(options), EventLog.make))

/**
 * A log in Redis, with its options from the configuration.
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
