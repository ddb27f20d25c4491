/**
 * Chats of the AI SDK over resumable streams. The package `ai` must be installed for its types.
 *
 * @since 0.1.0
 */

/**
 * @since 0.1.0
 */
export * as ChatFetch from "./ChatFetch.js"

/**
 * @since 0.1.0
 */
export * as UIMessageStream from "./UIMessageStream.js"
