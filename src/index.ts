/**
 * Server-Sent Events and Web Push for Effect.
 *
 * @since 0.1.0
 */

/**
 * Many connections: publish, subscribe, resume, drain.
 *
 * @since 0.1.0
 */
export * as EventBroker from "./EventBroker.js"

/**
 * The port to the world beyond this process: append, read after a cursor, follow.
 *
 * @since 0.1.0
 */
export * as EventLog from "./EventLog.js"

/**
 * One connection: a bounded queue of frames, owned by a `Scope`.
 *
 * @since 0.1.0
 */
export * as EventStream from "./EventStream.js"

/**
 * Notifications that survive the process, and their storage.
 *
 * @since 0.1.0
 */
export * as NotificationOutbox from "./NotificationOutbox.js"

/**
 * The event to whoever has the page open, a push to the devices when nobody has.
 *
 * @since 0.1.0
 */
export * as Notifier from "./Notifier.js"

/**
 * One frame of an event stream: its model, a safe encoder, a decoder.
 *
 * @since 0.1.0
 */
export * as ServerSentEvent from "./ServerSentEvent.js"

/**
 * Who subscribed which device: the port, and a store in memory.
 *
 * @since 0.1.0
 */
export * as SubscriptionStore from "./SubscriptionStore.js"

/**
 * A typed channel: a name pattern and the schemas of its events.
 *
 * @since 0.1.0
 */
export * as Topic from "./Topic.js"

/**
 * The key pair that push services know a server by: generate, check, read from config.
 *
 * @since 0.1.0
 */
export * as VapidKeys from "./VapidKeys.js"

/**
 * The service that sends: one message, many, or a stream of them.
 *
 * @since 0.1.0
 */
export * as WebPush from "./WebPush.js"

/**
 * The routes that a page subscribes its device by.
 *
 * @since 0.1.0
 */
export * as WebPushApi from "./WebPushApi.js"

/**
 * The errors of `WebPush`.
 *
 * @since 0.1.0
 */
export * as WebPushError from "./WebPushError.js"

/**
 * What the service worker receives: a notification, or a declarative one.
 *
 * @since 0.1.0
 */
export * as WebPushPayload from "./WebPushPayload.js"

/**
 * What `PushSubscription.toJSON()` gives, as a Schema.
 *
 * @since 0.1.0
 */
export * as WebPushSubscription from "./WebPushSubscription.js"
