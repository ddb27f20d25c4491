import { createECDH, randomBytes } from "node:crypto"

import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"
import * as WebPushCrypto from "effect-realtime/WebPushCrypto"

// The public API must not allow to choose the key and the salt of a message.
import { encrypt as nodeEncrypt } from "../src/node/internal/aes128gcm.js"
import { encrypt as webEncrypt } from "../src/WebPushCrypto/internal/webCrypto.js"
import { verify } from "./support/noble.js"
import { openers } from "./support/openers.js"

const bytes = (text: string) => Buffer.from(text, "base64url")

/** The example of RFC 8291, appendix A. */
const example = {
  text: "When I grow up, I want to be a watermelon",
  keys: {
    p256dh: "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    auth: "BTBZMqHH6r4Tts7J_aSIgg"
  },
  receiverKey: bytes("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"),
  senderKey: bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"),
  senderPoint: bytes("BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8"),
  salt: bytes("DGv6ra1nlYgDCS1FRnbzlw"),
  message: bytes(
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A" +
      "_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
  )
}

/** The private key of the example in the form of Web Crypto. */
const senderPair = async (): Promise<CryptoKeyPair> => {
  const ecdh = { name: "ECDH", namedCurve: "P-256" }
  const point = {
    kty: "EC",
    crv: "P-256",
    x: example.senderPoint.toString("base64url", 1, 33),
    y: example.senderPoint.toString("base64url", 33)
  }
  const d = example.senderKey.toString("base64url")
  return {
    publicKey: await crypto.subtle.importKey("jwk", point, ecdh, true, []),
    privateKey: await crypto.subtle.importKey("jwk", { ...point, d }, ecdh, false, ["deriveBits"])
  }
}

const makeReceiver = () => {
  const ecdh = createECDH("prime256v1")
  const publicKey = ecdh.generateKeys()
  const privateKey = Buffer.concat([Buffer.alloc(32), ecdh.getPrivateKey()]).subarray(-32)
  const auth = randomBytes(16)
  const keys = { p256dh: publicKey.toString("base64url"), auth: auth.toString("base64url") }
  return { publicKey, privateKey, auth, keys }
}

/** The claims of the example of RFC 8292, section 2.4. */
const someClaims = {
  audience: "https://push.example.net",
  expiresAt: 1453523768000,
  subject: "mailto:push@example.com"
}

/** The parts of an Authorization header (RFC 8292, section 3). */
const parse = (authorization: string) => {
  const [, content = "", signature = "", key = ""] = /^vapid t=([^.]+\.[^.]+)\.([^.]+), k=(.+)$/.exec(authorization) ??
    []
  const [header, claims]: ReadonlyArray<unknown> = content.split(".").map((part) => JSON.parse(bytes(part).toString()))
  return { content, header, claims, key, signature: bytes(signature) }
}

const engines = {
  NodeWebPushCrypto: {
    layer: NodeWebPushCrypto.layer,
    encryptExample: async (): Promise<Uint8Array> =>
      nodeEncrypt(Buffer.from(example.text), example.keys, 0, example.senderKey, example.salt)
  },
  "NodeWebPushCrypto.layerWorkers": {
    layer: NodeWebPushCrypto.layerWorkers({ workers: 1 }),
    encryptExample: async (): Promise<Uint8Array> =>
      nodeEncrypt(Buffer.from(example.text), example.keys, 0, example.senderKey, example.salt)
  },
  WebPushCrypto: {
    layer: WebPushCrypto.layer,
    encryptExample: async (): Promise<Uint8Array> =>
      webEncrypt(Buffer.from(example.text), example.keys, 0, await senderPair(), new Uint8Array(example.salt))
  }
}

for (const [engine, { encryptExample, layer }] of Object.entries(engines)) {
  describe(engine, () => {
    it("reproduces the message of RFC 8291, appendix A, byte for byte", async () => {
      assert.strictEqual(
        Buffer.from(await encryptExample()).toString("base64url"),
        example.message.toString("base64url")
      )
    })

    for (const [opener, { open, verify }] of Object.entries(openers)) {
      it.effect(`encrypts messages that ${opener} opens, padded or not`, () =>
        Effect.gen(function*() {
          const { encrypt } = yield* WebPushCrypto.WebPushCrypto
          for (const length of [0, 1, 41, 3993]) {
            for (const padding of [0, 40, 3993]) {
              const receiver = makeReceiver()
              const message = randomBytes(length)
              const body = yield* encrypt(message, receiver.keys, padding)
              assert.strictEqual(body.length, 86 + Math.max(length, padding) + 1 + 16)
              assert.deepStrictEqual(yield* Effect.promise(() => open(body, receiver)), message)
            }
          }
        }).pipe(Effect.provide(layer)))

      it.effect(`signs tokens that ${opener} verifies`, () =>
        Effect.gen(function*() {
          const { signer } = yield* WebPushCrypto.WebPushCrypto
          const keys = yield* VapidKeys.generate
          const sign = yield* signer(keys)
          const { claims, content, header, key, signature } = parse(yield* sign(someClaims))
          assert.deepStrictEqual(header, { typ: "JWT", alg: "ES256" })
          assert.deepStrictEqual(claims, {
            aud: "https://push.example.net",
            exp: 1453523768,
            sub: "mailto:push@example.com"
          })
          assert.strictEqual(key, keys.publicKey)
          assert.strictEqual(signature.length, 64)
          assert.isTrue(yield* Effect.promise(() => verify(content, signature, bytes(key))))
          assert.isFalse(yield* Effect.promise(() => verify(`${content}x`, signature, bytes(key))))
        }).pipe(Effect.provide(layer)))
    }

    it.effect("never uses a key or a salt twice", () =>
      Effect.gen(function*() {
        const { encrypt } = yield* WebPushCrypto.WebPushCrypto
        const { keys } = makeReceiver()
        const bodies = yield* Effect.replicateEffect(encrypt(Buffer.from("hello"), keys, 0), 100)
        const parts = (start: number, end: number) =>
          new Set(bodies.map((body) => Buffer.from(body.subarray(start, end)).toString("hex"))).size
        assert.deepStrictEqual([parts(0, 16), parts(21, 86)], [100, 100])
      }).pipe(Effect.provide(layer)))

    it.effect("fails with InvalidSubscription for a key that is not on the curve, and does not show it", () =>
      Effect.gen(function*() {
        const { encrypt } = yield* WebPushCrypto.WebPushCrypto
        const { keys } = makeReceiver()
        const p256dh = Buffer.alloc(65, 4).toString("base64url")
        const error = yield* Effect.flip(encrypt(Buffer.from("CANARY"), { ...keys, p256dh }, 0))
        assert.strictEqual(error.reason, "InvalidSubscription")
        assert.isFalse(error.isRetryable)
        assert.notMatch(`${error.message}${error.stack}${JSON.stringify(error)}`, new RegExp(`CANARY|${p256dh}`))
      }).pipe(Effect.provide(layer)))

    it.live("sends messages that conform to the RFCs, with one token for 200 concurrent first sends", () =>
      Effect.gen(function*() {
        const service = yield* TestPushService.TestPushService
        const devices = yield* Effect.replicateEffect(service.subscribe(), 200)
        const { outcomes } = yield* WebPush.sendMany(devices, "hello", { padding: 100, concurrency: 200 })
        assert.strictEqual(outcomes.filter(({ result }) => result._tag === "Right").length, 200)
        const received = yield* service.received
        assert.deepStrictEqual(yield* service.violations, [])
        assert.deepStrictEqual(new Set(received.map(({ text }) => text)), new Set(["hello"]))
        // One token for all of them.
        assert.strictEqual(new Set(received.map(({ headers }) => headers.authorization)).size, 1)
      }).pipe(
        Effect.provide(
          Layer.unwrapEffect(
            Effect.map(VapidKeys.generate, (vapid) => WebPush.layerWith({ vapid, subject: "mailto:ops@example.com" }))
          ).pipe(Layer.provide(layer), Layer.provideMerge(TestPushService.layer))
        )
      ))
  })
}

for (const [opener, { open }] of Object.entries(openers)) {
  it(`${opener} opens the message of RFC 8291`, async () => {
    const receiver = {
      publicKey: bytes(example.keys.p256dh),
      privateKey: example.receiverKey,
      auth: bytes(example.keys.auth)
    }
    assert.strictEqual((await open(example.message, receiver)).toString(), example.text)
  })
}

// The verifier that the other tests apply to the library's tokens.
it("verifies the token of RFC 8292, section 2.4", () => {
  const token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9" +
    ".eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0" +
    ".i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA"
  const key = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
  assert.deepStrictEqual(verify(token, bytes(key)), {
    aud: "https://push.example.net",
    exp: 1453523768,
    sub: "mailto:push@example.com"
  })
})

it.effect("a private key of VapidKeys signs in each engine", () =>
  Effect.gen(function*() {
    // One scalar in 256 begins with a zero byte.
    const scalar = Buffer.from(randomBytes(32).fill(0, 0, 1))
    const keys = yield* VapidKeys.importPrivateKey(Redacted.make(scalar.toString("base64url")))
    for (const { layer } of Object.values(engines)) {
      const { signer } = yield* Effect.provide(WebPushCrypto.WebPushCrypto, layer)
      const { content, signature } = parse(yield* Effect.flatMap(signer(keys), (sign) => sign(someClaims)))
      for (const { verify } of Object.values(openers)) {
        assert.isTrue(yield* Effect.promise(() => verify(content, signature, bytes(keys.publicKey))))
      }
    }
  }))
