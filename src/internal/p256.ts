/**
 * Public keys of the curve P-256 (FIPS 186-5), in arithmetic that every runtime has.
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
const b = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn

const toBigInt = (bytes: Uint8Array): bigint => BigInt(`0x${Encoding.encodeHex(bytes)}`)

/** Returns `true` if the bytes are an uncompressed point of the curve. */
export const isPoint = (bytes: Uint8Array): boolean => {
  if (bytes.length !== 65 || bytes[0] !== 4) return false
  const x = toBigInt(bytes.subarray(1, 33))
  const y = toBigInt(bytes.subarray(33))
  return x < p && y < p && (y * y - x * x * x + 3n * x - b) % p === 0n
}
