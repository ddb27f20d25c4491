/**
 * A push service for tests, over real TLS and HTTP on this machine. It checks each message against the RFCs, decrypts
 * and records it, and answers as the test has set. `layerWebPush` provides it together with a `WebPush` that sends to
 * it. A device that `subscribe` makes has an endpoint of a public vendor, and no message leaves this machine.
 *
 * @since 0.1.0
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as TestPushService from "effect-realtime/testing/TestPushService"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const program = Effect.gen(function*() {
 *   const { answer, received, subscribe } = yield* TestPushService.TestPushService
 *   const phone = yield* subscribe()
 *   const lost = yield* subscribe({ vendor: "apple" })
 *   yield* answer({ status: 410 }, lost)
 *
 *   const { gone } = yield* WebPush.sendMany([phone, lost], "Order 7 was approved.", { urgency: "high" })
 *   console.log(gone.length) // 1
 *
 *   // Both messages arrived: the service answered one of them with 410.
 *   for (const { headers, text } of yield* received) console.log(text, headers.urgency)
 * })
 *
 * Effect.runFork(Effect.provide(program, TestPushService.layerWebPush))
 * ```
 */
import type { ECDH } from "node:crypto"
import { createDecipheriv, createECDH, createPublicKey, hkdfSync, randomBytes, verify } from "node:crypto"
import type * as Http from "node:http"
import * as Http2 from "node:http2"
import * as Https from "node:https"
import type * as Net from "node:net"
import type { Writable } from "node:stream"

import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

import * as NodeWebPushCrypto from "../node/NodeWebPushCrypto.js"
import * as PushHttpClient from "../node/PushHttpClient.js"
import * as VapidKeys from "../VapidKeys.js"
import * as WebPush from "../WebPush.js"
import type { WebPushCrypto } from "../WebPushCrypto.js"
import type { WebPushConfigError } from "../WebPushError.js"
import { WebPushSubscription } from "../WebPushSubscription.js"
import * as TestCertificate from "./internal/testCertificate.js"

/**
 * The push service that is simulated, which decides the host of a subscription's endpoint.
 *
 * @since 0.1.0
 * @category models
 */
export type Vendor = "fcm" | "mozilla" | "apple" | "wns"

/**
 * The response to a message, such as `{ status: 410 }`, or `{ status: 429, headers: { "retry-after": "30" } }`. A
 * `fault` replaces a regular response: `Stall` never responds, `Drip` sends one byte of the body every 20 milliseconds,
 * `Endless` sends a body without end, `Reset` breaks the connection after the headers, `GoAway` ends the connection
 * with an HTTP/2 GOAWAY (and closes one of HTTP/1.1).
 *
 * @since 0.1.0
 * @category models
 */
export interface Answer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly body?: string | undefined
  readonly fault?: "Stall" | "Drip" | "Endless" | "Reset" | "GoAway" | undefined
}

/**
 * A message that arrived. `text` and `bytes` are decrypted, `encrypted` is the body on the wire, and `privateKey` is
 * the device's key (32 bytes) that decrypts it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Received {
  readonly subscription: WebPushSubscription
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
  readonly bytes: Uint8Array
  readonly encrypted: Uint8Array
  readonly privateKey: Uint8Array
  readonly applicationServerKey: string
  readonly claims: { readonly aud: string; readonly exp: number; readonly sub: string }
}

/**
 * The options of the service.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Protocol of the service. `h2` by default. */
  readonly protocol?: "h2" | "http/1.1" | undefined
}

/**
 * The push service of a test. It checks tokens against the clock with which its layer was built: the `TestClock` of a
 * test that provides the layer.
 *
 * @since 0.1.0
 * @category tags
 */
export class TestPushService extends Context.Tag("effect-realtime/testing/TestPushService")<
  TestPushService,
  TestPushService.Service
>() {}

/**
 * @since 0.1.0
 */
export declare namespace TestPushService {
  /**
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    /** Makes a device. With `applicationServerKey` it accepts only messages that are signed with that key. */
    readonly subscribe: (options?: {
      readonly vendor?: Vendor | undefined
      readonly applicationServerKey?: string | undefined
    }) => Effect.Effect<WebPushSubscription>
    /** Sets the response for one device, or for all devices without a response of their own. 201 by default. */
    readonly answer: (answer: Answer, subscription?: WebPushSubscription) => Effect.Effect<void>
    /** Messages that conform to the RFCs, in the order of their arrival. */
    readonly received: Effect.Effect<ReadonlyArray<Received>>
    /** Rules that other messages broke. These messages were answered with 400. */
    readonly violations: Effect.Effect<ReadonlyArray<string>>
    /** Number of connections that were opened in total, and that are open now. */
    readonly connections: Effect.Effect<{ readonly opened: number; readonly open: number }>
    /** Port of the service on this machine. */
    readonly port: number
    /** Certificate of the service, in PEM. */
    readonly certificate: string
  }
}

interface Device {
  readonly subscription: WebPushSubscription
  readonly ecdh: ECDH
  readonly auth: Buffer
  answer?: Answer
}

const endpoints: Record<Vendor, (token: string) => string> = {
  fcm: (token) => `https://fcm.googleapis.com/fcm/send/${token}`,
  mozilla: (token) => `https://updates.push.services.mozilla.com/wpush/v2/${token}`,
  apple: (token) => `https://web.push.apple.com/${token}`,
  wns: (token) => `https://wns2-par02p.notify.windows.com/w/?token=${token}%3d`
}

const hostnames = [
  "localhost",
  "fcm.googleapis.com",
  "*.google.com",
  "*.push.services.mozilla.com",
  "*.push.apple.com",
  "*.notify.windows.com"
]

const parseSegment = (segment: string): unknown => JSON.parse(Buffer.from(segment, "base64url").toString())

const makeDevice = (vendor: Vendor, applicationServerKey: string | undefined): Device => {
  const ecdh = createECDH("prime256v1")
  const auth = randomBytes(16)
  const subscription = new WebPushSubscription({
    endpoint: endpoints[vendor](randomBytes(24).toString("base64url")),
    expiresAt: null,
    keys: { p256dh: ecdh.generateKeys("base64url"), auth: auth.toString("base64url") },
    ...(applicationServerKey === undefined ? undefined : { applicationServerKey })
  })
  return { subscription, ecdh, auth }
}

const decrypt = (body: Buffer, { auth, ecdh }: Device): Buffer => {
  const salt = body.subarray(0, 16)
  const keyLength = body.readUInt8(20)
  const senderKey = body.subarray(21, 21 + keyLength)
  const derive = (secret: Uint8Array, salt: Uint8Array, info: string | Uint8Array, length: number) =>
    Buffer.from(hkdfSync("sha256", secret, salt, info, length))
  const info = Buffer.concat([Buffer.from("WebPush: info\0"), ecdh.getPublicKey(), senderKey])
  const secret = derive(ecdh.computeSecret(senderKey), auth, info, 32)
  const decipher = createDecipheriv(
    "aes-128-gcm",
    derive(secret, salt, "Content-Encoding: aes128gcm\0", 16),
    derive(secret, salt, "Content-Encoding: nonce\0", 12)
  )
  const record = body.subarray(21 + keyLength)
  decipher.setAuthTag(record.subarray(-16))
  const padded = Buffer.concat([decipher.update(record.subarray(0, -16)), decipher.final()])
  const end = padded.lastIndexOf(2)
  if (end === -1 || padded.subarray(end + 1).some((byte) => byte !== 0)) {
    throw new Error("the record must be marked as the last one (RFC 8188, 2)")
  }
  return padded.subarray(0, end)
}

const verifyToken = (token: string, publicKey: string): boolean => {
  const point = Buffer.from(publicKey, "base64url")
  const [header = "", claims = "", signature = ""] = token.split(".")
  const key = createPublicKey({
    format: "jwk",
    key: {
      kty: "EC",
      crv: "P-256",
      x: point.toString("base64url", 1, 33),
      y: point.toString("base64url", 33, 65)
    }
  })
  return verify(
    "sha256",
    Buffer.from(`${header}.${claims}`),
    { key, dsaEncoding: "ieee-p1363" },
    Buffer.from(signature, "base64url")
  )
}

/** Reads a message. Throws the first rule that it breaks. */
const read = (
  device: Device,
  method: string | undefined,
  headers: Record<string, string>,
  body: Buffer,
  nowMillis: number
): Received => {
  const demand = (holds: boolean, rule: string) => {
    if (!holds) throw new Error(rule)
  }
  const { subscription } = device
  demand(method === "POST", "the method must be POST (RFC 8030, 5)")
  demand(headers["content-encoding"] === "aes128gcm", "content-encoding must be aes128gcm (RFC 8291, 4)")
  demand(
    /^\d{1,10}$/.test(headers.ttl ?? "") && Number(headers.ttl) < 2 ** 31,
    "ttl must be whole seconds (RFC 8030, 5.2)"
  )
  demand(
    /^(very-low|low|normal|high)$/.test(headers.urgency ?? "normal"),
    "urgency must be one of four (RFC 8030, 5.3)"
  )
  const topic = headers.topic ?? "none"
  demand(
    /^[\w-]{1,32}$/.test(topic) && topic.length % 4 !== 1,
    "topic must be 32 characters of base64url (RFC 8030, 5.4)"
  )
  demand(headers["content-length"] === String(body.length), "content-length must be given (WNS)")
  demand(
    !subscription.endpoint.includes(".notify.windows.com/") || headers.ttl !== "0" ||
      headers["x-wns-cache-policy"] === "no-cache",
    "a ttl of 0 must come with x-wns-cache-policy (WNS)"
  )
  demand(body.length <= 4096, "body must not exceed 4,096 bytes (RFC 8030, 7.2)")
  demand(
    body.length >= 86 + 17 && body.readUInt8(20) === 65,
    "body must begin with salt, record size and key (RFC 8188, 2.1)"
  )
  demand(body.readUInt32BE(16) > body.length - 86, "body must be a single record (RFC 8291, 4)")

  const match = /^vapid t=([\w-]+\.[\w-]+\.[\w-]+), k=([\w-]{87})$/.exec(headers.authorization ?? "")
  const [, token = "", applicationServerKey = ""] = match ?? []
  demand(match !== null, "authorization must be vapid with t and k (RFC 8292, 3)")
  const [header = "", claimsSegment = ""] = token.split(".")
  demand(Object(parseSegment(header)).alg === "ES256", "the token must be signed with ES256 (RFC 8292, 2)")
  demand(verifyToken(token, applicationServerKey), "the signature must be that of the key (RFC 8292, 2)")
  demand(
    [applicationServerKey, undefined].includes(subscription.applicationServerKey),
    "the key must be the one that the subscription was made with (RFC 8292, 4.2)"
  )
  demand(body.toString("base64url", 21, 86) !== applicationServerKey, "the two keys must differ (RFC 8292, 3.2)")
  const claims = Object(parseSegment(claimsSegment))
  const now = nowMillis / 1000
  demand(claims.aud === new URL(subscription.endpoint).origin, "aud must be the origin of the endpoint (RFC 8292, 2)")
  demand(claims.exp > now && claims.exp <= now + 86_400, "exp must be within 24 hours (RFC 8292, 2)")
  demand(/^(mailto|https):/.test(claims.sub), "sub must be a mailto: or https: URL (RFC 8292, 2.1)")

  const bytes = decrypt(body, device)
  const privateKey = Buffer.concat([Buffer.alloc(32), device.ecdh.getPrivateKey()]).subarray(-32)
  return {
    subscription,
    headers,
    text: bytes.toString(),
    bytes,
    encrypted: body,
    privateKey,
    applicationServerKey,
    claims
  }
}

type Response = Http.ServerResponse | Http2.Http2ServerResponse

const reply = (response: Response, answer: Answer, breakConnection: () => void) => {
  const writable: Writable = response
  const session = "stream" in response ? response.stream.session : undefined
  const body = answer.body ?? ""
  const send = () => response.writeHead(answer.status, { ...answer.headers })
  switch (answer.fault) {
    case undefined:
      response.writeHead(answer.status, { "content-length": String(Buffer.byteLength(body)), ...answer.headers })
      response.end(body)
      return
    case "Stall":
      return
    case "Drip": {
      send()
      const timer = setInterval(() => writable.write("."), 20)
      response.on("close", () => clearInterval(timer))
      return
    }
    case "Endless": {
      send()
      const chunk = Buffer.alloc(16_384, "x")
      const more = () => {
        while (!writable.destroyed && writable.write(chunk));
      }
      response.on("drain", more)
      return more()
    }
    case "Reset":
      send()
      writable.write("x", breakConnection)
      return
    case "GoAway":
      return session === undefined ?
        breakConnection() :
        session.goaway(Http2.constants.NGHTTP2_ENHANCE_YOUR_CALM)
  }
}

/**
 * Starts the service, for a client of its own: the `certificate` must be trusted, and the endpoints lead to `port`. The
 * service ends with the scope.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as TestPushService from "effect-realtime/testing/TestPushService"
 *
 * const program = Effect.gen(function*() {
 *   const { certificate, port, subscribe } = yield* TestPushService.make({ protocol: "http/1.1" })
 *   const { endpoint } = yield* subscribe({ vendor: "mozilla" })
 *   return { certificate, endpoint, port }
 * })
 *
 * Effect.runFork(Effect.scoped(program))
 * ```
 */
export const make: (options?: Options) => Effect.Effect<TestPushService.Service, never, Scope.Scope> = Effect
  .fnUntraced(
    function*(options = {}) {
      const clock = yield* Effect.clock
      const { cert, key } = TestCertificate.make(hostnames)
      const devices = new Map<string, Device>()
      const received: Array<Received> = []
      const violations: Array<string> = []
      const sockets = new Set<Net.Socket>()
      let opened = 0
      let answerToAll: Answer = { status: 201 }

      const onRequest = (request: Http.IncomingMessage | Http2.Http2ServerRequest, response: Response) => {
        const breakConnection = () => {
          for (const socket of sockets) {
            if (socket.remotePort === request.socket.remotePort) socket.destroy()
          }
        }
        const chunks: Array<Buffer> = []
        request.on("error", () => {})
        request.on("data", (chunk: Buffer) => chunks.push(chunk))
        request.on("end", () => {
          const device = devices.get(request.url ?? "")
          if (device === undefined) return reply(response, { status: 404 }, breakConnection)
          const headers = Object.fromEntries(
            Object.entries(request.headers).map(([name, value]) => [name, String(value)])
          )
          const message = Either.try({
            try: () => read(device, request.method, headers, Buffer.concat(chunks), clock.unsafeCurrentTimeMillis()),
            catch: (error) => error instanceof Error ? error.message : "the message cannot be read"
          })
          if (Either.isLeft(message)) {
            violations.push(message.left)
            return reply(response, { status: 400, body: message.left }, breakConnection)
          }
          received.push(message.right)
          reply(response, device.answer ?? answerToAll, breakConnection)
        })
      }
      const server: Net.Server = options.protocol === "http/1.1" ?
        Https.createServer({ cert, key }, onRequest) :
        Http2.createSecureServer({ cert, key }, onRequest)
      let isClosed = false
      server.on("connection", (socket: Net.Socket) => {
        // The server closes only after its last connection.
        if (isClosed) return socket.destroy()
        opened++
        sockets.add(socket)
        socket.on("error", () => {})
        socket.once("close", () => sockets.delete(socket))
      })
      server.on("sessionError", () => {})

      const port = yield* Effect.acquireRelease(
        Effect.async<number>((resume) => {
          server.listen(0, "127.0.0.1", () => {
            const address = server.address()
            resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0))
          })
        }),
        () =>
          Effect.async<void>((resume) => {
            isClosed = true
            server.close(() => resume(Effect.void))
            for (const socket of sockets) socket.destroy()
          }).pipe(Effect.timeoutOption("1 second"))
      )

      return TestPushService.of({
        subscribe: (options) =>
          Effect.sync(() => {
            const device = makeDevice(options?.vendor ?? "fcm", options?.applicationServerKey)
            const { pathname, search } = new URL(device.subscription.endpoint)
            devices.set(pathname + search, device)
            return device.subscription
          }),
        answer: (answer, subscription) =>
          Effect.sync(() => {
            if (subscription === undefined) {
              answerToAll = answer
              return
            }
            const { pathname, search } = new URL(subscription.endpoint)
            const device = devices.get(pathname + search)
            if (device !== undefined) device.answer = answer
          }),
        received: Effect.sync(() => [...received]),
        violations: Effect.sync(() => [...violations]),
        connections: Effect.sync(() => ({ opened, open: sockets.size })),
        port,
        certificate: cert
      })
    }
  )

/**
 * Provides the service, and what `WebPush` needs: the guarded client of `effect-realtime/node`, with each host name
 * resolved to the service, and the cryptography of `NodeWebPushCrypto`. All other parts are the same as in production.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import * as TestPushService from "effect-realtime/testing/TestPushService"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const testLayer = (options: WebPush.Options) =>
 *   WebPush.layerWith(options).pipe(Layer.provideMerge(TestPushService.layerWith({ protocol: "http/1.1" })))
 * ```
 */
export const layerWith = (
  options: Options
): Layer.Layer<TestPushService | HttpClient.HttpClient | WebPushCrypto> =>
  Layer.scoped(
    HttpClient.HttpClient,
    Effect.gen(function*() {
      const { certificate, port } = yield* TestPushService
      const client = yield* PushHttpClient.make({
        ca: certificate,
        allowedAddresses: ["127.0.0.1"],
        lookup: (_hostname, _options, callback) => callback(null, [{ address: "127.0.0.1", family: 4 }])
      })
      return HttpClient.mapRequest(client, (request) => {
        const url = new URL(request.url)
        url.port = String(port)
        return HttpClientRequest.setUrl(request, url.href)
      })
    })
  ).pipe(
    Layer.provideMerge(Layer.scoped(TestPushService, make(options))),
    Layer.merge(NodeWebPushCrypto.layer)
  )

/**
 * Provides the service over HTTP/2, and what `WebPush` needs, as `layerWith` does.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import * as TestPushService from "effect-realtime/testing/TestPushService"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * // The layer of the application, over the test service.
 * const WebPushTest = Layer.unwrapEffect(
 *   Effect.map(VapidKeys.generate, (vapid) => WebPush.layerWith({ vapid, subject: "mailto:ops@example.com" }))
 * ).pipe(Layer.provideMerge(TestPushService.layer))
 *
 * const program = Effect.gen(function*() {
 *   const { subscribe, violations } = yield* TestPushService.TestPushService
 *   yield* WebPush.send(yield* subscribe(), "Order 7 was approved.")
 *   console.log(yield* violations) // []
 * })
 *
 * Effect.runFork(Effect.provide(program, WebPushTest))
 * ```
 */
export const layer: Layer.Layer<TestPushService | HttpClient.HttpClient | WebPushCrypto> = layerWith({})

/**
 * Provides `WebPush` over the service, with a new key pair and the subject `mailto:ops@example.com`, unless the
 * options have others.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as TestPushService from "effect-realtime/testing/TestPushService"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const program = Effect.gen(function*() {
 *   const { received, subscribe } = yield* TestPushService.TestPushService
 *   yield* WebPush.send(yield* subscribe(), "Order 7 was approved.")
 *   const [message] = yield* received
 *   console.log(message?.text, message?.headers.ttl) // "Order 7 was approved." "86400"
 * })
 *
 * Effect.runFork(Effect.provide(program, TestPushService.layerWebPushWith({ ttl: "1 day" })))
 * ```
 */
export const layerWebPushWith = (
  options: Options & Partial<WebPush.Options>
): Layer.Layer<WebPush.WebPush | TestPushService | HttpClient.HttpClient | WebPushCrypto, WebPushConfigError> =>
  Layer.unwrapEffect(
    Effect.map(
      VapidKeys.generate,
      (vapid) => WebPush.layerWith({ vapid, subject: "mailto:ops@example.com", ...options })
    )
  ).pipe(Layer.provideMerge(layerWith(options)))

/**
 * Provides `WebPush` over the service, with a new key pair and the subject `mailto:ops@example.com`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as TestPushService from "effect-realtime/testing/TestPushService"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const program = Effect.gen(function*() {
 *   const { answer, subscribe } = yield* TestPushService.TestPushService
 *   const device = yield* subscribe()
 *   yield* answer({ status: 429, headers: { "retry-after": "30" } })
 *   const error = yield* Effect.flip(WebPush.send(device, "Order 7 was approved."))
 *   console.log(error._tag === "WebPushFailure" && error.reason) // "RateLimited"
 *
 *   yield* answer({ status: 410 }, device)
 *   console.log((yield* Effect.flip(WebPush.send(device, "Order 7 was approved.")))._tag) // "WebPushGone"
 * })
 *
 * Effect.runFork(Effect.provide(program, TestPushService.layerWebPush))
 * ```
 */
export const layerWebPush: Layer.Layer<
  WebPush.WebPush | TestPushService | HttpClient.HttpClient | WebPushCrypto,
  WebPushConfigError
> = layerWebPushWith({})
