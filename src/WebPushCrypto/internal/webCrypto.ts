/**
 * Web Push over Web Crypto: message encryption (RFC 8291) with one record of the content coding `aes128gcm`
 * (RFC 8188), and the signature ES256.
 */
import * as Redacted from "effect/Redacted"

import * as P256 from "../../internal/p256.js"
import type { VapidKeys } from "../../VapidKeys.js"

const ecdh = { name: "ECDH", namedCurve: "P-256" }
const ecdsa = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" }

const recordSize = 4096
const keyLength = 65
const headerLength = 21 + keyLength

const textEncoder = new TextEncoder()

const utf8 = (text: string) => textEncoder.encode(text)

const webPushInfo = utf8("WebPush: info\0")
const keyInfo = utf8("Content-Encoding: aes128gcm\0")
const nonceInfo = utf8("Content-Encoding: nonce\0")

/** Decodes a key, which a schema has checked. Web Crypto requires a buffer that is not shared. */
const decode = (text: string) => new Uint8Array(P256.decode(text) ?? [])

const hkdf = async (secret: BufferSource, salt: BufferSource) => {
  const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"])
  return (info: BufferSource, length: number) =>
    crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt, info }, key, length * 8)
}

/**
 * Encrypts a message into one record that holds at least `paddedBytes` of plaintext. Rejects if the receiver's keys
 * are invalid. Only tests pass `sender` and `salt`, since each message must have its own.
 */
export const encrypt = async (
  plaintext: Uint8Array,
  receiver: { readonly p256dh: string; readonly auth: string },
  paddedBytes: number,
  sender?: CryptoKeyPair,
  salt = crypto.getRandomValues(new Uint8Array(16))
): Promise<Uint8Array> => {
  const receiverKey = decode(receiver.p256dh)
  const auth = decode(receiver.auth)
  P256.checkReceiver(receiverKey, auth)
  const { privateKey, publicKey } = sender ?? await crypto.subtle.generateKey(ecdh, false, ["deriveBits"])
  const [senderKey, shared] = await Promise.all([
    crypto.subtle.exportKey("raw", publicKey),
    crypto.subtle.importKey("raw", receiverKey, ecdh, false, [])
      .then((key) => crypto.subtle.deriveBits({ name: "ECDH", public: key }, privateKey, 256))
  ])
  const info = new Uint8Array(webPushInfo.length + 2 * keyLength)
  info.set(webPushInfo)
  info.set(receiverKey, webPushInfo.length)
  info.set(new Uint8Array(senderKey), webPushInfo.length + keyLength)
  const derive = await hkdf(await (await hkdf(shared, auth))(info, 32), salt)
  const [key, iv] = await Promise.all([
    derive(keyInfo, 16).then((key) => crypto.subtle.importKey("raw", key, "AES-GCM", false, ["encrypt"])),
    derive(nonceInfo, 12)
  ])
  const padded = new Uint8Array(Math.max(plaintext.length, paddedBytes) + 1)
  padded.set(plaintext)
  padded[plaintext.length] = 2
  const record = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, padded)

  const message = new Uint8Array(headerLength + record.byteLength)
  message.set(salt)
  new DataView(message.buffer).setUint32(16, recordSize)
  message[20] = keyLength
  message.set(new Uint8Array(senderKey), 21)
  message.set(new Uint8Array(record), headerLength)
  return message
}

/** Imports the private key of a pair, and returns a function that signs a text with it. */
export const signer = async ({ privateKey, publicKey }: VapidKeys) => {
  const jwk = P256.toJwk(publicKey, Redacted.value(privateKey))
  const key = await crypto.subtle.importKey("jwk", jwk, ecdsa, false, ["sign"])
  return async (text: string): Promise<Uint8Array> => new Uint8Array(await crypto.subtle.sign(ecdsa, key, utf8(text)))
}
