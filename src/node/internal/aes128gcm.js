// @ts-check
/**
 * Message encryption for Web Push (RFC 8291), with one record of the content coding `aes128gcm` (RFC 8188). The file is
 * JavaScript as `encryptionWorker.js` is, which imports it.
 */
import { Buffer } from "node:buffer"
import { createCipheriv, createECDH, createHmac, randomFillSync } from "node:crypto"

const recordSize = 4096

/** @type {(key: Uint8Array, ...parts: ReadonlyArray<Uint8Array>) => Buffer} */
const hmac = (key, ...parts) => {
  const mac = createHmac("sha256", key)
  for (const part of parts) mac.update(part)
  return mac.digest()
}

const webPushInfo = Buffer.from("WebPush: info\0")
const keyInfo = Buffer.from("Content-Encoding: aes128gcm\0\u0001")
const nonceInfo = Buffer.from("Content-Encoding: nonce\0\u0001")
const one = Buffer.from([1])

// Each message has a key pair of its own. The object is reused, since making one costs as much as the key pair.
const ecdh = createECDH("prime256v1")

// Node takes as long for 16 random bytes as for 4096.
const salts = Buffer.alloc(4096)
let nextSalt = salts.length

/** @returns {Uint8Array} */
const makeSalt = () => {
  if (nextSalt === salts.length) {
    randomFillSync(salts)
    nextSalt = 0
  }
  return salts.subarray(nextSalt, nextSalt += 16)
}

/**
 * Encrypts a message into one record that holds at least `paddedBytes` of plaintext. Throws if the receiver's keys
 * are invalid. Only tests pass `privateKey` and `salt`, since each message must have its own.
 *
 * @param {Uint8Array} plaintext
 * @param {{ readonly p256dh: string, readonly auth: string }} receiver
 * @param {number} paddedBytes
 * @param {Uint8Array} [privateKey]
 * @param {Uint8Array} [salt]
 * @returns {Buffer}
 */
export const encrypt = (plaintext, receiver, paddedBytes, privateKey, salt = makeSalt()) => {
  const receiverKey = Buffer.from(receiver.p256dh, "base64url")
  const auth = Buffer.from(receiver.auth, "base64url")
  // As `checkReceiver` of src/internal/p256.ts, which a worker cannot import.
  if (receiverKey.length !== 65 || receiverKey[0] !== 4 || auth.length !== 16) throw new RangeError("invalid keys")
  if (privateKey !== undefined) ecdh.setPrivateKey(privateKey)
  const senderKey = privateKey === undefined ? ecdh.generateKeys() : ecdh.getPublicKey()
  const secret = hmac(auth, ecdh.computeSecret(receiverKey))
  const pseudoRandomKey = hmac(salt, hmac(secret, webPushInfo, receiverKey, senderKey, one))
  const key = hmac(pseudoRandomKey, keyInfo).subarray(0, 16)
  const nonce = hmac(pseudoRandomKey, nonceInfo).subarray(0, 12)

  const header = Buffer.alloc(21)
  header.set(salt)
  header.writeUInt32BE(recordSize, 16)
  header[20] = senderKey.length
  const record = Buffer.alloc(1 + Math.max(paddedBytes, plaintext.length))
  record.set(plaintext)
  record[plaintext.length] = 2
  const cipher = createCipheriv("aes-128-gcm", key, nonce)
  return Buffer.concat([header, senderKey, cipher.update(record), cipher.final(), cipher.getAuthTag()])
}
