/**
 * The cryptography of push messages by the package `web-push`, which must be installed.
 *
 * @since 0.1.0
 */

/**
 * @since 0.1.0
 */
export * as WebPushLibrary from "./WebPushLibrary.js"
