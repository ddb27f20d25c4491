/**
 * What a test of a stream needs: a client that behaves as a browser does (and as badly as one can), and a check that
 * nothing outlives the test.
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
