/**
 * Server-Sent Events and Web Push for Effect.
 *
 * @since 0.1.0
 */

/**
 * One connection: a bounded queue of frames, owned by a `Scope`.
 *
 * @since 0.1.0
 */
export * as EventStream from "./EventStream.js"

/**
 * One frame of an event stream: its model, a safe encoder, a decoder.
 *
 * @since 0.1.0
 */
export * as ServerSentEvent from "./ServerSentEvent.js"
