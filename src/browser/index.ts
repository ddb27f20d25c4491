/**
 * What runs in the browser: the client of an event stream, the subscription to Web Push, the service worker.
 *
 * @since 0.1.0
 */

/**
 * Typed events from a URL, over a connection that comes back and resumes.
 *
 * @since 0.1.0
 */
export * as EventSourceClient from "./EventSourceClient.js"

/**
 * Permission and subscription for Web Push.
 *
 * @since 0.1.0
 */
export * as PushClient from "./PushClient.js"

/**
 * What a service worker does with push messages.
 *
 * @since 0.1.0
 */
export * as ServiceWorker from "./ServiceWorker.js"
