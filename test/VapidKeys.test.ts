import { inspect } from "node:util"

import { assert, describe, it } from "@effect/vitest"
import { p256 } from "@noble/curves/nist.js"
import { Cause, ConfigProvider, Effect, Exit, Redacted } from "effect"
import * as VapidKeys from "effect-realtime/VapidKeys"

const flipped = (keys: VapidKeys.VapidKeys) => Effect.flip(VapidKeys.check(keys))

const withEnv = <A, E>(effect: Effect.Effect<A, E>, env: Record<string, string>) =>
  Effect.withConfigProvider(effect, ConfigProvider.fromMap(new Map(Object.entries(env))))

describe("VapidKeys", () => {
  it.effect("generates pairs that another implementation agrees with", () =>
    Effect.gen(function*() {
      for (const { privateKey, publicKey } of yield* Effect.replicateEffect(VapidKeys.generate, 600)) {
        const scalar = Buffer.from(Redacted.value(privateKey), "base64url")
        // One scalar in 256 begins with a zero byte, which must not be lost.
        assert.strictEqual(scalar.length, 32)
        assert.strictEqual(Buffer.from(p256.getPublicKey(scalar, false)).toString("base64url"), publicKey)
      }
    }))

  it.effect("accepts both alphabets and padding, and gives canonical base64url", () =>
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

  it.effect("names the key and the rule that it breaks", () =>
    Effect.gen(function*() {
      const keys = yield* VapidKeys.generate
      const other = yield* VapidKeys.generate
      const offCurve = Buffer.from(keys.publicKey, "base64url")
      offCurve[64] = (offCurve[64] ?? 0) ^ 1
      const compressed = p256.getPublicKey(Buffer.from(Redacted.value(keys.privateKey), "base64url"), true)
      const cases: ReadonlyArray<readonly [VapidKeys.VapidKeys, string]> = [
        [{ ...keys, publicKey: "not base64!" }, "publicKey is not base64url"],
        [{ ...keys, publicKey: Buffer.from(compressed).toString("base64url") }, "publicKey is not 65 bytes long"],
        [{ ...keys, publicKey: offCurve.toString("base64url") }, "publicKey is not a point on the curve P-256"],
        [{ ...keys, privateKey: Redacted.make("%") }, "privateKey is not base64url"],
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

  it.effect("reads a pair from config, under a prefix too, and does not show it", () =>
    Effect.gen(function*() {
      const keys = yield* VapidKeys.generate
      const secret = Redacted.value(keys.privateKey)
      const env = { OLD_VAPID_PUBLIC_KEY: keys.publicKey, OLD_VAPID_PRIVATE_KEY: secret }
      const read = yield* withEnv(VapidKeys.config("OLD_VAPID"), env)
      assert.strictEqual(read.publicKey, keys.publicKey)
      assert.notInclude(inspect(read, { depth: 9 }) + JSON.stringify(read), secret)

      const other = yield* VapidKeys.generate
      const exit = yield* Effect.exit(
        withEnv(VapidKeys.config(), { VAPID_PUBLIC_KEY: other.publicKey, VAPID_PRIVATE_KEY: secret })
      )
      assert.isTrue(Exit.isFailure(exit))
      if (Exit.isFailure(exit)) {
        assert.include(Cause.pretty(exit.cause), "VAPID_PRIVATE_KEY")
        assert.notInclude(Cause.pretty(exit.cause) + inspect(exit, { depth: 9 }), secret)
      }
    }))
})
