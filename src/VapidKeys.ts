/**
 * The key pair with which an application server identifies itself to push services (RFC 8292, "VAPID").
 *
 * @since 0.1.0
 */
import { createECDH } from "node:crypto"

import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

import * as Base64Url from "./internal/base64url.js"
import * as P256 from "./internal/p256.js"

/**
 * A P-256 key pair: an uncompressed public point (65 bytes) and a private scalar (32 bytes), both base64url without padding.
 *
 * @since 0.1.0
 * @category models
 */
export interface VapidKeys {
  readonly publicKey: string
  readonly privateKey: Redacted.Redacted
}

/**
 * Says which of the two keys breaks which rule. Never holds the key.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidVapidKeys extends Schema.TaggedError<InvalidVapidKeys>("effect-realtime/InvalidVapidKeys")(
  "InvalidVapidKeys",
  { field: Schema.Literal("publicKey", "privateKey"), reason: Schema.String }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `${this.field} ${this.reason}`
  }
}

const publicPointOf = (privateKey: Uint8Array): Uint8Array | undefined => {
  const ecdh = createECDH("prime256v1")
  try {
    ecdh.setPrivateKey(privateKey)
  } catch {
    return undefined
  }
  return ecdh.getPublicKey()
}

const checked = (keys: VapidKeys): Either.Either<VapidKeys, InvalidVapidKeys> => {
  const invalid = (field: InvalidVapidKeys["field"], reason: string) =>
    Either.left(new InvalidVapidKeys({ field, reason }))
  const publicKey = Base64Url.decode(keys.publicKey)
  if (publicKey === undefined) return invalid("publicKey", "is not base64url")
  if (publicKey.length !== 65) return invalid("publicKey", "is not 65 bytes long")
  if (!P256.isPoint(publicKey)) return invalid("publicKey", "is not a point on the curve P-256")
  const privateKey = Base64Url.decode(Redacted.value(keys.privateKey))
  if (privateKey === undefined) return invalid("privateKey", "is not base64url")
  if (privateKey.length !== 32) return invalid("privateKey", "is not 32 bytes long")
  const point = publicPointOf(privateKey)
  if (point === undefined) return invalid("privateKey", "is not a scalar of the curve P-256")
  const canonical = Base64Url.encode(publicKey)
  if (Base64Url.encode(point) !== canonical) return invalid("privateKey", "does not belong to the public key")
  return Either.right({ publicKey: canonical, privateKey: Redacted.make(Base64Url.encode(privateKey)) })
}

/**
 * Checks that both keys are well-formed and belong together, and gives them back in canonical base64url. Fails with
 * `InvalidVapidKeys`.
 *
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 *
 * const keys = VapidKeys.check({ publicKey: "BOd0...", privateKey: Redacted.make("...") })
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const check = (keys: VapidKeys): Effect.Effect<VapidKeys, InvalidVapidKeys> =>
  Effect.suspend(() => checked(keys))

/**
 * A new random key pair. Keep it: a subscription works only with the key it was made with.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 *
 * const program = Effect.map(VapidKeys.generate, (keys) => keys.publicKey)
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const generate: Effect.Effect<VapidKeys> = Effect.sync(() => {
  const ecdh = createECDH("prime256v1")
  const publicKey = ecdh.generateKeys()
  // OpenSSL drops the leading zeros of the scalar.
  const privateKey = Buffer.concat([Buffer.alloc(32), ecdh.getPrivateKey()]).subarray(-32)
  return { publicKey: Base64Url.encode(publicKey), privateKey: Redacted.make(Base64Url.encode(privateKey)) }
})

/**
 * Reads and checks `VAPID_PUBLIC_KEY` and `VAPID_PRIVATE_KEY`, or the two settings of another prefix.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 *
 * const ring = Config.all([VapidKeys.config(), VapidKeys.config("OLD_VAPID")])
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const config = (prefix: string = "VAPID"): Config.Config<VapidKeys> =>
  Config.mapOrFail(
    Config.all({
      publicKey: Config.string(`${prefix}_PUBLIC_KEY`),
      privateKey: Config.redacted(`${prefix}_PRIVATE_KEY`)
    }),
    (keys) =>
      Either.mapLeft(checked(keys), ({ field, reason }) =>
        ConfigError.InvalidData([`${prefix}_${field === "publicKey" ? "PUBLIC_KEY" : "PRIVATE_KEY"}`], reason))
  )
