/**
 * Modules for tests: a client that behaves as a browser does, and as badly as a client can; a check for leaks; a push
 * service for Web Push; and the promises of an event log.
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
 * Promises of every `EventLog`, for the tests of a backend.
 *
 * @since 0.1.0
 */
export * as TestEventLog from "./TestEventLog.js"

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
