/**
 * Server-Sent Events and Web Push for Effect.
 *
 * @since 0.1.0
 */

/**
 * One frame of an event stream: its model, a safe encoder, a decoder.
 *
 * @since 0.1.0
 */
export * as ServerSentEvent from "./ServerSentEvent.js"
