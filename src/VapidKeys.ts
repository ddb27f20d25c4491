/**
 * The key pair with which an application server identifies itself to push services (RFC 8292, "VAPID").
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import { identity } from "effect/Function"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

import * as P256 from "./internal/p256.js"
import * as Der from "./VapidKeys/internal/der.js"

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

const rules = {
  NotBase64: "is not base64url",
  UnknownFormat: "is not base64url, PEM or a JWK",
  WrongPem: "is not PEM of a PRIVATE KEY or an EC PRIVATE KEY",
  Encrypted: "is encrypted: only a key without a passphrase can be read",
  WrongLength: "is not 32 bytes long",
  WrongPointLength: "is not 65 bytes long",
  WrongCurve: "is not a private key of the curve P-256",
  NotAScalar: "is not a scalar of the curve P-256",
  NotAPoint: "is not a point on the curve P-256",
  Mismatch: "does not belong to the public key"
} as const

/**
 * A key that is invalid: its field, and the rule that it breaks as a `reason`. The error never contains the key.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidVapidKeys extends Schema.TaggedError<InvalidVapidKeys>("effect-realtime/InvalidVapidKeys")(
  "InvalidVapidKeys",
  {
    field: Schema.Literal("publicKey", "privateKey"),
    reason: Schema.Literal(
      "NotBase64",
      "UnknownFormat",
      "WrongPem",
      "Encrypted",
      "WrongLength",
      "WrongPointLength",
      "WrongCurve",
      "NotAScalar",
      "NotAPoint",
      "Mismatch"
    )
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `${this.field} ${rules[this.reason]}`
  }

  /**
   * Returns `false`: the same key fails again.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
}

const privateKeyError = (reason: InvalidVapidKeys["reason"]) => new InvalidVapidKeys({ field: "privateKey", reason })

const invalidPrivateKey = (reason: InvalidVapidKeys["reason"]) => Either.left(privateKeyError(reason))

const fromJwk = (jwk: object): Either.Either<Uint8Array, InvalidVapidKeys> => {
  const { crv, d, kty, x, y } = { crv: undefined, d: undefined, kty: undefined, x: undefined, y: undefined, ...jwk }
  const bytes = kty === "EC" && crv === "P-256" && typeof d === "string" ? P256.decode(d) : undefined
  return bytes === undefined ? invalidPrivateKey("WrongCurve") : Either.filterOrLeft(
    fromScalar(bytes),
    (scalar) => {
      const point = P256.publicPoint(scalar)
      const isOwn = (coordinate: unknown, start: number) =>
        coordinate === undefined || point === undefined ||
        coordinate === Encoding.encodeBase64Url(point.subarray(start, start + 32))
      return isOwn(x, 1) && isOwn(y, 33)
    },
    () => privateKeyError("WrongCurve")
  )
}

// Programs that encode the scalar as a number drop its leading zeros, or prepend one for the sign.
const minScalarBytes = 30
const maxScalarBytes = 36

const fromScalar = (bytes: Uint8Array): Either.Either<Uint8Array, InvalidVapidKeys> => {
  const start = bytes.findIndex((byte) => byte !== 0)
  const significant = start === -1 ? bytes.subarray(-1) : bytes.subarray(start)
  if (bytes.length < minScalarBytes || bytes.length > maxScalarBytes || significant.length > 32) {
    return invalidPrivateKey("WrongLength")
  }
  const scalar = new Uint8Array(32)
  scalar.set(significant, 32 - significant.length)
  return Either.right(scalar)
}

const fromDer = (bytes: Uint8Array): Either.Either<Uint8Array, InvalidVapidKeys> => {
  const scalar = Der.scalarOf(bytes)
  return scalar === undefined ? invalidPrivateKey("WrongCurve") : fromScalar(scalar)
}

const fromPemText = (text: string): Either.Either<Uint8Array, InvalidVapidKeys> => {
  const block = /-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----([^]*?)-----END \1-----/.exec(text.replaceAll("\\n", "\n"))
  const [, label = "", body = ""] = block ?? []
  if (label === "ENCRYPTED PRIVATE KEY" || /ENCRYPTED/.test(body)) return invalidPrivateKey("Encrypted")
  const bytes = label === "PRIVATE KEY" || label === "EC PRIVATE KEY" ? P256.decode(body.replace(/\s/g, "")) : undefined
  return bytes === undefined ? invalidPrivateKey("WrongPem") : fromDer(bytes)
}

const fromText = (text: string): Either.Either<Uint8Array, InvalidVapidKeys> => {
  const trimmed = text.trim()
  if (trimmed.startsWith("-----")) return fromPemText(trimmed)
  if (trimmed.startsWith("{")) {
    try {
      return fromJwk(Object(JSON.parse(trimmed)))
    } catch {
      return invalidPrivateKey("WrongCurve")
    }
  }
  const bytes = P256.decode(trimmed.replace(/\s/g, ""))
  if (bytes === undefined) return invalidPrivateKey("UnknownFormat")
  return bytes.length > maxScalarBytes && Der.isKey(bytes) ? fromDer(bytes) : fromScalar(bytes)
}

const fromBytes = (bytes: Uint8Array): Either.Either<Uint8Array, InvalidVapidKeys> => {
  if (bytes.length <= maxScalarBytes) return fromScalar(bytes)
  return Der.isKey(bytes) ? fromDer(bytes) : fromText(new TextDecoder().decode(bytes))
}

const pairOf = (scalar: Uint8Array): Either.Either<VapidKeys, InvalidVapidKeys> => {
  const point = P256.publicPoint(scalar)
  return point === undefined ? invalidPrivateKey("NotAScalar") : Either.right({
    publicKey: Encoding.encodeBase64Url(point),
    privateKey: Redacted.make(Encoding.encodeBase64Url(scalar))
  })
}

const pairFrom = (privateKey: Redacted.Redacted): Either.Either<VapidKeys, InvalidVapidKeys> =>
  Either.flatMap(fromText(Redacted.value(privateKey)), pairOf)

const canonicalPoint = (text: string): Either.Either<string, InvalidVapidKeys> => {
  const invalid = (reason: InvalidVapidKeys["reason"]) =>
    Either.left(new InvalidVapidKeys({ field: "publicKey", reason }))
  const point = P256.decode(text.trim())
  if (point === undefined) return invalid("NotBase64")
  if (point.length !== 65) return invalid("WrongPointLength")
  return P256.isPoint(point) ? Either.right(Encoding.encodeBase64Url(point)) : invalid("NotAPoint")
}

const checked = (keys: VapidKeys): Either.Either<VapidKeys, InvalidVapidKeys> =>
  Either.flatMap(canonicalPoint(keys.publicKey), (publicKey) =>
    Either.filterOrLeft(
      pairFrom(keys.privateKey),
      (pair) => pair.publicKey === publicKey,
      () => privateKeyError("Mismatch")
    ))

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
 * Reads a private key in PEM (PKCS#8 `PRIVATE KEY`, or SEC1 `EC PRIVATE KEY`), and derives the public key from it.
 * Fails with `InvalidVapidKeys`, which contains nothing of the key.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Config, Effect } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 *
 * const keys = Effect.flatMap(Config.redacted("VAPID_PEM"), VapidKeys.fromPem)
 * ```
 */
export const fromPem = (pem: Redacted.Redacted): Effect.Effect<VapidKeys, InvalidVapidKeys> =>
  Effect.suspend(() => Either.flatMap(fromPemText(Redacted.value(pem)), pairOf))

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
export const generate: Effect.Effect<VapidKeys> = Effect.promise(async () => {
  const pair = await crypto.subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, true, ["deriveBits"])
  const [point, { d = "" }] = await Promise.all([
    crypto.subtle.exportKey("raw", pair.publicKey),
    crypto.subtle.exportKey("jwk", pair.privateKey)
  ])
  return { publicKey: Encoding.encodeBase64Url(new Uint8Array(point)), privateKey: Redacted.make(d) }
})

/** Returns the path that a config reads. Its type does not have it: the path is empty for a structure without one. */
const pathOf = (config: unknown): Array<string> => {
  if (Predicate.hasProperty(config, "original")) return pathOf(config.original)
  if (!Predicate.hasProperty(config, "config")) return []
  const path = pathOf(config.config)
  return Predicate.hasProperty(config, "name") ? [String(config.name), ...path] : path
}

// The path of an error in `mapOrFail` is that of a config which is directly a named one: `Config.redacted` is not.
const readAs = <A, B>(
  config: Config.Config<A>,
  read: (value: A) => Either.Either<B, InvalidVapidKeys>
): Config.Config<B> => Config.mapOrFail(Config.map(config, identity), (value) => orConfigError(config, read(value)))

const orConfigError = <A>(
  config: Config.Config<unknown>,
  result: Either.Either<A, InvalidVapidKeys>
): Either.Either<A, ConfigError.ConfigError> =>
  Either.mapLeft(result, ({ message }) => ConfigError.InvalidData(pathOf(config), message))

/**
 * Reads and checks a key pair from the configuration. The private key may be any text that `importPrivateKey` accepts.
 * Without a public key, that is derived from the private one. An error names the path of the config and the rule that
 * the key breaks, and contains nothing of the key.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Config } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 *
 * const pair = VapidKeys.config({
 *   publicKey: Config.string("VAPID_PUBLIC_KEY"),
 *   privateKey: Config.redacted("VAPID_PRIVATE_KEY")
 * })
 * ```
 */
export const config = (keys: {
  readonly publicKey?: Config.Config<string> | undefined
  readonly privateKey: Config.Config<Redacted.Redacted>
}): Config.Config<VapidKeys> =>
  Config.mapOrFail(
    Config.all({
      publicKey: keys.publicKey === undefined ? Config.succeed(undefined) : readAs(keys.publicKey, canonicalPoint),
      pair: readAs(keys.privateKey, pairFrom)
    }),
    ({ pair, publicKey }) =>
      publicKey === undefined || publicKey === pair.publicKey
        ? Either.right(pair)
        : orConfigError(keys.privateKey, invalidPrivateKey("Mismatch"))
  )
