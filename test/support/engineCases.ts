/**
 * The promises of every engine of `WebPushCrypto`, as programs that need neither Node nor a test runner: they run in
 * Vitest, and by `npm run test:runtimes` on Bun, Deno and workerd.
 */
import { HttpClient, HttpClientResponse } from "@effect/platform"
import {
  Cause,
  Data,
  Effect,
  Either,
  Exit,
  FastCheck as fc,
  Inspectable,
  Layer,
  Logger,
  LogLevel,
  Redacted,
  Stream,
  Tracer
} from "effect"
import { VapidKeys, WebPush, WebPushCrypto, WebPushSubscription } from "effect-realtime"

import * as Example from "./engineExample.js"
import type { Opener } from "./openers.js"
import * as Receiver from "./receiver.js"

export interface Engine {
  readonly layer: Layer.Layer<WebPushCrypto.WebPushCrypto>
  /** Encrypts the example of RFC 8291 with its key and its salt. */
  readonly encryptExample: () => Promise<Uint8Array>
}

export interface Case {
  readonly name: string
  /** Fails or dies if the engine breaks the promise. */
  readonly run: Effect.Effect<void, unknown>
}

class Fault extends Data.TaggedError("Fault")<{ readonly message: string }> {}

const check = (holds: boolean, message: string) => holds ? Effect.void : new Fault({ message })

const checkEqual = (actual: unknown, expected: unknown, subject: string) => {
  const [found, wanted] = [JSON.stringify(actual), JSON.stringify(expected)]
  return check(found === wanted, `${subject} is ${found} instead of ${wanted}`)
}

const { decode, encode, random, utf8 } = Receiver

/** Returns all texts of a value as `inspect` of Node shows them with hidden properties. */
const textsOf = (value: unknown, depth = 9, seen = new Set<unknown>()): string => {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return String(value)
  if (depth === 0 || seen.has(value) || ArrayBuffer.isView(value)) return ""
  seen.add(value)
  const inspect = Reflect.get(value, Inspectable.NodeInspectSymbol)
  if (typeof inspect === "function") return textsOf(inspect.call(value), depth - 1, seen)
  const values = value instanceof Map || value instanceof Set ? [...value] : []
  for (const key of Reflect.ownKeys(value)) {
    const property = Either.try(() => Reflect.get(value, key))
    values.push(key, Either.isRight(property) ? property.right : property.left)
  }
  return values.map((inner) => textsOf(inner, depth - 1, seen)).join("\n")
}

/** The parts of an Authorization header (RFC 8292, section 3). */
const parse = (authorization: string) => {
  const [, content = "", signature = "", key = ""] = /^vapid t=([^.]+\.[^.]+)\.([^.]+), k=(.+)$/.exec(authorization) ??
    []
  return { content, signature: decode(signature), key }
}

/** A client whose push service accepts all messages, and the tokens that it has received. */
const makeAcceptor = () => {
  const tokens: Array<string> = []
  const client = HttpClient.make((request) =>
    Effect.sync(() => {
      tokens.push(String(request.headers.authorization))
      return HttpClientResponse.fromWeb(request, new Response(null, { status: 201 }))
    })
  )
  return { tokens, layer: Layer.succeed(HttpClient.HttpClient, client) }
}

/** Returns the cases of all engines and openers. */
export const make = (
  engines: Readonly<Record<string, Engine>>,
  openers: Readonly<Record<string, Opener>>
): ReadonlyArray<Case> => {
  const names = Object.keys(openers).join(", ")
  const valid = Receiver.make().keys
  const invalidKeys = Receiver.invalidKeysOf(valid)

  const casesOf = ([engine, { encryptExample, layer }]: readonly [string, Engine]): ReadonlyArray<Case> => {
    const over = (
      name: string,
      body: (crypto: WebPushCrypto.WebPushCrypto.Service) => Effect.Effect<void, unknown>
    ): Case => ({
      name: `${engine} ${name}`,
      run: Effect.flatMap(WebPushCrypto.WebPushCrypto, body).pipe(Effect.provide(layer))
    })
    return [
      {
        name: `${engine} reproduces the message of RFC 8291, appendix A, byte for byte`,
        run: Effect.flatMap(
          Effect.tryPromise(encryptExample),
          (message) => checkEqual(encode(message), encode(Example.message), "the message")
        )
      },
      over(`encrypts messages that ${names} open`, ({ encrypt, supportsPadding }) => {
        const opens = async (message: Uint8Array, length: number) => {
          const padding = supportsPadding ? length : 0
          const receiver = Receiver.make()
          const body = await Effect.runPromise(encrypt(message, receiver.keys, padding))
          const size = 86 + Math.max(message.length, padding) + 1 + 16
          await Effect.runPromise(checkEqual(body.length, size, "the length of the body"))
          for (const { open } of Object.values(openers)) {
            const opened = await open(body, receiver)
            await Effect.runPromise(checkEqual(encode(opened), encode(message), "the opened message"))
          }
        }
        const property = fc.asyncProperty(
          fc.uint8Array({ maxLength: 3993, size: "max" }),
          fc.nat({ max: 3993 }),
          opens
        )
        const empty = new Uint8Array()
        return Effect.tryPromise(() =>
          fc.assert(property, {
            numRuns: 10,
            examples: [[empty, 0], [empty, 3993], [random(1), 1], [random(41), 40], [random(3993), 0]]
          })
        )
      }),
      over(`signs the token of RFC 8292, section 2.4, and ${names} verify it`, ({ signer }) =>
        Effect.gen(function*() {
          // One scalar in 256 begins with a zero byte.
          const scalar = encode(random(32).fill(0, 0, 1))
          for (const keys of [yield* VapidKeys.generate, yield* VapidKeys.importPrivateKey(scalar)]) {
            const sign = yield* signer(keys)
            const { content, key, signature } = parse(yield* sign(Example.token.claims))
            yield* checkEqual(content, Example.token.content, "the content of the token")
            yield* checkEqual(key, keys.publicKey, "the key beside the token")
            yield* checkEqual(signature.length, 64, "the length of the signature")
            for (const [opener, { verify }] of Object.entries(openers)) {
              const isVerified = (text: string) => Effect.tryPromise(() => verify(text, signature, decode(key)))
              yield* check(yield* isVerified(content), `${opener} does not accept the signature`)
              yield* check(!(yield* isVerified(`${content}x`)), `${opener} accepts any signature`)
            }
          }
        })),
      over(
        "generates key pairs that VapidKeys accepts as they are, and each engine signs with",
        ({ generateKeys }) =>
          Effect.gen(function*() {
            const [keys, others] = yield* Effect.all([generateKeys, generateKeys])
            yield* check(keys.publicKey !== others.publicKey, "a key pair is generated twice")
            const checked = yield* VapidKeys.check(keys)
            const show = ({ privateKey, publicKey }: VapidKeys.VapidKeys) => [publicKey, Redacted.value(privateKey)]
            yield* checkEqual(show(checked), show(keys), "the checked key pair")
            for (const [other, { layer }] of Object.entries(engines)) {
              const { signer } = yield* Effect.provide(WebPushCrypto.WebPushCrypto, layer)
              const authorization = yield* Effect.flatMap(signer(keys), (sign) => sign(Example.token.claims))
              const { content, signature } = parse(authorization)
              for (const { verify } of Object.values(openers)) {
                const isVerified = yield* Effect.tryPromise(() => verify(content, signature, decode(keys.publicKey)))
                yield* check(isVerified, `${other} does not sign with the keys`)
              }
            }
            yield* check(!textsOf(keys).includes(Redacted.value(keys.privateKey)), "the private key is shown")
          })
      ),
      over("never uses a key or a salt twice", ({ encrypt }) =>
        Effect.gen(function*() {
          const bodies = yield* Effect.replicateEffect(encrypt(utf8("hello"), valid, 0), 100)
          const parts = (start: number, end: number) =>
            new Set(bodies.map((body) => encode(body.subarray(start, end)))).size
          yield* checkEqual([parts(0, 16), parts(21, 86)], [100, 100], "the number of salts and keys")
        })),
      ...Object.entries(invalidKeys).map(([name, invalid]) =>
        over(
          `fails with InvalidSubscription for ${name}, and shows neither keys nor message`,
          ({ encrypt }) =>
            Effect.gen(function*() {
              const keys = { ...valid, ...invalid }
              const exit = yield* Effect.exit(encrypt(utf8("CANARY"), keys, 0))
              const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
              if (!(error instanceof WebPushCrypto.WebPushCryptoError)) {
                return yield* new Fault({ message: `the error is ${String(error)}` })
              }
              yield* checkEqual([error.reason, error.isRetryable], ["InvalidSubscription", false], "the error")
              const shown = textsOf(exit) + JSON.stringify(exit) + String(exit)
              for (const secret of ["CANARY", keys.p256dh, keys.auth].filter((text) => text !== "")) {
                yield* check(!shown.includes(secret), `${secret} is shown`)
              }
            })
        )
      ),
      {
        name: `${engine} shows no secret in an error, a log line or a span`,
        run: Effect.suspend(() => {
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
            const acceptor = makeAcceptor()
            yield* Effect.gen(function*() {
              for (const invalid of [{}, ...Object.values(invalidKeys)]) {
                const secret = encode(random(24))
                const keys = { ...Receiver.make().keys, ...invalid }
                const subscription = new WebPushSubscription.WebPushSubscription(
                  { endpoint: `https://fcm.googleapis.com/fcm/send/${secret}`, keys },
                  { disableValidation: true }
                )
                secrets.push(secret, keys.p256dh, keys.auth)
                yield* show(WebPush.send(subscription, "CANARY"))
                yield* show(Stream.runCollect(WebPush.broadcast(Stream.make(subscription), "CANARY")))
              }
            }).pipe(
              Effect.provide(
                WebPush.layerWith({ vapid, subject: "mailto:ops@example.com" }).pipe(
                  Layer.provide([layer, acceptor.layer])
                )
              ),
              Effect.withTracer(tracer)
            )
            yield* checkEqual(acceptor.tokens.length, 2, "the number of messages that were sent")
            secrets.push(...acceptor.tokens)
            const { signer } = yield* Effect.provide(WebPushCrypto.WebPushCrypto, layer)
            yield* show(Effect.flatMap(signer(vapid), (sign) => sign({ ...Example.token.claims, expiresAt: Infinity })))
            const output = textsOf(shown)
            for (const text of ["InvalidSubscription", "WebPush.send"]) {
              yield* check(output.includes(text), `${text} is not shown`)
            }
            for (const secret of secrets.filter((text) => text !== "")) {
              yield* check(!output.includes(secret), `${secret} is shown`)
            }
          }).pipe(
            Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
            Logger.withMinimumLogLevel(LogLevel.All)
          )
        })
      }
    ]
  }

  return [
    ...Object.entries(openers).map(([opener, { open, verify }]): Case => ({
      name: `${opener} opens the message of RFC 8291, and verifies the token of RFC 8292`,
      run: Effect.gen(function*() {
        const opened = yield* Effect.tryPromise(() => open(Example.message, Example.receiver))
        yield* checkEqual(new TextDecoder().decode(opened), Example.text, "the text")
        const { content, key, signature } = Example.token
        yield* check(yield* Effect.tryPromise(() => verify(content, signature, key)), "the signature is not accepted")
      })
    })),
    ...Object.entries(engines).flatMap(casesOf)
  ]
}

/** Runs all cases, and returns the names of those that hold and the faults of the others. */
export const run = (cases: ReadonlyArray<Case>) =>
  Effect.gen(function*() {
    const passed: Array<string> = []
    const faults: Array<string> = []
    for (const { name, run } of cases) {
      const exit = yield* Effect.exit(run)
      if (Exit.isSuccess(exit)) passed.push(name)
      else faults.push(`${name}: ${Cause.pretty(exit.cause, { renderErrorCause: true })}`)
    }
    return { passed, faults }
  })
