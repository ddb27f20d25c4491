import { WebPushCrypto } from "effect-realtime"

// The public API must not allow to choose the key and the salt of a message.
import { encrypt } from "../../src/WebPushCrypto/internal/webCrypto.js"
import type { Engine } from "./engineCases.js"
import * as Example from "./engineExample.js"
import { utf8 } from "./receiver.js"

/** The engine that every runtime has. */
export const engines = {
  WebPushCrypto: {
    layer: WebPushCrypto.layer,
    encryptExample: async () =>
      encrypt(utf8(Example.text), Example.keys, 0, await Example.senderPair(), new Uint8Array(Example.salt))
  }
} satisfies Record<string, Engine>
