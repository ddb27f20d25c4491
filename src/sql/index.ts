/**
 * What is kept in a database: SQLite or PostgreSQL, through any `@effect/sql` client.
 *
 * @since 0.1.0
 */

/**
 * Notifications that survive the process.
 *
 * @since 0.1.0
 */
export * as SqlNotificationOutbox from "./SqlNotificationOutbox.js"

/**
 * Who subscribed which device.
 *
 * @since 0.1.0
 */
export * as SqlSubscriptionStore from "./SqlSubscriptionStore.js"
