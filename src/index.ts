/**
 * Server-Sent Events and Web Push for Effect.
 *
 * @since 0.1.0
 */
export {}
