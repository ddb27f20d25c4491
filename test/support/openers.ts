import * as Noble from "./noble.js"
import { concat, encode, jwkOf, type Receiver, utf8 } from "./receiver.js"

/** Opens messages and verifies signatures, without code of the library. */
export interface Opener {
  readonly open: (body: Uint8Array, receiver: Receiver) => Promise<Uint8Array>
  readonly verify: (text: string, signature: Uint8Array, publicKey: Uint8Array) => Promise<boolean>
}

/** Returns the parts of an encrypted message (RFC 8188, 2.1), and the labels that derive its keys (RFC 8291, 3.4). */
export const parse = (body: Uint8Array, { publicKey }: Receiver) => {
  const senderKey = body.slice(21, 86)
  return {
    salt: body.slice(0, 16),
    senderKey,
    record: body.slice(86),
    info: concat(utf8("WebPush: info\0"), publicKey, senderKey),
    keyInfo: utf8("Content-Encoding: aes128gcm\0"),
    nonceInfo: utf8("Content-Encoding: nonce\0")
  }
}

export const unpad = (padded: Uint8Array): Uint8Array => padded.subarray(0, padded.lastIndexOf(2))

/** The openers that every runtime has. */
export const openers = {
  "Web Crypto": {
    open: async (body, receiver) => {
      const { info, keyInfo, nonceInfo, record, salt, senderKey } = parse(body, receiver)
      const { subtle } = crypto
      const ecdh = { name: "ECDH", namedCurve: "P-256" }
      const jwk = { ...jwkOf(receiver.publicKey), d: encode(receiver.privateKey) }
      const privateKey = await subtle.importKey("jwk", jwk, ecdh, false, ["deriveBits"])
      const sender = await subtle.importKey("raw", new Uint8Array(senderKey), ecdh, false, [])
      const hkdf = async (secret: ArrayBuffer, salt: Uint8Array, info: Uint8Array, length: number) => {
        const key = await subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"])
        const algorithm = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(salt), info: new Uint8Array(info) }
        return subtle.deriveBits(algorithm, key, length * 8)
      }
      const shared = await subtle.deriveBits({ name: "ECDH", public: sender }, privateKey, 256)
      const secret = await hkdf(shared, receiver.auth, info, 32)
      const key = await subtle.importKey("raw", await hkdf(secret, salt, keyInfo, 16), "AES-GCM", false, ["decrypt"])
      const iv = await hkdf(secret, salt, nonceInfo, 12)
      return unpad(new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv }, key, new Uint8Array(record))))
    },
    verify: async (text, signature, publicKey) => {
      const ecdsa = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" }
      const key = await crypto.subtle.importKey("raw", new Uint8Array(publicKey), ecdsa, false, ["verify"])
      return crypto.subtle.verify(ecdsa, key, new Uint8Array(signature), new TextEncoder().encode(text))
    }
  },
  "@noble": {
    open: async (body, receiver) => Noble.decrypt(body, receiver),
    verify: async (text, signature, publicKey) => Noble.isSigned(text, signature, publicKey)
  }
} satisfies Record<string, Opener>
