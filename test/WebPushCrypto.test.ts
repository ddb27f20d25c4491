import nodeCrypto, { createECDH, randomBytes } from "node:crypto"
import { inspect } from "node:util"

import { assert, describe, it, vi } from "@effect/vitest"
import { Cause, Effect, Exit, FastCheck as fc, Layer, Logger, LogLevel, Redacted, Stream, Tracer } from "effect"
import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPushLibrary from "effect-realtime/web-push/WebPushLibrary"
import * as WebPush from "effect-realtime/WebPush"
import * as WebPushCrypto from "effect-realtime/WebPushCrypto"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"
import webPush from "web-push"

// The public API must not allow to choose the key and the salt of a message.
import { encrypt as nodeEncrypt } from "../src/node/internal/aes128gcm.js"
import { encrypt as webEncrypt } from "../src/WebPushCrypto/internal/webCrypto.js"
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

/**
 * Encrypts the example by `web-push`, which takes neither a key nor a salt: for this call, the `node:crypto` that the
 * package loads generates those of the example.
 */
const encryptExampleByLibrary = async (): Promise<Uint8Array> => {
  const ecdh = createECDH("prime256v1")
  const generateKeys = vi.spyOn(ecdh, "generateKeys").mockImplementation(() => {
    ecdh.setPrivateKey(example.senderKey)
    return ecdh.getPublicKey("base64url")
  })
  vi.spyOn(nodeCrypto, "createECDH").mockReturnValue(ecdh)
  vi.spyOn(nodeCrypto, "randomBytes").mockImplementation(() => example.salt)
  try {
    const { auth, p256dh } = example.keys
    return webPush.encrypt(p256dh, auth, Buffer.from(example.text), "aes128gcm").cipherText
  } finally {
    assert.strictEqual(generateKeys.mock.calls.length, 1)
    vi.restoreAllMocks()
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

/** The token of RFC 8292, section 2.4, which has no private key: a signature differs each time, and is verified. */
const exampleToken = {
  claims: { audience: "https://push.example.net", expiresAt: 1453523768000, subject: "mailto:push@example.com" },
  content: "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9" +
    ".eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0",
  signature: bytes("i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA"),
  key: bytes("BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs")
}

/** The parts of an Authorization header (RFC 8292, section 3). */
const parse = (authorization: string) => {
  const [, content = "", signature = "", key = ""] = /^vapid t=([^.]+\.[^.]+)\.([^.]+), k=(.+)$/.exec(authorization) ??
    []
  return { content, signature: bytes(signature), key }
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
  WebPushLibrary: { layer: WebPushLibrary.layer, encryptExample: encryptExampleByLibrary },
  WebPushCrypto: {
    layer: WebPushCrypto.layer,
    encryptExample: async (): Promise<Uint8Array> =>
      webEncrypt(Buffer.from(example.text), example.keys, 0, await senderPair(), new Uint8Array(example.salt))
  }
}

const subject = "mailto:ops@example.com"

const layerOver = (
  layer: Layer.Layer<WebPushCrypto.WebPushCrypto>,
  vapid: VapidKeys.VapidKeys,
  options?: Partial<WebPush.Options>
) =>
  WebPush.layerWith({ vapid, subject, ...options }).pipe(
    Layer.provide(layer),
    Layer.provideMerge(TestPushService.layer)
  )

const validKeys = makeReceiver().keys
const point = bytes(validKeys.p256dh)
const invalidKeys: Record<string, Partial<WebPushSubscription["keys"]>> = {
  "a point that is not on the curve": { p256dh: Buffer.alloc(65, 4).toString("base64url") },
  "a compressed point": {
    p256dh: Buffer.concat([Buffer.from([2 + Number(point[64]) % 2]), point.subarray(1, 33)]).toString("base64url")
  },
  "a hybrid point": {
    p256dh: Buffer.concat([Buffer.from([6 + Number(point[64]) % 2]), point.subarray(1)]).toString("base64url")
  },
  "a truncated point": { p256dh: point.toString("base64url", 0, 64) },
  "no point": { p256dh: "" },
  "a short secret": { auth: randomBytes(15).toString("base64url") },
  "a long secret": { auth: randomBytes(17).toString("base64url") },
  "no secret": { auth: "" }
}

for (const [engine, { encryptExample, layer }] of Object.entries(engines)) {
  describe(engine, () => {
    const withEngine = Effect.provide(layer)

    it("reproduces the message of RFC 8291, appendix A, byte for byte", async () => {
      assert.strictEqual(
        Buffer.from(await encryptExample()).toString("base64url"),
        example.message.toString("base64url")
      )
    })

    it.effect(`encrypts messages that ${Object.keys(openers).join(", ")} open`, () =>
      Effect.gen(function*() {
        const { encrypt, supportsPadding } = yield* WebPushCrypto.WebPushCrypto
        const opens = async (message: Uint8Array, length: number) => {
          const padding = supportsPadding ? length : 0
          const receiver = makeReceiver()
          const body = await Effect.runPromise(encrypt(message, receiver.keys, padding))
          assert.strictEqual(body.length, 86 + Math.max(message.length, padding) + 1 + 16)
          for (const { open } of Object.values(openers)) {
            assert.deepStrictEqual(await open(body, receiver), Buffer.from(message))
          }
        }
        const property = fc.asyncProperty(
          fc.uint8Array({ maxLength: 3993, size: "max" }),
          fc.nat({ max: 3993 }),
          opens
        )
        const empty = new Uint8Array()
        yield* Effect.promise(() =>
          fc.assert(property, {
            numRuns: 10,
            examples: [[empty, 0], [empty, 3993], [randomBytes(1), 1], [randomBytes(41), 40], [randomBytes(3993), 0]]
          })
        )
      }).pipe(withEngine))

    it.effect(`signs the token of RFC 8292, section 2.4, and ${Object.keys(openers).join(", ")} verify it`, () =>
      Effect.gen(function*() {
        const { signer } = yield* WebPushCrypto.WebPushCrypto
        // One scalar in 256 begins with a zero byte.
        const scalar = Buffer.from(randomBytes(32).fill(0, 0, 1)).toString("base64url")
        for (const keys of [yield* VapidKeys.generate, yield* VapidKeys.importPrivateKey(scalar)]) {
          const sign = yield* signer(keys)
          const { content, key, signature } = parse(yield* sign(exampleToken.claims))
          assert.strictEqual(content, exampleToken.content)
          assert.strictEqual(key, keys.publicKey)
          assert.strictEqual(signature.length, 64)
          for (const { verify } of Object.values(openers)) {
            assert.isTrue(yield* Effect.promise(() => verify(content, signature, bytes(key))))
            assert.isFalse(yield* Effect.promise(() => verify(`${content}x`, signature, bytes(key))))
          }
        }
      }).pipe(withEngine))

    it.effect("generates key pairs that VapidKeys accepts as they are, and each engine signs with", () =>
      Effect.gen(function*() {
        const { generateKeys } = yield* WebPushCrypto.WebPushCrypto
        const [keys, others] = yield* Effect.all([generateKeys, generateKeys])
        assert.notStrictEqual(keys.publicKey, others.publicKey)
        assert.deepStrictEqual(yield* VapidKeys.check(keys), keys)
        for (const { layer } of Object.values(engines)) {
          const { signer } = yield* Effect.provide(WebPushCrypto.WebPushCrypto, layer)
          const authorization = yield* Effect.flatMap(signer(keys), (sign) => sign(exampleToken.claims))
          const { content, signature } = parse(authorization)
          assert.isTrue(
            yield* Effect.promise(() => openers["@noble"].verify(content, signature, bytes(keys.publicKey)))
          )
        }
        assert.notInclude(inspect(keys, { depth: 9, showHidden: true }), Redacted.value(keys.privateKey))
      }).pipe(withEngine))

    it.effect("never uses a key or a salt twice", () =>
      Effect.gen(function*() {
        const { encrypt } = yield* WebPushCrypto.WebPushCrypto
        const bodies = yield* Effect.replicateEffect(encrypt(Buffer.from("hello"), validKeys, 0), 100)
        const parts = (start: number, end: number) =>
          new Set(bodies.map((body) => Buffer.from(body.subarray(start, end)).toString("hex"))).size
        assert.deepStrictEqual([parts(0, 16), parts(21, 86)], [100, 100])
      }).pipe(withEngine))

    for (const [name, invalid] of Object.entries(invalidKeys)) {
      it.effect(`fails with InvalidSubscription for ${name}, and shows neither keys nor message`, () =>
        Effect.gen(function*() {
          const { encrypt } = yield* WebPushCrypto.WebPushCrypto
          const keys = { ...validKeys, ...invalid }
          const exit = yield* Effect.exit(encrypt(Buffer.from("CANARY"), keys, 0))
          const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
          assert.instanceOf(error, WebPushCrypto.WebPushCryptoError)
          assert.strictEqual(error.reason, "InvalidSubscription")
          assert.isFalse(error.isRetryable)
          const shown = inspect(exit, { depth: 9, showHidden: true }) + JSON.stringify(exit) + error.message +
            error.stack
          for (const secret of ["CANARY", keys.p256dh, keys.auth].filter((text) => text !== "")) {
            assert.notInclude(shown, secret)
          }
        }).pipe(withEngine))
    }

    it.live("sends messages that conform to the RFCs, with one token for 50 concurrent first sends", () =>
      Effect.gen(function*() {
        const { supportsPadding } = yield* Effect.provide(WebPushCrypto.WebPushCrypto, layer)
        const vapid = yield* VapidKeys.generate
        yield* Effect.gen(function*() {
          const service = yield* TestPushService.TestPushService
          const devices = yield* Effect.replicateEffect(
            service.subscribe({ applicationServerKey: vapid.publicKey }),
            50
          )
          const { outcomes } = yield* WebPush.sendMany(devices, "hello", {
            padding: supportsPadding ? 100 : 0,
            concurrency: 50
          })
          assert.strictEqual(outcomes.filter(({ result }) => result._tag === "Right").length, 50)
          const received = yield* service.received
          assert.deepStrictEqual(yield* service.violations, [])
          assert.deepStrictEqual(new Set(received.map(({ text }) => text)), new Set(["hello"]))
          // One token for all of them.
          assert.strictEqual(new Set(received.map(({ headers }) => headers.authorization)).size, 1)
          for (const vendor of ["mozilla", "apple", "wns"] as const) {
            yield* WebPush.send(yield* service.subscribe({ vendor }), "", { ttl: 0 })
          }
          assert.deepStrictEqual(yield* service.violations, [])
        }).pipe(Effect.provide(layerOver(layer, vapid)))
      }))

    it.live("shows no secret in an error, a log line or a span", () => {
      const shown: Array<unknown> = []
      const logger = Logger.make((options) => {
        shown.push(Logger.stringLogger.log(options), Logger.jsonLogger.log(options))
      })
      return Effect.gen(function*() {
        const native = yield* Effect.tracer
        const tracer = Tracer.make({
          context: native.context,
          span: (...args) => {
            const span = native.span(...args)
            shown.push(span)
            return span
          }
        })
        const vapid = yield* VapidKeys.generate
        const secrets = ["CANARY", Redacted.value(vapid.privateKey)]
        const show = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          Effect.exit(effect).pipe(
            Effect.tap((exit) => Effect.logError("the result", exit)),
            Effect.map((exit) => shown.push(exit, JSON.stringify(exit)))
          )
        yield* Effect.gen(function*() {
          const service = yield* TestPushService.TestPushService
          for (const invalid of [{}, ...Object.values(invalidKeys)]) {
            const { endpoint, keys } = yield* service.subscribe()
            const subscription = new WebPushSubscription(
              { endpoint, keys: { ...keys, ...invalid } },
              { disableValidation: true }
            )
            secrets.push(endpoint.slice(-24), subscription.keys.p256dh, subscription.keys.auth)
            yield* show(WebPush.send(subscription, "CANARY"))
            yield* show(Stream.runCollect(WebPush.broadcast(Stream.make(subscription), "CANARY")))
          }
          secrets.push(...(yield* service.received).map(({ headers }) => String(headers.authorization)))
          assert.strictEqual(secrets.length, 2 + 3 * 9 + 2)
        }).pipe(Effect.provide(layerOver(layer, vapid)), Effect.withTracer(tracer))
        const { signer } = yield* Effect.provide(WebPushCrypto.WebPushCrypto, layer)
        yield* show(Effect.flatMap(signer(vapid), (sign) => sign({ ...exampleToken.claims, expiresAt: Infinity })))
        const output = inspect(shown, { depth: 9, showHidden: true, maxArrayLength: null, maxStringLength: null })
        assert.include(output, "InvalidSubscription")
        assert.include(output, "WebPush.send")
        for (const secret of secrets.filter((text) => text !== "")) assert.notInclude(output, secret)
      }).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
        Logger.withMinimumLogLevel(LogLevel.All)
      )
    })
  })
}

for (const layer of [NodeWebPushCrypto.layer, WebPushLibrary.layer]) {
  it.effect("an engine that blocks the event loop encrypts eight messages in a turn of it", () =>
    Effect.gen(function*() {
      const { encrypt } = yield* WebPushCrypto.WebPushCrypto
      let turns = 0
      let immediate = setImmediate(function nextTurn() {
        turns++
        immediate = setImmediate(nextTurn)
      })
      yield* Effect.replicateEffect(encrypt(randomBytes(9), validKeys, 0), 80, { concurrency: "unbounded" })
      clearImmediate(immediate)
      assert.isAtLeast(turns, 8)
    }).pipe(Effect.provide(layer)))
}

for (const [opener, { open, verify }] of Object.entries(openers)) {
  it(`${opener} opens the message of RFC 8291, and verifies the token of RFC 8292`, async () => {
    const receiver = {
      publicKey: bytes(example.keys.p256dh),
      privateKey: example.receiverKey,
      auth: bytes(example.keys.auth)
    }
    assert.strictEqual((await open(example.message, receiver)).toString(), example.text)
    assert.isTrue(await verify(exampleToken.content, exampleToken.signature, exampleToken.key))
  })
}

describe("padding that web-push cannot give", () => {
  const died = "IllegalArgumentException: WebPush: padding is not supported by this layer of WebPushCrypto"
  const causeOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.map(Effect.exit(effect), (exit) => Exit.isFailure(exit) ? String(Cause.squash(exit.cause)) : "succeeded")

  it.live("is refused when the layer is built", () =>
    Effect.gen(function*() {
      const vapid = yield* VapidKeys.generate
      const build = (padding: number) =>
        causeOf(Effect.scoped(Layer.build(layerOver(WebPushLibrary.layer, vapid, { padding }))))
      assert.deepStrictEqual([yield* build(100), yield* build(0)], [died, "succeeded"])
    }))

  it.live("is refused for a call, before any message is sent", () =>
    Effect.gen(function*() {
      const vapid = yield* VapidKeys.generate
      yield* Effect.gen(function*() {
        const service = yield* TestPushService.TestPushService
        const device = yield* service.subscribe()
        assert.deepStrictEqual(
          [
            yield* causeOf(WebPush.send(device, "hello", { padding: 1 })),
            yield* causeOf(WebPush.sendMany([device], "hello", { padding: 1 })),
            yield* causeOf(Stream.runDrain(WebPush.broadcast(Stream.make(device), "hello", { padding: 1 }))),
            yield* causeOf(WebPush.send(device, "hello", { padding: 0 }))
          ],
          [died, died, died, "succeeded"]
        )
        assert.strictEqual((yield* service.received).length, 1)
      }).pipe(Effect.provide(layerOver(WebPushLibrary.layer, vapid)))
    }))

  it.effect("is refused by the port", () =>
    Effect.gen(function*() {
      const { encrypt } = yield* WebPushCrypto.WebPushCrypto
      assert.match(yield* causeOf(encrypt(new Uint8Array(), validKeys, 1)), /^IllegalArgumentException: WebPushLibrary/)
    }).pipe(Effect.provide(WebPushLibrary.layer)))
})
