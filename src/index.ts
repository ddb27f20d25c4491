/**
 * Server-Sent Events and Web Push for Effect.
 *
 * @since 0.1.0
 */

/**
 * @since 0.1.0
 */
export * as VapidKeys from "./VapidKeys.js"

/**
 * @since 0.1.0
 */
export * as WebPush from "./WebPush.js"

/**
 * @since 0.1.0
 */
export * as WebPushPayload from "./WebPushPayload.js"

/**
 * @since 0.1.0
 */
export * as WebPushSubscription from "./WebPushSubscription.js"
