/**
 * What a test of a stream needs: a client that behaves as a browser does (and as badly as one can), a check that
 * nothing outlives the test, and for Web Push a push service.
 *
 * @since 0.1.0
 */

/**
 * @since 0.1.0
 */
export * as LeakCheck from "./LeakCheck.js"

/**
 * @since 0.1.0
 */
export * as TestEventSource from "./TestEventSource.js"

/**
 * @since 0.1.0
 */
export * as TestPushService from "./TestPushService.js"
