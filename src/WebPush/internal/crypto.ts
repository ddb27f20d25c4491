import type { KeyObject } from "node:crypto"
import { createCipheriv, createECDH, createHmac, createPrivateKey, randomBytes, sign } from "node:crypto"

const recordSize = 4096

const hmac = (key: Uint8Array, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const mac = createHmac("sha256", key)
  for (const part of parts) mac.update(part)
  return mac.digest()
}

const webPushInfo = Buffer.from("WebPush: info\0")
const keyInfo = Buffer.from("Content-Encoding: aes128gcm\0\u0001")
const nonceInfo = Buffer.from("Content-Encoding: nonce\0\u0001")
const one = Buffer.from([1])

/**
 * One `aes128gcm` record (RFC 8291, RFC 8188) that holds at least `paddedBytes` of plaintext. Throws when the receiver's key is
 * not on the curve. `privateKey` and `salt` are given only by tests: each message must have its own.
 */
export const encrypt = (
  plaintext: Uint8Array,
  receiver: { readonly p256dh: string; readonly auth: string },
  paddedBytes: number,
  privateKey?: Uint8Array,
  salt: Uint8Array = randomBytes(16)
): Buffer => {
  const ecdh = createECDH("prime256v1")
  if (privateKey === undefined) ecdh.generateKeys()
  else ecdh.setPrivateKey(privateKey)
  const senderKey = ecdh.getPublicKey()
  const receiverKey = Buffer.from(receiver.p256dh, "base64url")
  const secret = hmac(Buffer.from(receiver.auth, "base64url"), ecdh.computeSecret(receiverKey))
  const pseudoRandomKey = hmac(salt, hmac(secret, webPushInfo, receiverKey, senderKey, one))
  const key = hmac(pseudoRandomKey, keyInfo).subarray(0, 16)
  const nonce = hmac(pseudoRandomKey, nonceInfo).subarray(0, 12)

  const header = Buffer.alloc(21)
  header.set(salt)
  header.writeUInt32BE(recordSize, 16)
  header[20] = senderKey.length
  const padding = Buffer.alloc(1 + Math.max(0, paddedBytes - plaintext.length))
  padding[0] = 2
  const cipher = createCipheriv("aes-128-gcm", key, nonce)
  return Buffer.concat([
    header,
    senderKey,
    cipher.update(plaintext),
    cipher.update(padding),
    cipher.final(),
    cipher.getAuthTag()
  ])
}

/** Parsed once and kept: parsing costs many times what signing does. */
export const signingKey = (keys: { readonly publicKey: string; readonly privateKey: string }): KeyObject => {
  const point = Buffer.from(keys.publicKey, "base64url")
  return createPrivateKey({
    format: "jwk",
    key: {
      kty: "EC",
      crv: "P-256",
      x: point.toString("base64url", 1, 33),
      y: point.toString("base64url", 33, 65),
      d: keys.privateKey
    }
  })
}

const jsonSegment = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url")

const jwtHeader = jsonSegment({ typ: "JWT", alg: "ES256" })

/** A VAPID token (RFC 8292); `exp` in seconds since 1970. */
export const signToken = (
  key: KeyObject,
  claims: { readonly aud: string; readonly exp: number; readonly sub: string }
): string => {
  const content = `${jwtHeader}.${jsonSegment(claims)}`
  const signature = sign("sha256", Buffer.from(content), { key, dsaEncoding: "ieee-p1363" })
  return `${content}.${signature.toString("base64url")}`
}
