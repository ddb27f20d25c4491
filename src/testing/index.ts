/**
 * Modules for tests: a client that behaves as a browser does, and as badly as a client can; a check for leaks; a push
 * service for Web Push; an event log with faults, and the promises of every log; and a clock.
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
 * Clock that a test moves at once, also while fibers run.
 *
 * @since 0.1.0
 */
export * as ManualClock from "./ManualClock.js"

/**
 * Log that fails when the test wants it, and the promises of every log and of a broker over it.
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
