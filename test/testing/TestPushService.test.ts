import { createPrivateKey, sign } from "node:crypto"

import { HttpBody, HttpClient, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { VapidKeys, WebPush } from "effect-realtime"
import * as TestPushService from "effect-realtime/testing/TestPushService"

const now = Math.floor(Date.now() / 1000)
const claims = { aud: "https://fcm.googleapis.com", exp: now + 3600, sub: "mailto:ops@example.com" }

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")

/** Makes the Authorization header of a server that has a key and breaks a rule. */
const authorize = (
  { privateKey, publicKey }: VapidKeys.VapidKeys,
  changed: Partial<typeof claims>,
  header: object = { typ: "JWT", alg: "ES256" }
) => {
  const point = Buffer.from(publicKey, "base64url")
  const [x, y] = [point.toString("base64url", 1, 33), point.toString("base64url", 33, 65)]
  const key = createPrivateKey({
    format: "jwk",
    key: { kty: "EC", crv: "P-256", x, y, d: Redacted.value(privateKey) }
  })
  const content = `${encode(header)}.${encode({ ...claims, ...changed })}`
  const signature = sign("sha256", Buffer.from(content), { key, dsaEncoding: "ieee-p1363" })
  return `vapid t=${content}.${signature.toString("base64url")}, k=${publicKey}`
}

type Change = (
  request: HttpClientRequest.HttpClientRequest,
  vapid: VapidKeys.VapidKeys
) => HttpClientRequest.HttpClientRequest

const header = (name: string, value: string): Change => HttpClientRequest.setHeader(name, value)

const authorization = (changed: Partial<typeof claims>, jwtHeader?: object): Change => (request, vapid) =>
  HttpClientRequest.setHeader(request, "authorization", authorize(vapid, changed, jwtHeader))

const body = (change: (body: Buffer, vapid: VapidKeys.VapidKeys) => Buffer): Change => (request, vapid) =>
  request.body._tag === "Uint8Array"
    ? HttpClientRequest.setBody(request, HttpBody.uint8Array(change(Buffer.from(request.body.body), vapid)))
    : request

const replaceAt = (target: Buffer, offset: number, bytes: Uint8Array) => {
  target.set(bytes, offset)
  return target
}

const broken: ReadonlyArray<readonly [what: string, change: Change, rule: RegExp]> = [
  ["another method", HttpClientRequest.setMethod("PUT"), /method/],
  ["the older encoding", header("content-encoding", "aesgcm"), /content-encoding/],
  ["no ttl", header("ttl", ""), /ttl/],
  ["a ttl that is not whole", header("ttl", "1.5"), /ttl/],
  ["a ttl that is too long", header("ttl", String(2 ** 31)), /ttl/],
  ["two urgencies", header("urgency", "low, high"), /urgency/],
  ["a long topic", header("topic", "a".repeat(33)), /topic/],
  ["a topic of other letters", header("topic", "a.bc"), /topic/],
  ["a topic that is no base64", header("topic", "abcde"), /topic/],
  ["a long body", body((body) => Buffer.concat([body, Buffer.alloc(4096)])), /4,096/],
  ["a short body", body((body) => body.subarray(0, 50)), /salt, record size and key/],
  ["several records", body((body) => replaceAt(body, 16, Buffer.from([0, 0, 0, 18]))), /single record/],
  ["no token", header("authorization", "WebPush token"), /vapid with t and k/],
  ["another algorithm", authorization({}, { typ: "JWT", alg: "none" }), /ES256/],
  [
    "a forged token",
    (request, vapid) =>
      header("authorization", authorize(vapid, {}).replace(/\.[\w-]{8}/, `.${encode({ a: 1 }).slice(0, 8)}`))(
        request,
        vapid
      ),
    /signature/
  ],
  [
    "the server's key as the message's",
    body((body, { publicKey }) => replaceAt(body, 21, Buffer.from(publicKey, "base64url"))),
    /two keys must differ/
  ],
  ["another service's token", authorization({ aud: "https://web.push.apple.com" }), /aud/],
  ["an old token", authorization({ exp: now - 1 }), /exp/],
  ["a token for too long", authorization({ exp: now + 90_000 }), /exp/],
  ["no contact", authorization({ sub: "ops@example.com" }), /sub/],
  [
    "a body that was changed",
    body((body) => replaceAt(body, body.length - 1, Buffer.from([body.readUInt8(body.length - 1) ^ 1]))),
    /./
  ]
]

/** Sends a message through a client that changes the request. */
const send = (
  change: Change,
  options: { readonly ownKey?: boolean; readonly vendor?: TestPushService.Vendor; readonly ttl?: number } = {}
) =>
  Effect.gen(function*() {
    const service = yield* TestPushService.TestPushService
    const vapid = yield* VapidKeys.generate
    const other = yield* VapidKeys.generate
    const subscription = yield* service.subscribe({
      vendor: options.vendor,
      applicationServerKey: options.ownKey === false ? other.publicKey : vapid.publicKey
    })
    const client = HttpClient.mapRequest(yield* HttpClient.HttpClient, (request) => change(request, vapid))
    const webPush = yield* WebPush.make({ vapid: [vapid, other], subject: "mailto:ops@example.com" }).pipe(
      Effect.provideService(HttpClient.HttpClient, client)
    )
    yield* Effect.either(webPush.send(subscription, "hello", { ttl: options.ttl ?? 60 }))
    return { received: yield* service.received, violations: yield* service.violations }
  }).pipe(Effect.provide(TestPushService.layer))

describe("TestPushService", () => {
  it.live("accepts a message that conforms to the RFCs", () =>
    Effect.gen(function*() {
      const { received, violations } = yield* send((request) => request)
      assert.deepStrictEqual([received.length, violations], [1, []])
    }))

  for (const [what, change, rule] of broken) {
    it.live(`refuses ${what}`, () =>
      Effect.gen(function*() {
        const { received, violations } = yield* send(change)
        assert.deepStrictEqual([received.length, violations.length], [0, 1])
        assert.match(violations[0] ?? "", rule)
      }))
  }

  it.effect("checks tokens against the clock of a test, which begins in 1970", () =>
    Effect.gen(function*() {
      const { received, subscribe, violations } = yield* TestPushService.TestPushService
      yield* WebPush.send(yield* subscribe(), "hello")
      assert.deepStrictEqual([(yield* received).length, yield* violations], [1, []])
    }).pipe(Effect.provide(TestPushService.layerWebPush)))

  it.live("refuses the key of another server", () =>
    Effect.gen(function*() {
      const { violations } = yield* send(authorization({}), { ownKey: false })
      assert.match(violations[0] ?? "", /the key must be the one/)
    }))

  it.live("refuses a ttl of 0 that WNS would refuse", () =>
    Effect.gen(function*() {
      const { violations } = yield* send(header("x-wns-cache-policy", ""), { vendor: "wns", ttl: 0 })
      assert.match(violations[0] ?? "", /x-wns-cache-policy/)
    }))
})
