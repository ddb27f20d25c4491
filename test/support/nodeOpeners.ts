import { createDecipheriv, createECDH, createPublicKey, hkdfSync, verify as verifySignature } from "node:crypto"
import { createRequire } from "node:module"

import { type Opener, openers, parse, unpad } from "./openers.js"
import { jwkOf } from "./receiver.js"

// Parts of the package `web-push`, which itself exports neither of the two operations.
const requireOfWebPush = createRequire(createRequire(import.meta.url).resolve("web-push"))
const ece: {
  readonly decrypt: (body: Buffer, params: object) => Buffer
} = requireOfWebPush("http_ece")
const jws: {
  readonly verify: (token: string, algorithm: "ES256", publicKey: string) => boolean
} = requireOfWebPush("jws")

const importPublicKey = (point: Uint8Array) => createPublicKey({ format: "jwk", key: jwkOf(point) })

/** The openers of Node and of runtimes that are compatible with it. */
export const nodeOpeners = {
  "node:crypto": {
    open: async (body, receiver) => {
      const { info, keyInfo, nonceInfo, record, salt, senderKey } = parse(body, receiver)
      const ecdh = createECDH("prime256v1")
      ecdh.setPrivateKey(receiver.privateKey)
      const secret = Buffer.from(hkdfSync("sha256", ecdh.computeSecret(senderKey), receiver.auth, info, 32))
      const derive = (info: Uint8Array, length: number) => Buffer.from(hkdfSync("sha256", secret, salt, info, length))
      const decipher = createDecipheriv("aes-128-gcm", derive(keyInfo, 16), derive(nonceInfo, 12))
      decipher.setAuthTag(record.subarray(-16))
      return unpad(Buffer.concat([decipher.update(record.subarray(0, -16)), decipher.final()]))
    },
    verify: async (text, signature, publicKey) =>
      verifySignature(
        "sha256",
        Buffer.from(text),
        { key: importPublicKey(publicKey), dsaEncoding: "ieee-p1363" },
        signature
      )
  },
  "web-push": {
    open: async (body, receiver) => {
      const ecdh = createECDH("prime256v1")
      ecdh.setPrivateKey(receiver.privateKey)
      return ece.decrypt(Buffer.from(body), {
        version: "aes128gcm",
        privateKey: ecdh,
        authSecret: Buffer.from(receiver.auth)
      })
    },
    verify: async (text, signature, publicKey) => {
      const token = `${text}.${Buffer.from(signature).toString("base64url")}`
      return jws.verify(token, "ES256", importPublicKey(publicKey).export({ format: "pem", type: "spki" }).toString())
    }
  },
  ...openers
} satisfies Record<string, Opener>
