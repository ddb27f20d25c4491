/**
 * Server-Sent Events and Web Push for Effect.
 *
 * @since 0.1.0
 */

/**
 * The owner of a request: by a header, a cookie, or a short-lived ticket in the URL.
 *
 * @since 0.1.0
 */
export * as AccessTicket from "./AccessTicket.js"

/**
 * Broadcasts that survive the process, and their storage.
 *
 * @since 0.1.0
 */
export * as Campaign from "./Campaign.js"

/**
 * Many connections: publish, subscribe, resume, drain.
 *
 * @since 0.1.0
 */
export * as EventBroker from "./EventBroker.js"

/**
 * Port to the log of events: append, read after a cursor, tail.
 *
 * @since 0.1.0
 */
export * as EventLog from "./EventLog.js"

/**
 * One connection: a bounded queue of frames in a `Scope`.
 *
 * @since 0.1.0
 */
export * as EventStream from "./EventStream.js"

/**
 * The metrics of the library.
 *
 * @since 0.1.0
 */
export * as Metrics from "./Metrics.js"

/**
 * Notifications that survive the process, and their storage.
 *
 * @since 0.1.0
 */
export * as NotificationOutbox from "./NotificationOutbox.js"

/**
 * An event to the open pages of an owner, a push message to the devices if no page is open.
 *
 * @since 0.1.0
 */
export * as Notifier from "./Notifier.js"

/**
 * A Stream that runs once, outlives its readers and can be joined at any point.
 *
 * @since 0.1.0
 */
export * as ResumableStream from "./ResumableStream.js"

/**
 * One frame of an event stream: its model, a safe encoder, a decoder.
 *
 * @since 0.1.0
 */
export * as ServerSentEvent from "./ServerSentEvent.js"

/**
 * Port to the devices of each owner, and a store in memory.
 *
 * @since 0.1.0
 */
export * as SubscriptionStore from "./SubscriptionStore.js"

/**
 * A typed family of channels: a name pattern and the schemas of its events.
 *
 * @since 0.1.0
 */
export * as Topic from "./Topic.js"

/**
 * The key pair that identifies a server to push services: generate, check, read from config.
 *
 * @since 0.1.0
 */
export * as VapidKeys from "./VapidKeys.js"

/**
 * The sender of push messages: one message, many, or a stream of them.
 *
 * @since 0.1.0
 */
export * as WebPush from "./WebPush.js"

/**
 * The routes by which a page subscribes its device.
 *
 * @since 0.1.0
 */
export * as WebPushApi from "./WebPushApi.js"

/**
 * Port to the cryptography of push messages, and its implementation by Web Crypto.
 *
 * @since 0.1.0
 */
export * as WebPushCrypto from "./WebPushCrypto.js"

/**
 * The errors of `WebPush`.
 *
 * @since 0.1.0
 */
export * as WebPushError from "./WebPushError.js"

/**
 * The payload that the service worker receives: a notification, or a declarative one.
 *
 * @since 0.1.0
 */
export * as WebPushPayload from "./WebPushPayload.js"

/**
 * Schema of the result of `PushSubscription.toJSON()`.
 *
 * @since 0.1.0
 */
export * as WebPushSubscription from "./WebPushSubscription.js"
