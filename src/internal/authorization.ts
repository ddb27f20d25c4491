/**
 * The header `Authorization` of a push message (RFC 8292): a token and its public key.
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"

const jsonSegment = (value: object): string => Encoding.encodeBase64Url(JSON.stringify(value))

const jwtHeader = jsonSegment({ typ: "JWT", alg: "ES256" })

/** Returns a function from claims to the header, over a function that signs a text with ES256 (64 bytes, r and s). */
export const make =
  (publicKey: string, sign: (text: string) => Effect.Effect<Uint8Array>) =>
  ({ audience, expiresAt, subject }: {
    readonly audience: string
    readonly subject: string
    readonly expiresAt: number
  }): Effect.Effect<string> => {
    const content = `${jwtHeader}.${jsonSegment({ aud: audience, exp: Math.floor(expiresAt / 1000), sub: subject })}`
    return Effect.map(
      sign(content),
      (signature) => `vapid t=${content}.${Encoding.encodeBase64Url(signature)}, k=${publicKey}`
    )
  }
