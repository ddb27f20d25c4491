/**
 * VAPID tokens (RFC 8292): one signature for each origin and key pair, reused until an hour before it expires.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"

import { pushTokensSigned } from "../../Metrics.js"
import type { VapidKeys } from "../../VapidKeys.js"
import type { WebPushCrypto } from "../../WebPushCrypto.js"

const lifetime = Duration.toMillis("12 hours")
const reuse = Duration.toMillis("11 hours")
const maxTokens = 1024

/**
 * Returns a function from an origin and the time to its Authorization header. Signs a token at the first use, and
 * before it expires.
 */
export const makeAuthorization = Effect.fnUntraced(
  function*(crypto: WebPushCrypto.Service, keys: VapidKeys, subject: string) {
    const sign = yield* crypto.signer(keys)
    const tokens = new Map<string, { readonly header: string; readonly signedAt: number }>()
    // Two fibers never sign for one origin at the same time.
    const { withPermits } = yield* Effect.makeSemaphore(1)
    const known = (origin: string, now: number): string | undefined => {
      const token = tokens.get(origin)
      // The clock may have been set back.
      return token !== undefined && Math.abs(now - token.signedAt) < reuse ? token.header : undefined
    }
    const signFor = Effect.fnUntraced(function*(origin: string) {
      const now = yield* Clock.currentTimeMillis
      const signed = known(origin, now)
      if (signed !== undefined) return signed
      const header = yield* sign({ audience: origin, subject, expiresAt: now + lifetime })
      tokens.delete(origin)
      // Subscribers choose the origin where a host is allowed by its suffix.
      for (const oldest of tokens.keys()) {
        if (tokens.size < maxTokens) break
        tokens.delete(oldest)
      }
      tokens.set(origin, { header, signedAt: now })
      yield* Metric.increment(pushTokensSigned)
      return header
    }, withPermits(1))
    return (origin: string, now: number): Effect.Effect<string> => {
      const header = known(origin, now)
      return header === undefined ? signFor(origin) : Effect.succeed(header)
    }
  }
)
