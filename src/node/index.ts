/**
 * The modules that require Node.
 *
 * @since 0.1.0
 */

/**
 * The sender of push messages over `node:crypto` and a guarded transport.
 *
 * @since 0.1.0
 */
export * as NodeWebPush from "./NodeWebPush.js"

/**
 * The cryptography of push messages by `node:crypto`.
 *
 * @since 0.1.0
 */
export * as NodeWebPushCrypto from "./NodeWebPushCrypto.js"

/**
 * The `HttpClient` for URLs that come from users.
 *
 * @since 0.1.0
 */
export * as PushHttpClient from "./PushHttpClient.js"
