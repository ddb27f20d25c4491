/**
 * The modules that require Node.
 *
 * @since 0.1.0
 */

/**
 * @since 0.1.0
 */
export * as PushHttpClient from "./PushHttpClient.js"
