import nodeCrypto, { createECDH } from "node:crypto"

import { NodeWebPushCrypto } from "effect-realtime/node"
import { WebPushLibrary } from "effect-realtime/web-push"
import webPush from "web-push"

// The public API must not allow to choose the key and the salt of a message.
import { encrypt } from "../../src/node/internal/aes128gcm.js"
import type { Engine } from "./engineCases.js"
import * as Example from "./engineExample.js"
import { engines } from "./engines.js"
import { utf8 } from "./receiver.js"

const encryptExample = async (): Promise<Uint8Array> =>
  encrypt(utf8(Example.text), Example.keys, 0, Example.senderKey, Example.salt)

/**
 * Encrypts the example by `web-push`, which takes neither a key nor a salt: for this call, the `node:crypto` that the
 * package loads generates those of the example.
 */
const encryptExampleByLibrary = async (): Promise<Uint8Array> => {
  const ecdh = createECDH("prime256v1")
  const generateKeys = () => {
    ecdh.setPrivateKey(Example.senderKey)
    return ecdh.getPublicKey()
  }
  const original = { ...nodeCrypto }
  Object.assign(ecdh, { generateKeys })
  Object.assign(nodeCrypto, { createECDH: () => ecdh, randomBytes: () => Buffer.from(Example.salt) })
  try {
    return webPush.encrypt(Example.keys.p256dh, Example.keys.auth, Buffer.from(Example.text), "aes128gcm").cipherText
  } finally {
    Object.assign(nodeCrypto, { createECDH: original.createECDH, randomBytes: original.randomBytes })
  }
}

/** The engines of Node and of runtimes that are compatible with it. */
export const nodeEngines = {
  NodeWebPushCrypto: { layer: NodeWebPushCrypto.layer, encryptExample },
  "NodeWebPushCrypto.layerWorkers": { layer: NodeWebPushCrypto.layerWorkers({ workers: 1 }), encryptExample },
  WebPushLibrary: { layer: WebPushLibrary.layer, encryptExample: encryptExampleByLibrary },
  ...engines
} satisfies Record<string, Engine>
