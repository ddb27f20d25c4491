/**
 * Adapters that store their data in a database: SQLite or PostgreSQL, through any `@effect/sql` client.
 *
 * @since 0.1.0
 */

/**
 * Storage of campaigns: broadcasts that survive the process.
 *
 * @since 0.1.0
 */
export * as SqlCampaign from "./SqlCampaign.js"

/**
 * A log of events in a database.
 *
 * @since 0.1.0
 */
export * as SqlEventLog from "./SqlEventLog.js"

/**
 * Storage of a `NotificationOutbox`, whose notifications survive the process.
 *
 * @since 0.1.0
 */
export * as SqlNotificationOutbox from "./SqlNotificationOutbox.js"

/**
 * The devices of each owner.
 *
 * @since 0.1.0
 */
export * as SqlSubscriptionStore from "./SqlSubscriptionStore.js"
