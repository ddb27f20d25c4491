/**
 * The curve P-256 (FIPS 186-5), in arithmetic that every runtime has.
 */
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"

/** Decodes a key in base64url or base64, padded or not. Returns `undefined` for any other text. */
export const decode = (text: string): Uint8Array | undefined => {
  const unpadded = text.replace(/={1,2}$/, "")
  // `Encoding` would skip line breaks.
  return /^[\w+/-]*$/.test(unpadded)
    ? Either.getOrUndefined(Encoding.decodeBase64Url(unpadded.replaceAll("+", "-").replaceAll("/", "_")))
    : undefined
}

const p = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn
const a = -3n
const b = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn
const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

const toBigInt = (bytes: Uint8Array): bigint => BigInt(`0x${Encoding.encodeHex(bytes)}`)

/** Returns `true` if the bytes are an uncompressed point of the curve. */
export const isPoint = (bytes: Uint8Array): boolean => {
  if (bytes.length !== 65 || bytes[0] !== 4) return false
  const x = toBigInt(bytes.subarray(1, 33))
  const y = toBigInt(bytes.subarray(33))
  return x < p && y < p && (y * y - x * x * x - a * x - b) % p === 0n
}

/**
 * Throws if the keys of a subscription do not have the form of RFC 8291: an uncompressed point, a secret of 16 bytes.
 * Libraries also read compressed and hybrid points, and no browser decrypts what is encrypted for these.
 */
export const checkReceiver = (p256dh: Uint8Array, auth: Uint8Array): void => {
  if (p256dh.length !== 65 || p256dh[0] !== 4 || auth.length !== 16) throw new RangeError("invalid receiver keys")
}

/** Returns a key pair as JSON Web Key (RFC 7518, section 6.2). Both keys are in base64url. */
export const toJwk = (publicKey: string, privateKey: string) => {
  const point = decode(publicKey) ?? new Uint8Array()
  return {
    kty: "EC",
    crv: "P-256",
    x: Encoding.encodeBase64Url(point.subarray(1, 33)),
    y: Encoding.encodeBase64Url(point.subarray(33)),
    d: privateKey
  }
}

/** A point in projective coordinates: x is X/Z and y is Y/Z. */
type Point = readonly [X: bigint, Y: bigint, Z: bigint]

const infinity: Point = [0n, 1n, 0n]

const generator: Point = [
  0x6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296n,
  0x4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5n,
  1n
]

/** Adds two points, also equal ones (Renes, Costello and Batina, "Complete addition formulas", 2015). */
const add = ([X1, Y1, Z1]: Point, [X2, Y2, Z2]: Point): Point => {
  const xx = X1 * X2 % p
  const yy = Y1 * Y2 % p
  const zz = Z1 * Z2 % p
  const xy = (X1 * Y2 + X2 * Y1) % p
  const xz = (X1 * Z2 + X2 * Z1) % p
  const yz = (Y1 * Z2 + Y2 * Z1) % p
  const slope = 3n * xx + a * zz
  const mixed = (a * xx + 3n * b * xz - a * a * zz) % p
  const offset = (a * xz + 3n * b * zz) % p
  return [
    (xy * (yy - offset) - yz * mixed) % p,
    ((yy + offset) * (yy - offset) + slope * mixed) % p,
    (yz * (yy + offset) + xy * slope) % p
  ]
}

const inverse = (value: bigint): bigint => {
  let result = 1n
  let power = value
  for (let exponent = p - 2n; exponent > 0n; exponent >>= 1n) {
    if ((exponent & 1n) === 1n) result = result * power % p
    power = power * power % p
  }
  return result
}

const coordinate = (value: bigint): string => (((value % p) + p) % p).toString(16).padStart(64, "0")

/**
 * Returns the uncompressed public point of a private scalar of 32 bytes, or `undefined` if that is not a scalar of the
 * curve. Takes some milliseconds, and a time that depends on the scalar: only the keys of the configuration are
 * derived here, when the process starts.
 */
export const publicPoint = (scalar: Uint8Array): Uint8Array | undefined => {
  const d = toBigInt(scalar)
  if (d === 0n || d >= n) return undefined
  let [low, high] = [infinity, generator]
  for (let bit = 255n; bit >= 0n; bit--) {
    const sum = add(low, high)
    ;[low, high] = (d >> bit & 1n) === 1n ? [sum, add(high, high)] : [add(low, low), sum]
  }
  const [X, Y, Z] = low
  const scale = inverse(Z)
  return Either.getOrThrow(Encoding.decodeHex(`04${coordinate(X * scale)}${coordinate(Y * scale)}`))
}
