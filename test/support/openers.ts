import { createDecipheriv, createECDH, createPublicKey, hkdfSync, verify as verifySignature } from "node:crypto"
import { createRequire } from "node:module"

import * as Noble from "./noble.js"

/** A device that receives messages. */
export interface Receiver {
  readonly publicKey: Buffer
  readonly privateKey: Buffer
  readonly auth: Buffer
}

/** The parts of an encrypted message (RFC 8188, 2.1), and the labels that derive its keys (RFC 8291, 3.4). */
const parse = (body: Uint8Array, { publicKey }: Receiver) => {
  const bytes = Buffer.from(body)
  const senderKey = bytes.subarray(21, 86)
  return {
    salt: bytes.subarray(0, 16),
    senderKey,
    record: bytes.subarray(86),
    info: Buffer.concat([Buffer.from("WebPush: info\0"), publicKey, senderKey]),
    keyInfo: Buffer.from("Content-Encoding: aes128gcm\0"),
    nonceInfo: Buffer.from("Content-Encoding: nonce\0")
  }
}

const unpad = (padded: Buffer): Buffer => padded.subarray(0, padded.lastIndexOf(2))

const jwkOf = (publicKey: Buffer) => ({
  kty: "EC",
  crv: "P-256",
  x: publicKey.toString("base64url", 1, 33),
  y: publicKey.toString("base64url", 33)
})

// Parts of the package `web-push`, which itself exports neither of the two operations.
const requireOfWebPush = createRequire(createRequire(import.meta.url).resolve("web-push"))
const ece: {
  readonly decrypt: (body: Buffer, params: object) => Buffer
} = requireOfWebPush("http_ece")
const jws: {
  readonly verify: (token: string, algorithm: "ES256", publicKey: string) => boolean
} = requireOfWebPush("jws")

/** Openers of messages and verifiers of signatures, none of which uses code of the library. */
export const openers = {
  "node:crypto": {
    open: async (body: Uint8Array, receiver: Receiver): Promise<Buffer> => {
      const { info, keyInfo, nonceInfo, record, salt, senderKey } = parse(body, receiver)
      const ecdh = createECDH("prime256v1")
      ecdh.setPrivateKey(receiver.privateKey)
      const secret = Buffer.from(hkdfSync("sha256", ecdh.computeSecret(senderKey), receiver.auth, info, 32))
      const derive = (info: Buffer, length: number) => Buffer.from(hkdfSync("sha256", secret, salt, info, length))
      const decipher = createDecipheriv("aes-128-gcm", derive(keyInfo, 16), derive(nonceInfo, 12))
      decipher.setAuthTag(record.subarray(-16))
      return unpad(Buffer.concat([decipher.update(record.subarray(0, -16)), decipher.final()]))
    },
    verify: async (text: string, signature: Uint8Array, publicKey: Buffer): Promise<boolean> =>
      verifySignature(
        "sha256",
        Buffer.from(text),
        { key: createPublicKey({ format: "jwk", key: jwkOf(publicKey) }), dsaEncoding: "ieee-p1363" },
        signature
      )
  },
  "Web Crypto": {
    open: async (body: Uint8Array, receiver: Receiver): Promise<Buffer> => {
      const { info, keyInfo, nonceInfo, record, salt, senderKey } = parse(body, receiver)
      const { subtle } = crypto
      const ecdh = { name: "ECDH", namedCurve: "P-256" }
      const jwk = { ...jwkOf(receiver.publicKey), d: receiver.privateKey.toString("base64url") }
      const privateKey = await subtle.importKey("jwk", jwk, ecdh, false, ["deriveBits"])
      const sender = await subtle.importKey("raw", new Uint8Array(senderKey), ecdh, false, [])
      const hkdf = async (secret: ArrayBuffer, salt: Buffer, info: Buffer, length: number) => {
        const key = await subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"])
        const algorithm = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(salt), info: new Uint8Array(info) }
        return subtle.deriveBits(algorithm, key, length * 8)
      }
      const shared = await subtle.deriveBits({ name: "ECDH", public: sender }, privateKey, 256)
      const secret = await hkdf(shared, receiver.auth, info, 32)
      const key = await subtle.importKey("raw", await hkdf(secret, salt, keyInfo, 16), "AES-GCM", false, ["decrypt"])
      const iv = await hkdf(secret, salt, nonceInfo, 12)
      return unpad(Buffer.from(await subtle.decrypt({ name: "AES-GCM", iv }, key, new Uint8Array(record))))
    },
    verify: async (text: string, signature: Uint8Array, publicKey: Buffer): Promise<boolean> => {
      const ecdsa = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" }
      const key = await crypto.subtle.importKey("raw", new Uint8Array(publicKey), ecdsa, false, ["verify"])
      return crypto.subtle.verify(ecdsa, key, new Uint8Array(signature), new TextEncoder().encode(text))
    }
  },
  "web-push": {
    open: async (body: Uint8Array, receiver: Receiver): Promise<Buffer> => {
      const ecdh = createECDH("prime256v1")
      ecdh.setPrivateKey(receiver.privateKey)
      return ece.decrypt(Buffer.from(body), { version: "aes128gcm", privateKey: ecdh, authSecret: receiver.auth })
    },
    verify: async (text: string, signature: Uint8Array, publicKey: Buffer): Promise<boolean> => {
      const key = createPublicKey({ format: "jwk", key: jwkOf(publicKey) })
      const token = `${text}.${Buffer.from(signature).toString("base64url")}`
      return jws.verify(token, "ES256", key.export({ format: "pem", type: "spki" }).toString())
    }
  },
  "@noble": {
    open: async (body: Uint8Array, receiver: Receiver): Promise<Buffer> => Buffer.from(Noble.decrypt(body, receiver)),
    verify: async (text: string, signature: Uint8Array, publicKey: Buffer): Promise<boolean> =>
      Noble.isSigned(text, signature, publicKey)
  }
}
