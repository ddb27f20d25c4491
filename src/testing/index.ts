/**
 * Modules for tests: a client that behaves as a browser does, and as badly as a client can; a check for leaks; and a
 * push service for Web Push.
 *
 * @since 0.1.0
 */

/**
 * Check that fails a test if it leaks a fiber, a scope, a timer or a socket.
 *
 * @since 0.1.0
 */
export * as LeakCheck from "./LeakCheck.js"

/**
 * Client of an event stream, over a real socket.
 *
 * @since 0.1.0
 */
export * as TestEventSource from "./TestEventSource.js"

/**
 * Push service on this machine that checks and decrypts each message.
 *
 * @since 0.1.0
 */
export * as TestPushService from "./TestPushService.js"
