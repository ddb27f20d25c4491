import { gcm } from "@noble/ciphers/aes.js"
import { p256 } from "@noble/curves/nist.js"
import { expand, extract } from "@noble/hashes/hkdf.js"
import { sha256 } from "@noble/hashes/sha2.js"

import { concat, decode, utf8 } from "./receiver.js"

/** Decrypts a message of RFC 8291, without code of the library. */
export const decrypt = (
  body: Uint8Array,
  receiver: { readonly privateKey: Uint8Array; readonly auth: Uint8Array }
): Uint8Array => {
  const salt = body.slice(0, 16)
  const senderKey = body.slice(21, 21 + (body[20] ?? 0))
  const receiverKey = p256.getPublicKey(receiver.privateKey, false)
  const secret = p256.getSharedSecret(receiver.privateKey, senderKey).slice(1)
  const info = concat(utf8("WebPush: info\0"), receiverKey, senderKey)
  const key = extract(sha256, expand(sha256, extract(sha256, secret, receiver.auth), info, 32), salt)
  const contentKey = expand(sha256, key, utf8("Content-Encoding: aes128gcm\0"), 16)
  const nonce = expand(sha256, key, utf8("Content-Encoding: nonce\0"), 12)
  const padded = gcm(contentKey, nonce).decrypt(body.slice(21 + senderKey.length))
  return padded.slice(0, padded.lastIndexOf(2))
}

/** Returns `true` if the text has this signature of ES256, without code of the library. */
export const isSigned = (text: string, signature: Uint8Array, publicKey: Uint8Array): boolean =>
  p256.verify(signature, utf8(text), publicKey, { lowS: false })

/** Verifies an ES256 token, and returns its claims. */
export const verify = (token: string, publicKey: Uint8Array): unknown => {
  const [header, claims, signature = ""] = token.split(".")
  if (!isSigned(`${header}.${claims}`, decode(signature), publicKey)) {
    throw new Error("the signature is wrong")
  }
  return JSON.parse(new TextDecoder().decode(decode(claims ?? "")))
}
