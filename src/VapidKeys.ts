/**
 * The key pair with which an application server identifies itself to push services (RFC 8292, "VAPID").
 *
 * @since 0.1.0
 */
import type { PrivateKeyInput } from "node:crypto"
import { createECDH, createPrivateKey } from "node:crypto"

import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

import * as P256 from "./internal/p256.js"

/**
 * A P-256 key pair: an uncompressed public point (65 bytes) and a private scalar (32 bytes), both base64url without
 * padding.
 *
 * @since 0.1.0
 * @category models
 */
export interface VapidKeys {
  readonly publicKey: string
  readonly privateKey: Redacted.Redacted
}

/**
 * A key that is invalid: its field and the rule that it breaks. The error never contains the key.
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

const privateKeyError = (reason: string) => new InvalidVapidKeys({ field: "privateKey", reason })

const wrongKey = () => privateKeyError("is not a private key of the curve P-256")

/** Reads the scalar of a key in a format of OpenSSL, whose errors are dropped, since they quote the key. */
const scalarOf = (input: PrivateKeyInput): Either.Either<Uint8Array, InvalidVapidKeys> => {
  try {
    const key = createPrivateKey(input)
    const d = key.asymmetricKeyDetails?.namedCurve === "prime256v1" ? key.export({ format: "jwk" }).d : undefined
    const scalar = d === undefined ? undefined : P256.decode(d)
    return scalar === undefined ? Either.left(wrongKey()) : Either.right(scalar)
  } catch {
    return Either.left(wrongKey())
  }
}

const fromJwk = (jwk: object): Either.Either<Uint8Array, InvalidVapidKeys> => {
  const { crv, d, kty, x, y } = { crv: undefined, d: undefined, kty: undefined, x: undefined, y: undefined, ...jwk }
  const bytes = kty === "EC" && crv === "P-256" && typeof d === "string" ? P256.decode(d) : undefined
  const point = bytes === undefined ? undefined : publicPointOf(bytes)
  if (bytes === undefined || point === undefined) return Either.left(wrongKey())
  const isOwn = (coordinate: unknown, start: number) =>
    coordinate === undefined || coordinate === Encoding.encodeBase64Url(point.subarray(start, start + 32))
  return isOwn(x, 1) && isOwn(y, 33) ? fromScalar(bytes) : Either.left(wrongKey())
}

// Programs that encode the scalar as a number drop its leading zeros, or prepend one for the sign.
const minScalarBytes = 30
const maxScalarBytes = 36

const fromScalar = (bytes: Uint8Array): Either.Either<Uint8Array, InvalidVapidKeys> => {
  const start = bytes.findIndex((byte) => byte !== 0)
  const significant = start === -1 ? bytes.subarray(-1) : bytes.subarray(start)
  if (bytes.length < minScalarBytes || bytes.length > maxScalarBytes || significant.length > 32) {
    return Either.left(privateKeyError("is not 32 bytes long"))
  }
  const scalar = new Uint8Array(32)
  scalar.set(significant, 32 - significant.length)
  return Either.right(scalar)
}

// A sequence that begins with a number, the version.
const isDer = (bytes: Uint8Array): boolean => bytes[0] === 0x30 && ((bytes[1] ?? 0) > 127 || bytes[2] === 2)

const fromDer = (bytes: Uint8Array): Either.Either<Uint8Array, InvalidVapidKeys> => {
  const key = Buffer.from(bytes)
  return Either.orElse(
    scalarOf({ key, format: "der", type: "pkcs8" }),
    () => scalarOf({ key, format: "der", type: "sec1" })
  )
}

const fromText = (text: string): Either.Either<Uint8Array, InvalidVapidKeys> => {
  const trimmed = text.trim()
  if (trimmed.startsWith("-----")) return scalarOf({ key: trimmed.replaceAll("\\n", "\n"), format: "pem" })
  if (trimmed.startsWith("{")) {
    try {
      return fromJwk(Object(JSON.parse(trimmed)))
    } catch {
      return Either.left(wrongKey())
    }
  }
  const bytes = P256.decode(trimmed.replace(/\s/g, ""))
  if (bytes === undefined) return Either.left(privateKeyError("is not base64url, PEM or a JWK"))
  return bytes.length > maxScalarBytes && isDer(bytes) ? fromDer(bytes) : fromScalar(bytes)
}

const fromBytes = (bytes: Uint8Array): Either.Either<Uint8Array, InvalidVapidKeys> => {
  if (bytes.length <= maxScalarBytes) return fromScalar(bytes)
  return isDer(bytes) ? fromDer(bytes) : fromText(new TextDecoder().decode(bytes))
}

const pairOf = (scalar: Uint8Array): Either.Either<VapidKeys, InvalidVapidKeys> => {
  const point = publicPointOf(scalar)
  return point === undefined
    ? Either.left(privateKeyError("is not a scalar of the curve P-256"))
    : Either.right({
      publicKey: Encoding.encodeBase64Url(point),
      privateKey: Redacted.make(Encoding.encodeBase64Url(scalar))
    })
}

const checked = (keys: VapidKeys): Either.Either<VapidKeys, InvalidVapidKeys> => {
  const invalid = (reason: string) => Either.left(new InvalidVapidKeys({ field: "publicKey", reason }))
  const publicKey = P256.decode(keys.publicKey.trim())
  if (publicKey === undefined) return invalid("is not base64url")
  if (publicKey.length !== 65) return invalid("is not 65 bytes long")
  if (!P256.isPoint(publicKey)) return invalid("is not a point on the curve P-256")
  return fromText(Redacted.value(keys.privateKey)).pipe(
    Either.flatMap(pairOf),
    Either.filterOrLeft(
      (pair) => pair.publicKey === Encoding.encodeBase64Url(publicKey),
      () => privateKeyError("does not belong to the public key")
    )
  )
}

/**
 * Imports a private key in a format of another program, and derives the public key from it:
 *
 * - a text: PEM (PKCS#8 or SEC1), a JWK, or base64 or base64url of DER or of the scalar. White space around and
 *   between lines is ignored.
 * - bytes: the content of such a file, DER, or the scalar.
 * - an object: a JWK.
 *
 * A scalar may lack leading zeros (30 bytes or more) or have additional ones (36 bytes or less). Fails with
 * `InvalidVapidKeys`, which contains nothing of the key.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { FileSystem } from "@effect/platform"
 * import { Effect } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 *
 * const keys = FileSystem.FileSystem.pipe(
 *   Effect.flatMap((fs) => fs.readFile("private_key.pem")),
 *   Effect.flatMap(VapidKeys.importPrivateKey)
 * )
 * ```
 */
export const importPrivateKey = (
  key: string | object | Redacted.Redacted<string | object>
): Effect.Effect<VapidKeys, InvalidVapidKeys> =>
  Effect.suspend(() => {
    const value: unknown = Redacted.isRedacted(key) ? Redacted.value(key) : key
    const scalar = typeof value === "string"
      ? fromText(value)
      : value instanceof Uint8Array
      ? fromBytes(value)
      : fromJwk(Object(value))
    return Either.flatMap(scalar, pairOf)
  })

/**
 * Checks that both keys are well-formed and belong together, and returns them in canonical base64url. The private key
 * may be any text that `importPrivateKey` accepts. Fails with `InvalidVapidKeys`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 *
 * const keys = VapidKeys.check({ publicKey: "BOd0...", privateKey: Redacted.make("...") })
 * ```
 */
export const check = (keys: VapidKeys): Effect.Effect<VapidKeys, InvalidVapidKeys> =>
  Effect.suspend(() => checked(keys))

/**
 * Generates a random key pair. The server must store it, since a subscription works only with the key that it was
 * made with.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 *
 * const program = Effect.map(VapidKeys.generate, (keys) => keys.publicKey)
 * ```
 */
export const generate: Effect.Effect<VapidKeys> = Effect.sync(() => {
  const ecdh = createECDH("prime256v1")
  const publicKey = ecdh.generateKeys()
  // OpenSSL drops the leading zeros of the scalar.
  const privateKey = Buffer.concat([Buffer.alloc(32), ecdh.getPrivateKey()]).subarray(-32)
  return {
    publicKey: Encoding.encodeBase64Url(publicKey),
    privateKey: Redacted.make(Encoding.encodeBase64Url(privateKey))
  }
})

/**
 * Reads and checks `VAPID_PUBLIC_KEY` and `VAPID_PRIVATE_KEY`, or the two settings of another prefix. Without a
 * public key, the public key is derived from the private one, which may be any text that `importPrivateKey` accepts.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Config } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 *
 * const ring = Config.all([VapidKeys.config(), VapidKeys.config("OLD_VAPID")])
 * ```
 */
export const config = (prefix: string = "VAPID"): Config.Config<VapidKeys> =>
  Config.mapOrFail(
    Config.all({
      publicKey: Config.option(Config.string(`${prefix}_PUBLIC_KEY`)),
      privateKey: Config.redacted(`${prefix}_PRIVATE_KEY`)
    }),
    ({ privateKey, publicKey }) =>
      Option.match(publicKey, {
        onNone: () => Either.flatMap(fromText(Redacted.value(privateKey)), pairOf),
        onSome: (publicKey) => checked({ publicKey, privateKey })
      }).pipe(
        Either.mapLeft(({ field, reason }) =>
          ConfigError.InvalidData([`${prefix}_${field === "publicKey" ? "PUBLIC_KEY" : "PRIVATE_KEY"}`], reason)
        )
      )
  )
