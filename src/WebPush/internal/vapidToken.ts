/**
 * VAPID tokens (RFC 8292): one signature for each origin and key pair, reused until shortly before it expires.
 */
import type { KeyObject } from "node:crypto"
import { createPrivateKey, sign } from "node:crypto"

import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Redacted from "effect/Redacted"

import type { VapidKeys } from "../../VapidKeys.js"

export const tokensSigned: Metric.Metric.Counter<number> = Metric.counter("web_push.vapid.tokens_signed", {
  description: "VAPID tokens signed",
  incremental: true
})

/** Parses the private key once, since parsing costs many times a signature. */
export const signingKey = ({ privateKey, publicKey }: VapidKeys): KeyObject => {
  const point = Buffer.from(publicKey, "base64url")
  return createPrivateKey({
    format: "jwk",
    key: {
      kty: "EC",
      crv: "P-256",
      x: point.toString("base64url", 1, 33),
      y: point.toString("base64url", 33, 65),
      d: Redacted.value(privateKey)
    }
  })
}

const jsonSegment = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url")

const jwtHeader = jsonSegment({ typ: "JWT", alg: "ES256" })

/** Signs a token. `exp` is in seconds since 1970. */
export const signToken = (
  key: KeyObject,
  claims: { readonly aud: string; readonly exp: number; readonly sub: string }
): string => {
  const content = `${jwtHeader}.${jsonSegment(claims)}`
  const signature = sign("sha256", Buffer.from(content), { key, dsaEncoding: "ieee-p1363" })
  return `${content}.${signature.toString("base64url")}`
}

const lifetime = Duration.toMillis("12 hours")
const reuse = Duration.toMillis("11 hours")
const maxTokens = 1024

/**
 * Returns a function from an origin to its Authorization header. Signs a token at the first use, and before it
 * expires.
 */
export const makeAuthorization = (keys: VapidKeys, subject: string) => {
  const key = signingKey(keys)
  const tokens = new Map<string, { readonly header: string; readonly signedAt: number }>()
  // Signing is synchronous, so two fibers never sign for one origin at the same time.
  return (origin: string): Effect.Effect<string> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const known = tokens.get(origin)
      // The clock may have been set back.
      if (known !== undefined && Math.abs(now - known.signedAt) < reuse) return Effect.succeed(known.header)
      const exp = Math.floor((now + lifetime) / 1000)
      const header = `vapid t=${signToken(key, { aud: origin, exp, sub: subject })}, k=${keys.publicKey}`
      tokens.delete(origin)
      // Subscribers choose the origin where a host is allowed by its suffix.
      for (const oldest of tokens.keys()) {
        if (tokens.size < maxTokens) break
        tokens.delete(oldest)
      }
      tokens.set(origin, { header, signedAt: now })
      return Effect.as(Metric.increment(tokensSigned), header)
    })
}
