import { inspect } from "node:util"

import { assert, describe, it } from "@effect/vitest"
import { p256 } from "@noble/curves/nist.js"
import { Cause, Effect, Exit, FastCheck as fc, ParseResult, Schema } from "effect"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"

const decode = Schema.decodeUnknown(WebPushSubscription)
const encode = Schema.encode(WebPushSubscription)

const p256dh = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
const auth = "BTBZMqHH6r4Tts7J_aSIgg"
const endpoint = "https://wns2-par02p.notify.windows.com/w/?token=BQYAAAD%2fx%2BvA%3d%3d"
const json = { endpoint, expirationTime: null, keys: { p256dh, auth } }

const messages = (input: unknown) =>
  Effect.map(
    Effect.flip(decode(input)),
    (error) =>
      ParseResult.ArrayFormatter.formatErrorSync(error).map(({ message, path }) => `${path.join(".")}: ${message}`)
  )

describe("WebPushSubscription", () => {
  it.effect.prop(
    "encodes the output of toJSON() unchanged",
    {
      token: fc.stringMatching(/^[\x21\x23-\x7e]{0,1900}$/),
      expirationTime: fc.oneof(
        fc.constant({}),
        fc.constant({ expirationTime: null }),
        fc.record({ expirationTime: fc.double({ noNaN: true, noDefaultInfinity: true }) })
      ),
      scalar: fc.uint8Array({ minLength: 32, maxLength: 32 }).filter(p256.utils.isValidSecretKey),
      secret: fc.uint8Array({ minLength: 16, maxLength: 16 })
    },
    ({ expirationTime, scalar, secret, token }) =>
      Effect.gen(function*() {
        const input = {
          endpoint: `https://fcm.googleapis.com/fcm/send/${token}`,
          ...expirationTime,
          keys: {
            p256dh: Buffer.from(p256.getPublicKey(scalar, false)).toString("base64url"),
            auth: Buffer.from(secret).toString("base64url")
          }
        }
        assert.deepStrictEqual(yield* Effect.flatMap(decode(input), encode), input)
        const padded = {
          ...input,
          keys: {
            p256dh: Buffer.from(input.keys.p256dh, "base64url").toString("base64"),
            auth: Buffer.from(secret).toString("base64")
          },
          unknown: "member"
        }
        assert.deepStrictEqual(yield* Effect.flatMap(decode(padded), encode), input)
      }),
    { fastCheck: { numRuns: 50 }, timeout: 60_000 }
  )

  it.effect("renames expirationTime, and preserves an endpoint of 4,096 characters byte for byte", () =>
    Effect.gen(function*() {
      const long = `${endpoint}${"%2f".repeat(1337)}`.slice(0, 4096)
      const subscription = yield* decode({ ...json, endpoint: long, expirationTime: 1_700_000_000_000 })
      assert.strictEqual(subscription.expiresAt, 1_700_000_000_000)
      assert.strictEqual(subscription.endpoint, long)
    }))

  it.effect("preserves the applicationServerKey", () =>
    Effect.gen(function*() {
      const subscription = yield* decode({ ...json, applicationServerKey: p256dh })
      assert.strictEqual(subscription.applicationServerKey, p256dh)
      assert.deepStrictEqual(yield* encode(subscription), { ...json, applicationServerKey: p256dh })
    }))

  it.effect("refuses a device that cannot decrypt RFC 8291, with a message", () =>
    Effect.gen(function*() {
      for (const member of ["contentEncoding", "supportedContentEncodings"]) {
        for (const refused of ["aesgcm", "aesgcm128", "", ["aesgcm"], [], 7, { aes128gcm: true }]) {
          assert.deepStrictEqual(yield* messages({ ...json, [member]: refused }), [
            `${member}: must be or contain aes128gcm: no other encoding is sent (RFC 8291)`
          ])
        }
        for (const taken of ["aes128gcm", ["aesgcm", "aes128gcm"], ["aes128gcm"], null, undefined]) {
          assert.deepStrictEqual(yield* Effect.flatMap(decode({ ...json, [member]: taken }), encode), json)
        }
      }
    }))

  it.effect("fails with the member and the rule that it breaks", () =>
    Effect.gen(function*() {
      const point = "must be a point on the curve P-256: 65 bytes, uncompressed, in base64url"
      const sixteen = "must be 16 bytes in base64url"
      const url = "must be an absolute https URL of at most 4,096 printable ASCII characters"
      const offCurve = Buffer.from(p256dh, "base64url")
      offCurve[1] = (offCurve[1] ?? 0) ^ 1
      const cases: ReadonlyArray<readonly [unknown, string]> = [
        ["text", ": must be a push subscription"],
        [null, ": must be a push subscription"],
        [{ ...json, endpoint: "http://fcm.googleapis.com/x" }, `endpoint: ${url}`],
        [{ ...json, endpoint: "https://" }, `endpoint: ${url}`],
        [{ ...json, endpoint: "https://a.example/\n" }, `endpoint: ${url}`],
        [{ ...json, endpoint: 7 }, `endpoint: ${url}`],
        [{ ...json, endpoint: `https://a.example/${"x".repeat(4096)}` }, `endpoint: ${url}`],
        [{ ...json, expirationTime: "tomorrow" }, "expirationTime: must be a number of milliseconds, or null"],
        [{ ...json, keys: undefined }, "keys: must be an object with p256dh and auth"],
        [{ ...json, keys: { p256dh } }, "keys.auth: is missing"],
        [{ ...json, keys: { p256dh: offCurve.toString("base64url"), auth } }, `keys.p256dh: ${point}`],
        [{ ...json, keys: { p256dh: Buffer.alloc(65, 4).toString("base64url"), auth } }, `keys.p256dh: ${point}`],
        [{ ...json, keys: { p256dh: 7, auth } }, `keys.p256dh: ${point}`],
        [{ ...json, keys: { p256dh, auth: `${auth}AAAA` } }, `keys.auth: ${sixteen}`],
        [{ ...json, keys: { p256dh, auth: "!!!!" } }, `keys.auth: ${sixteen}`],
        [{ ...json, applicationServerKey: "AAAA" }, `applicationServerKey: ${point}`]
      ]
      for (const [input, message] of cases) assert.deepStrictEqual(yield* messages(input), [message])
    }))

  it.effect("does not show the endpoint and the keys", () =>
    Effect.gen(function*() {
      const subscription = yield* decode(json)
      assert.match(subscription.endpointId, /^wns2-par02p\.notify\.windows\.com\/[0-9a-f]{12}$/)
      for (
        const text of [
          String(subscription),
          JSON.stringify({ subscription }),
          inspect({ subscription }, { depth: 9 })
        ]
      ) {
        assert.include(text, subscription.endpointId)
        assert.notInclude(text, "token=")
        assert.notInclude(text, auth)
        assert.notInclude(text, p256dh)
      }
    }))

  it.effect.prop(
    "does not quote a value that it refuses",
    { wrong: fc.constantFrom("endpoint", "expirationTime", "keys", "p256dh", "auth", "applicationServerKey", "all") },
    ({ wrong }) =>
      Effect.gen(function*() {
        const canary = "CANARY-7f3a"
        const input = wrong === "all" ?
          canary :
          wrong === "p256dh" || wrong === "auth" ?
          { ...json, keys: { ...json.keys, [wrong]: canary } } :
          { ...json, [wrong]: canary }
        for (const bad of [input, wrong === "all" ? [canary] : { ...json, [wrong]: { canary } }]) {
          const exit = yield* Effect.exit(decode(bad))
          if (Exit.isFailure(exit)) {
            assert.notInclude(Cause.pretty(exit.cause), canary)
            assert.notInclude(inspect(exit, { depth: 9 }), canary)
            assert.notInclude(JSON.stringify(exit), canary)
          } else {
            assert.include(["p256dh", "auth"], wrong)
          }
        }
      })
  )
})
