/**
 * More than one node: the event log on Redis. It needs the package `redis`.
 *
 * @since 0.1.0
 */

/**
 * @since 0.1.0
 */
export * as RedisEventLog from "./RedisEventLog.js"
