/**
 * An `EventLog` on Redis Streams. An event that is published on one node reaches the clients of every node. A node that
 * has lost its connection delivers the events that its clients have missed, or the reason why an event is missing.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type { AnyRedisClientOptions } from "redis"

import * as EventLog from "../EventLog.js"
import { toMillis } from "../internal/duration.js"
import { makeRule } from "../internal/rule.js"
import type { Servers, Settings } from "./internal/client.js"
import * as RedisLog from "./internal/log.js"
import { makeKeys } from "./internal/scripts.js"
import { bySentinel, fromCluster, fromOptions, fromUrls } from "./internal/servers.js"

/**
 * The place of a log in Redis, and its limits.
 *
 * @since 0.1.0
 * @category models
 */
export interface LogOptions {
  /**
   * The sentinels that know the master. The log asks them for its address whenever it connects, and every `timeout`.
   */
  readonly sentinel?: Sentinel | undefined
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
 * The addresses of Redis, and the limits of the log in it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends LogOptions {
  /**
   * The URL `redis://host:port/database`, or with `rediss:` for TLS. `redis://localhost:6379` by default. Of a cluster,
   * the URLs of some nodes: one that answers is enough. With `sentinel`, the host and the port are not used.
   */
  readonly url?: string | ReadonlyArray<string> | undefined
  /**
   * The user of Redis. The one of the URL by default.
   */
  readonly username?: string | undefined
  /**
   * The password of the user. The one of the URL by default.
   */
  readonly password?: Redacted.Redacted | undefined
}

/**
 * The sentinels of a master.
 *
 * @since 0.1.0
 * @category models
 */
export interface Sentinel {
  /**
   * The name of the master, as in `sentinel monitor mymaster …`.
   */
  readonly name: string
  /**
   * The URLs `redis://user:password@host:port` of the sentinels. They are asked all at once.
   */
  readonly urls: ReadonlyArray<string>
}

/**
 * A client that the program has made, and the limits of the log.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientOptions extends LogOptions {
  /**
   * A client, or a connected client of a cluster. It stays the program's own: the log makes connections with its
   * address, TLS, user and credentials, and closes only these. It must have no `keyPrefix`: use `prefix`.
   */
  readonly client: Client | ClusterClient
}

/**
 * A client that `createClient` of the package `redis` has made.
 *
 * @since 0.1.0
 * @category models
 */
export interface Client {
  readonly options: AnyRedisClientOptions
}

/**
 * A client that `createCluster` of the package `redis` has made.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClusterClient {
  readonly isOpen: boolean
  readonly exists: (key: string) => Promise<unknown>
  readonly getNodeClientForKey: (key: string) => Promise<Client>
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
 * With `sentinel` the log follows the master. In a Redis Cluster it follows redirections, and all its keys are in one
 * slot, since one script numbers, stores and announces an event in one step. So a log is as fast as one shard. Use logs
 * with different prefixes to use several shards.
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
    Effect.gen(function*() {
      const limits = yield* toLimits(options)
      const urls = [options.url ?? "redis://localhost:6379"].flat()
      yield* rule(urls.length > 0, "url must not be an empty list")
      return yield* make(yield* fromUrls(urls, options.username, options.password), limits, options)
    })
  )

/**
 * Provides a log in Redis over connections like those of a client that the program has made, for what a URL cannot say:
 * the certificate of an authority, a provider of credentials, the address map of a cluster. Otherwise it is as `layer`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { EventBroker } from "effect-realtime"
 * import { RedisEventLog } from "effect-realtime/redis"
 * import { createClient } from "redis"
 *
 * const client = createClient({ socket: { host: "redis.internal", port: 6380, tls: true } })
 *
 * const Broker = EventBroker.layer.pipe(
 *   Layer.provide(RedisEventLog.layerWith({ client }))
 * )
 * ```
 */
export const layerWith = (options: ClientOptions): Layer.Layer<EventLog.EventLog, EventLog.EventLogError> =>
  Layer.scoped(
    EventLog.EventLog,
    Effect.gen(function*() {
      const { client } = options
      const limits = yield* toLimits(options)
      if ("getNodeClientForKey" in client) {
        yield* rule(options.sentinel === undefined, "a cluster has no sentinel")
        const key = makeKeys(limits.prefix, 0).base
        return yield* make(fromCluster(client, key, limits.timeout), limits, options)
      }
      yield* rule(client.options.keyPrefix === undefined, "client must have no keyPrefix: use the option prefix")
      return yield* make(fromOptions(client.options), limits, options)
    })
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

type Limits = Omit<Settings, "servers">

const make = Effect.fnUntraced(function*(servers: Servers, limits: Limits, { sentinel }: LogOptions) {
  if (sentinel === undefined) return EventLog.make(yield* RedisLog.make({ servers, ...limits }))
  yield* rule(sentinel.urls.length > 0 && sentinel.name !== "", "sentinel needs a name and the url of a sentinel")
  const sentinels = yield* fromUrls(sentinel.urls, undefined, undefined)
  const master = bySentinel(sentinels, sentinel.name, servers, limits.timeout)
  return EventLog.make(yield* RedisLog.make({ servers: master, ...limits }))
})

const toLimits = Effect.fnUntraced(function*(options: LogOptions) {
  const prefix = options.prefix ?? "effect-realtime"
  yield* rule(
    /^[^{}]+$/.test(prefix) && prefix.isWellFormed(),
    "prefix must be well-formed Unicode, not empty, and without braces"
  )
  const capacity = options.capacity ?? 1000
  yield* rule(Number.isSafeInteger(capacity) && capacity >= 1, "capacity must be a whole number, one or more")
  const maxAge = toMillis(options.maxAge ?? "10 minutes")
  yield* rule(maxAge >= 1, "maxAge must be a millisecond or more")
  const timeout = toMillis(options.timeout ?? "5 seconds")
  // A ping has half of the timeout for its answer, and the longest timer of Node.js is 2^31 - 1 milliseconds.
  yield* rule(timeout >= 2 && timeout < 2 ** 31, "timeout must be two milliseconds or more, and less than 24 days")
  const limits: Limits = { prefix, capacity, maxAge: Math.min(maxAge, Number.MAX_SAFE_INTEGER), timeout }
  return limits
})

const rule = makeRule("RedisEventLog")
