import { createECDH, createPrivateKey, generateKeyPairSync, randomBytes } from "node:crypto"
import { inspect } from "node:util"

import { assert, describe, it } from "@effect/vitest"
import { p256 } from "@noble/curves/nist.js"
import { Cause, Config, ConfigProvider, Effect, Either, Exit, Redacted } from "effect"
import * as VapidKeys from "effect-realtime/VapidKeys"

const flipped = (keys: VapidKeys.VapidKeys) => Effect.flip(VapidKeys.check(keys))

const privateKey = Config.redacted("VAPID_PRIVATE_KEY")
const publicKey = Config.string("VAPID_PUBLIC_KEY")

const withEnv = <A, E>(effect: Effect.Effect<A, E>, env: Record<string, string>) =>
  Effect.withConfigProvider(effect, ConfigProvider.fromMap(new Map(Object.entries(env))))

describe("VapidKeys", () => {
  it.effect("generates pairs that another implementation confirms", () =>
    Effect.gen(function*() {
      for (const { privateKey, publicKey } of yield* Effect.replicateEffect(VapidKeys.generate, 600)) {
        const scalar = Buffer.from(Redacted.value(privateKey), "base64url")
        // One scalar in 256 begins with a zero byte, which must be preserved.
        assert.strictEqual(scalar.length, 32)
        assert.strictEqual(Buffer.from(p256.getPublicKey(scalar, false)).toString("base64url"), publicKey)
      }
    }))

  it.effect("accepts both alphabets and padding, and returns canonical base64url", () =>
    Effect.gen(function*() {
      const keys = yield* VapidKeys.generate
      const padded = (text: string) => Buffer.from(text, "base64url").toString("base64")
      const checked = yield* VapidKeys.check({
        publicKey: padded(keys.publicKey),
        privateKey: Redacted.make(padded(Redacted.value(keys.privateKey)))
      })
      assert.strictEqual(checked.publicKey, keys.publicKey)
      assert.strictEqual(Redacted.value(checked.privateKey), Redacted.value(keys.privateKey))
    }))

  it.effect("fails with the key and the rule that it breaks", () =>
    Effect.gen(function*() {
      const keys = yield* VapidKeys.generate
      const other = yield* VapidKeys.generate
      const offCurve = Buffer.from(keys.publicKey, "base64url")
      offCurve[64] = (offCurve[64] ?? 0) ^ 1
      const compressed = p256.getPublicKey(Buffer.from(Redacted.value(keys.privateKey), "base64url"), true)
      const cases: ReadonlyArray<readonly [VapidKeys.VapidKeys, string]> = [
        [{ ...keys, publicKey: "not base64!" }, "publicKey is not base64url"],
        [{ ...keys, publicKey: keys.publicKey.replace(/^.{8}/, "$&\n") }, "publicKey is not base64url"],
        [{ ...keys, publicKey: Buffer.from(compressed).toString("base64url") }, "publicKey is not 65 bytes long"],
        [{ ...keys, publicKey: offCurve.toString("base64url") }, "publicKey is not a point on the curve P-256"],
        [{ ...keys, privateKey: Redacted.make("%") }, "privateKey is not base64url, PEM or a JWK"],
        [{ ...keys, privateKey: Redacted.make("AAAA") }, "privateKey is not 32 bytes long"],
        [
          { ...keys, privateKey: Redacted.make(Buffer.alloc(32).toString("base64url")) },
          "privateKey is not a scalar of the curve P-256"
        ],
        [{ ...keys, privateKey: other.privateKey }, "privateKey does not belong to the public key"]
      ]
      for (const [bad, message] of cases) {
        assert.strictEqual((yield* flipped(bad)).message, message)
      }
    }))

  /** The same private key in the formats of other programs. */
  const forms = (privateKey: Redacted.Redacted) => {
    const scalar = Buffer.from(Redacted.value(privateKey), "base64url")
    const ecdh = createECDH("prime256v1")
    ecdh.setPrivateKey(scalar)
    const point = ecdh.getPublicKey()
    const d = scalar.toString("base64url")
    const x = point.subarray(1, 33).toString("base64url")
    const y = point.subarray(33).toString("base64url")
    const key = createPrivateKey({ format: "jwk", key: { kty: "EC", crv: "P-256", d, x, y } })
    const pem = (type: "pkcs8" | "sec1") => key.export({ format: "pem", type }).toString()
    const der = (type: "pkcs8" | "sec1") => key.export({ format: "der", type })
    const parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    const texts = {
      "PKCS#8 PEM": pem("pkcs8"),
      "SEC1 PEM": pem("sec1"),
      "PEM after EC PARAMETERS, as openssl ecparam writes it": parameters + pem("sec1"),
      "PEM with CRLF and blank lines around it": `\r\n${pem("pkcs8").replaceAll("\n", "\r\n")}\r\n`,
      "PEM in one line of an .env file": pem("pkcs8").replaceAll("\n", "\\n"),
      "PKCS#8 DER in base64url, as pywebpush writes it": der("pkcs8").toString("base64url"),
      "SEC1 DER in base64, in lines of 64": der("sec1").toString("base64").replace(/.{64}/g, "$&\n"),
      "JWK": JSON.stringify({ kty: "EC", crv: "P-256", d, x, y, ext: true, key_ops: ["sign"] }),
      "JWK without a public part": ` ${JSON.stringify({ kty: "EC", crv: "P-256", d })}\n`,
      "raw": d,
      "raw, padded base64": scalar.toString("base64"),
      "raw, after a trailing newline": `${d}\n`,
      "raw, between spaces and a byte order mark": `\ufeff ${d}\r\n`,
      "33 bytes": Buffer.concat([Buffer.alloc(1), scalar]).toString("base64url")
    }
    const bytes = {
      "PKCS#8 DER": der("pkcs8"),
      "SEC1 DER": der("sec1"),
      "the bytes of a PEM file": Buffer.from(pem("pkcs8")),
      "the bytes of a text file": Buffer.from(`${d}\n`),
      "the bytes of the scalar": Uint8Array.from(scalar)
    }
    return { bytes, texts, jwk: { kty: "EC", crv: "P-256", d, x, y } }
  }

  it.effect("imports a private key in the formats of other programs, and derives the public key", () =>
    Effect.gen(function*() {
      const keys = yield* VapidKeys.generate
      const { bytes, jwk, texts } = forms(keys.privateKey)
      const inputs = [
        ...Object.entries<string | Uint8Array>(texts),
        ...Object.entries<string | Uint8Array>(bytes),
        ...Object.entries(texts).map(([name, text]) => [`redacted ${name}`, Redacted.make(text)] as const),
        ["a JsonWebKey", jwk] as const
      ]
      for (const [name, input] of inputs) {
        const imported = yield* VapidKeys.importPrivateKey(input)
        assert.strictEqual(imported.publicKey, keys.publicKey, name)
        assert.strictEqual(Redacted.value(imported.privateKey), Redacted.value(keys.privateKey), name)
      }
      for (const [name, text] of Object.entries(texts)) {
        const checked = yield* VapidKeys.check({
          publicKey: `${keys.publicKey}\n`,
          privateKey: Redacted.make(text)
        })
        assert.strictEqual(checked.publicKey, keys.publicKey, name)
        assert.strictEqual(Redacted.value(checked.privateKey), Redacted.value(keys.privateKey), name)
        const read = yield* withEnv(VapidKeys.config({ privateKey }), { VAPID_PRIVATE_KEY: text })
        assert.strictEqual(read.publicKey, keys.publicKey, name)
      }
    }))

  it.effect("fromPem reads PKCS#8 and SEC1, and no other text", () =>
    Effect.gen(function*() {
      const keys = yield* VapidKeys.generate
      const { texts } = forms(keys.privateKey)
      for (const [name, text] of Object.entries(texts)) {
        const read = yield* Effect.either(VapidKeys.fromPem(Redacted.make(text)))
        if (name.includes("PEM")) {
          assert.strictEqual(Either.getOrThrow(read).publicKey, keys.publicKey, name)
        } else {
          assert.strictEqual(Either.isLeft(read) && read.left.reason, "WrongPem", name)
        }
      }
    }))

  it.effect("derives the public key as another implementation does, at the bounds of the scalar too", () =>
    Effect.gen(function*() {
      const { n } = p256.Point.CURVE()
      const random = Array.from({ length: 100 }, () => BigInt(`0x${randomBytes(31).toString("hex")}`) + 1n)
      for (const value of [1n, 2n, 3n, n - 2n, n - 1n, ...random]) {
        const scalar = Buffer.from(value.toString(16).padStart(64, "0"), "hex")
        const { publicKey } = yield* VapidKeys.importPrivateKey(Redacted.make(scalar.toString("base64url")))
        assert.strictEqual(publicKey, Buffer.from(p256.getPublicKey(scalar, false)).toString("base64url"))
      }
      const order = yield* Effect.flip(VapidKeys.importPrivateKey(Buffer.from(n.toString(16), "hex")))
      assert.strictEqual(order.reason, "NotAScalar")
    }))

  it.effect("accepts a scalar without its leading zeros, and one with an additional zero", () =>
    Effect.gen(function*() {
      for (const zeros of [1, 2]) {
        const scalar = Buffer.from(p256.utils.randomSecretKey()).fill(0, 0, zeros)
        const publicKey = Buffer.from(p256.getPublicKey(scalar, false)).toString("base64url")
        for (const form of [scalar.subarray(zeros), scalar, Buffer.concat([Buffer.alloc(2), scalar])]) {
          const imported = yield* VapidKeys.importPrivateKey(form.toString("base64url"))
          assert.strictEqual(imported.publicKey, publicKey)
          assert.strictEqual(Redacted.value(imported.privateKey), scalar.toString("base64url"))
          const jwk = { kty: "EC", crv: "P-256", d: form.toString("base64url") }
          for (const other of [Uint8Array.from(form), jwk]) {
            assert.deepStrictEqual(yield* VapidKeys.importPrivateKey(other), imported)
          }
        }
      }
    }))

  it.effect("fails with the rule that a private key breaks, and without the key", () =>
    Effect.gen(function*() {
      const { privateKey } = generateKeyPairSync("ec", { namedCurve: "secp384r1" })
      const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
      const pair = generateKeyPairSync("ec", { namedCurve: "prime256v1" })
      const keys = yield* VapidKeys.generate
      const other = yield* VapidKeys.generate
      const { jwk } = forms(keys.privateKey)
      const foreign = forms(other.privateKey).jwk
      const pem = pair.privateKey.export({ format: "pem", type: "pkcs8" }).toString()
      const encrypted = pair.privateKey.export({ format: "pem", type: "pkcs8", cipher: "aes-256-cbc", passphrase: "x" })
      const legacy = pair.privateKey.export({ format: "pem", type: "sec1", cipher: "aes-256-cbc", passphrase: "x" })
      const notPem = "is not PEM of a PRIVATE KEY or an EC PRIVATE KEY"
      const isEncrypted = "is encrypted: only a key without a passphrase can be read"
      const cases: ReadonlyArray<readonly [input: string | Uint8Array | object, reason: string]> = [
        [privateKey.export({ format: "pem", type: "pkcs8" }).toString(), "is not a private key of the curve P-256"],
        [privateKey.export({ format: "der", type: "sec1" }), "is not a private key of the curve P-256"],
        [rsa.privateKey.export({ format: "pem", type: "pkcs8" }).toString(), "is not a private key of the curve P-256"],
        [pair.publicKey.export({ format: "pem", type: "spki" }).toString(), notPem],
        [encrypted.toString(), isEncrypted],
        [legacy.toString(), isEncrypted],
        [pem.slice(0, -60), notPem],
        [pem.replace("MIGH", "MIG"), "is not a private key of the curve P-256"],
        ["-----BEGIN PRIVATE KEY-----", notPem],
        [pem.replaceAll("PRIVATE KEY", "CERTIFICATE"), notPem],
        ["{\"kty\":", "is not a private key of the curve P-256"],
        [{ ...jwk, crv: "P-384" }, "is not a private key of the curve P-256"],
        [{ ...jwk, kty: "oct" }, "is not a private key of the curve P-256"],
        [{ kty: "EC", crv: "P-256" }, "is not a private key of the curve P-256"],
        [{ ...jwk, x: foreign.x, y: foreign.y }, "is not a private key of the curve P-256"],
        [jwk.d.slice(0, 36), "is not 32 bytes long"],
        [Buffer.alloc(33, 1).toString("base64url"), "is not 32 bytes long"],
        ["", "is not 32 bytes long"],
        [new Uint8Array(32), "is not a scalar of the curve P-256"],
        [new Uint8Array(32).fill(255), "is not a scalar of the curve P-256"],
        ["%%%", "is not base64url, PEM or a JWK"]
      ]
      for (const [input, reason] of cases) {
        const error = yield* Effect.flip(VapidKeys.importPrivateKey(input))
        assert.strictEqual(error.message, `privateKey ${reason}`, inspect(input))
        assert.isFalse(error.isRetryable)
        const shown = inspect(error, { depth: 9 }) + JSON.stringify(error) + error.stack
        const secret = typeof input === "string" && input.length > 40 ? input.slice(30, 60) : jwk.d
        assert.notInclude(shown, secret)
      }
    }))

  it.effect("reads a pair from Config, and does not show it", () =>
    Effect.gen(function*() {
      const keys = yield* VapidKeys.generate
      const secret = Redacted.value(keys.privateKey)
      const env = { VAPID_PUBLIC_KEY: keys.publicKey, VAPID_PRIVATE_KEY: secret }
      const read = yield* withEnv(VapidKeys.config({ publicKey, privateKey }), env)
      assert.strictEqual(read.publicKey, keys.publicKey)
      assert.notInclude(inspect(read, { depth: 9 }) + JSON.stringify(read), secret)
    }))

  it.effect("fails with the path of the config and the rule that the key breaks, and without the key", () =>
    Effect.gen(function*() {
      const keys = yield* VapidKeys.generate
      const secret = Redacted.value(keys.privateKey)
      const other = yield* VapidKeys.generate
      const env = { VAPID_PUBLIC_KEY: keys.publicKey, VAPID_PRIVATE_KEY: secret }
      const pair = VapidKeys.config({ publicKey, privateKey })
      const pem = VapidKeys.config({
        privateKey: Config.string("PEM").pipe(Config.map(Redacted.make), Config.withDescription("a key"))
      })
      const wrong = [
        [pair, { VAPID_PUBLIC_KEY: "%" }, "VAPID_PUBLIC_KEY", "publicKey is not base64url"],
        [pair, { VAPID_PRIVATE_KEY: `%${secret}` }, "VAPID_PRIVATE_KEY", "privateKey is not base64url, PEM or a JWK"],
        [
          pair,
          { VAPID_PUBLIC_KEY: other.publicKey },
          "VAPID_PRIVATE_KEY",
          "privateKey does not belong to the public key"
        ],
        [pem, { PEM: secret.slice(1, 31) }, "PEM", "privateKey is not 32 bytes long"]
      ] as const
      for (const [config, variables, path, rule] of wrong) {
        for (const prefix of ["", "PUSH"]) {
          const nested = prefix === "" ? config : Config.nested(config, prefix)
          const named = Object.entries<string>({ ...env, ...variables }).map(([name, value]) =>
            [prefix === "" ? name : `${prefix}.${name}`, value] as const
          )
          const exit = yield* Effect.exit(withEnv(nested, Object.fromEntries(named)))
          assert(Exit.isFailure(exit))
          const message = prefix === "" ? path : `${prefix}.${path}`
          assert.strictEqual(Cause.pretty(exit.cause), `Error: (Invalid data at ${message}: "${rule}")`)
          assert.notInclude(inspect(exit, { depth: 9 }), secret.slice(1, 31))
        }
      }
    }))
})
