import { p256 } from "@noble/curves/nist.js"
import { Either, Encoding } from "effect"

/** A device that receives messages. */
export interface Receiver {
  readonly publicKey: Uint8Array
  readonly privateKey: Uint8Array
  readonly auth: Uint8Array
}

interface Keys {
  readonly p256dh: string
  readonly auth: string
}

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

export const encode = (bytes: Uint8Array): string => Encoding.encodeBase64Url(bytes)

export const decode = (text: string): Uint8Array => Either.getOrThrow(Encoding.decodeBase64Url(text))

export const random = (length: number) => crypto.getRandomValues(new Uint8Array(length))

export const concat = (...parts: ReadonlyArray<Uint8Array>) => Uint8Array.from(parts.flatMap((part) => [...part]))

export const make = (): Receiver & { readonly keys: Keys } => {
  const privateKey = p256.utils.randomSecretKey()
  const publicKey = p256.getPublicKey(privateKey, false)
  const auth = random(16)
  return { publicKey, privateKey, auth, keys: { p256dh: encode(publicKey), auth: encode(auth) } }
}

/** Returns an uncompressed point as JSON Web Key. */
export const jwkOf = (point: Uint8Array) => ({
  kty: "EC",
  crv: "P-256",
  x: encode(point.subarray(1, 33)),
  y: encode(point.subarray(33))
})

/** Returns changes to keys that make them invalid. */
export const invalidKeysOf = (valid: Keys): Readonly<Record<string, Partial<Keys>>> => {
  const point = decode(valid.p256dh)
  const parity = Number(point[64]) % 2
  return {
    "a point that is not on the curve": { p256dh: encode(new Uint8Array(65).fill(4)) },
    "a compressed point": { p256dh: encode(concat(Uint8Array.of(2 + parity), point.subarray(1, 33))) },
    "a hybrid point": { p256dh: encode(concat(Uint8Array.of(6 + parity), point.subarray(1))) },
    "a truncated point": { p256dh: encode(point.subarray(0, 64)) },
    "no point": { p256dh: "" },
    "a short secret": { auth: encode(random(15)) },
    "a long secret": { auth: encode(random(17)) },
    "no secret": { auth: "" }
  }
}
