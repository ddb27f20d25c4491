/**
 * Modules for the browser: the client of an event stream, the subscription to Web Push, the service worker.
 *
 * @since 0.1.0
 */

/**
 * Typed events from a URL, over a connection that reconnects and resumes.
 *
 * @since 0.1.0
 */
export * as EventSourceClient from "./EventSourceClient.js"

/**
 * The error of an `EventSourceClient`.
 *
 * @since 0.1.0
 */
export * as EventSourceError from "./EventSourceError.js"

/**
 * Permission and subscription for Web Push.
 *
 * @since 0.1.0
 */
export * as PushClient from "./PushClient.js"

/**
 * Start, elements, result and stop of a `ResumableStream` of the server.
 *
 * @since 0.1.0
 */
export * as ResumableStreamClient from "./ResumableStreamClient.js"

/**
 * The handlers of a service worker for push messages.
 *
 * @since 0.1.0
 */
export * as ServiceWorker from "./ServiceWorker.js"
