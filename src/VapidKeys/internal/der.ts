/**
 * Private keys in DER (X.690): PKCS#8 (RFC 5208) and SEC1 (RFC 5915).
 */
import * as Encoding from "effect/Encoding"

const sequence = 0x30
const integer = 0x02
const octets = 0x04
const objectId = 0x06
const parameters = 0xa0

const ecPublicKey = "2a8648ce3d0201"
const prime256v1 = "2a8648ce3d030107"

interface Element {
  readonly tag: number
  readonly content: Uint8Array
}

/** Reads the elements of a content one after the other. Returns `undefined` if it is cut off. */
const elementsOf = (bytes: Uint8Array): ReadonlyArray<Element> | undefined => {
  const elements: Array<Element> = []
  for (let at = 0; at < bytes.length;) {
    const tag = bytes[at] ?? 0
    let length = bytes[at + 1] ?? 0x80
    let start = at + 2
    if (length >= 0x80) {
      // No key has a length of more than two bytes.
      const count = length - 0x80
      if (count < 1 || count > 2) return undefined
      length = 0
      for (let i = 0; i < count; i++) length = length * 256 + (bytes[start + i] ?? 0)
      start += count
    }
    if (start + length > bytes.length) return undefined
    elements.push({ tag, content: bytes.subarray(start, start + length) })
    at = start + length
  }
  return elements
}

const isNumber = (element: Element | undefined, value: number): boolean =>
  element?.tag === integer && element.content.length === 1 && element.content[0] === value

const isObject = (element: Element | undefined, id: string): boolean =>
  element?.tag === objectId && Encoding.encodeHex(element.content) === id

/** Returns the elements of the one element of the bytes, if that is a sequence. */
const sequenceIn = (bytes: Uint8Array): ReadonlyArray<Element> | undefined => {
  const [outer, ...rest] = elementsOf(bytes) ?? []
  return outer?.tag === sequence && rest.length === 0 ? elementsOf(outer.content) : undefined
}

const scalarOfSec1 = ([version, key, ...rest]: ReadonlyArray<Element>, isInPkcs8: boolean): Uint8Array | undefined => {
  if (!isNumber(version, 1) || key?.tag !== octets) return undefined
  const curve = rest.find(({ tag }) => tag === parameters)
  const isP256 = curve === undefined ? isInPkcs8 : isObject(elementsOf(curve.content)?.[0], prime256v1)
  return isP256 ? key.content : undefined
}

/** Returns `true` if the bytes begin as a key does: with a sequence, and in it a number, the version. */
export const isKey = (bytes: Uint8Array): boolean => bytes[0] === sequence && ((bytes[1] ?? 0) > 127 || bytes[2] === 2)

/** Returns the scalar of a private key of the curve P-256 in DER, or `undefined` if the bytes are not one. */
export const scalarOf = (bytes: Uint8Array): Uint8Array | undefined => {
  const outer = sequenceIn(bytes)
  if (outer === undefined) return undefined
  const [version, algorithm, key] = outer
  if (algorithm?.tag !== sequence) return scalarOfSec1(outer, false)
  // Version 1 has the public key behind the private one (RFC 5958).
  if (!isNumber(version, 0) && !isNumber(version, 1)) return undefined
  const [id, curve] = elementsOf(algorithm.content) ?? []
  const inner = key?.tag === octets && isObject(id, ecPublicKey) && isObject(curve, prime256v1)
    ? sequenceIn(key.content)
    : undefined
  return inner === undefined ? undefined : scalarOfSec1(inner, true)
}
