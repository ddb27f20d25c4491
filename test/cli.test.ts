import { execFile } from "node:child_process"
import { createPrivateKey } from "node:crypto"
import { promisify } from "node:util"

import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { VapidKeys } from "effect-realtime"

describe("effect-realtime vapid", () => {
  it.live("prints a private key as PEM, which OpenSSL and VapidKeys read", () =>
    Effect.gen(function*() {
      const args = ["--import", "tsx", "src/cli.ts", "vapid", "--pem"]
      const { stdout } = yield* Effect.promise(() => promisify(execFile)(process.execPath, args))
      const { publicKey } = yield* VapidKeys.fromPem(Redacted.make(stdout))
      const { crv, x = "", y = "" } = createPrivateKey(stdout).export({ format: "jwk" })
      const point = Buffer.concat([Buffer.of(4), Buffer.from(x, "base64url"), Buffer.from(y, "base64url")])
      assert.deepStrictEqual([crv, point.toString("base64url")], ["P-256", publicKey])
      assert.match(stdout, /^-----BEGIN PRIVATE KEY-----\n[^]*\n-----END PRIVATE KEY-----\n$/)
    }), 60_000)
})
