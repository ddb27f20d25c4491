import { randomBytes } from "node:crypto"
import * as Http2 from "node:http2"
import * as Https from "node:https"
import * as Net from "node:net"
import * as Tls from "node:tls"
import { inspect } from "node:util"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

import { HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Scope } from "effect"
import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"

import * as TestCertificate from "../../src/internal/testCertificate.js"
import { forbiddenUrls, pushServiceUrls } from "../endpoints.js"

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

const { publicKey: p256dh } = Effect.runSync(VapidKeys.generate)
const auth = randomBytes(16).toString("base64url")

const subscribe = (endpoint: string) =>
  new WebPushSubscription({ endpoint, keys: { p256dh, auth } }, { disableValidation: true })

interface Server {
  readonly port: number
  readonly open: () => number
  readonly opened: () => number
  readonly bytes: () => number
}

/** A server on this machine that counts its connections and what they bring. */
const listen = (server: Net.Server): Effect.Effect<Server, never, Scope.Scope> => {
  const sockets = new Set<Net.Socket>()
  let opened = 0
  let bytes = 0
  server.on("connection", (socket: Net.Socket) => {
    opened++
    sockets.add(socket)
    socket.on("error", () => {})
    socket.on("data", (chunk) => {
      bytes += chunk.length
    })
    socket.on("close", () => sockets.delete(socket))
  })
  server.on("secureConnection", (socket: Tls.TLSSocket) => {
    socket.on("error", () => {})
    if ("setTimeout" in server) return // HTTP/2 reads for itself
    socket.on("data", (chunk) => {
      bytes += chunk.length
    })
  })
  server.on("stream", () => {
    bytes += 1000
  })
  return Effect.acquireRelease(
    Effect.async<Server>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({ port, open: () => sockets.size, opened: () => opened, bytes: () => bytes }))
      })
    }),
    () =>
      Effect.async<void>((resume) => {
        server.close(() => resume(Effect.void))
        for (const socket of sockets) socket.destroy()
      })
  )
}

const certificate = TestCertificate.make(["localhost"])
const local: PushHttpClient.Options = { ca: certificate.cert, allowedAddresses: ["127.0.0.1", "::1"] }

const withWebPush = (port: number, options: PushHttpClient.Options = local) =>
  Effect.provide(
    Layer.unwrapEffect(
      Effect.map(VapidKeys.generate, (vapid) =>
        WebPush.layer({ vapid, subject: "mailto:ops@example.com", hosts: [`localhost:${port}`, "push.example.org"] }))
    ).pipe(Layer.provideMerge(PushHttpClient.layer(options)))
  )

const until = (condition: () => boolean) =>
  Effect.repeat(Effect.delay(Effect.sync(condition), "5 millis"), { until: (holds) => holds }).pipe(
    Effect.timeoutFail({ duration: "5 seconds", onTimeout: () => "it did not come to be" })
  )

const describeError = (error: WebPush.WebPushGone | WebPush.WebPushFailure) =>
  error._tag === "WebPushGone" ? "Gone" : error.detail === undefined ? error.reason : `${error.reason} ${error.detail}`

describe("a push service that misbehaves", () => {
  const timeout = 300
  // For a busy machine. Without a deadline these would not end at all.
  const slack = 2000

  /** Servers of bytes, below HTTP. */
  const raw: ReadonlyArray<readonly [name: string, server: () => Net.Server, outcome: string]> = [
    ["accepts and says nothing", () => Net.createServer(), "Timeout"],
    ["accepts and hangs up", () => Net.createServer((socket) => socket.destroy()), "Transport ECONNRESET"],
    [
      "speaks no TLS",
      () => Net.createServer((socket) => socket.end("HTTP/1.1 201 Created\r\n\r\n")),
      "Transport ERR_SSL_WRONG_VERSION_NUMBER"
    ],
    ["answers no request", () => Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] }), "Timeout"],
    ["promises HTTP/2 and never begins", () => Tls.createServer({ ...certificate, ALPNProtocols: ["h2"] }), "Timeout"],
    [
      "speaks no HTTP",
      () =>
        Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] }, (socket) => socket.write("nonsense\r\n\r\n")),
      "Transport HPE_INVALID_CONSTANT"
    ],
    [
      "breaks off in the middle of the head",
      () =>
        Tls.createServer(
          { ...certificate, ALPNProtocols: ["http/1.1"] },
          (socket) => socket.once("data", () => socket.end("HTTP/1.1 201 Cre"))
        ),
      "Transport ECONNRESET"
    ],
    [
      "breaks off in the middle of the body",
      () =>
        Tls.createServer(
          { ...certificate, ALPNProtocols: ["http/1.1"] },
          (socket) => socket.once("data", () => socket.end("HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\nx"))
        ),
      "Transport ECONNRESET"
    ],
    [
      "sends a head without end",
      () =>
        Tls.createServer(
          { ...certificate, ALPNProtocols: ["http/1.1"] },
          (socket) => socket.once("data", () => socket.write(`HTTP/1.1 201 Created\r\nx: ${"x".repeat(1 << 20)}`))
        ),
      "Transport HPE_HEADER_OVERFLOW"
    ],
    [
      "shows a certificate that nobody vouches for",
      () => Tls.createServer(TestCertificate.make(["localhost"])),
      "Transport DEPTH_ZERO_SELF_SIGNED_CERT"
    ],
    [
      "sends GOAWAY and forgets the request",
      () => {
        const server = Http2.createSecureServer(certificate)
        server.on("sessionError", () => {})
        server.on("stream", (stream) => {
          stream.on("error", () => {})
          // The first request of a connection is answered, the next one is disowned.
          if (stream.id === 1) {
            stream.respond({ ":status": 201 })
            stream.end()
          } else stream.session?.goaway(Http2.constants.NGHTTP2_NO_ERROR, 1)
        })
        return server
      },
      "Transport NGHTTP2_REFUSED_STREAM"
    ]
  ]

  for (const [name, server, outcome] of raw) {
    it.live(`that ${name} is a failure in time`, () =>
      Effect.gen(function*() {
        const { open, port } = yield* listen(server())
        yield* Effect.gen(function*() {
          const subscription = subscribe(`https://localhost:${port}/x`)
          const send = WebPush.send(subscription, "hello", { timeout })
          const disowned = outcome.includes("REFUSED")
          if (disowned) yield* send
          const [elapsed, error] = yield* Effect.timed(Effect.flip(send))
          assert.strictEqual(describeError(error), outcome)
          assert.isBelow(Duration.toMillis(elapsed), timeout + slack)
          // After its own GOAWAY, Node's server reads no more and does not see the client leave.
          if (!disowned) yield* until(() => open() === 0)
        }).pipe(withWebPush(port))
      }).pipe(Effect.scoped))
  }

  it.live("that shows a certificate for another name is a failure", () =>
    Effect.gen(function*() {
      const other = TestCertificate.make(["other.example"])
      const { open, port } = yield* listen(Tls.createServer(other))
      const error = yield* Effect.flip(WebPush.send(subscribe(`https://localhost:${port}/x`), "hello")).pipe(
        withWebPush(port, { ...local, ca: other.cert })
      )
      assert.strictEqual(describeError(error), "Transport ERR_TLS_CERT_ALTNAME_INVALID")
      yield* until(() => open() === 0)
    }).pipe(Effect.scoped))

  for (const protocol of ["h2", "http/1.1"] as const) {
    it.live(`over ${protocol} is a failure in time, and takes no memory`, () =>
      Effect.gen(function*() {
        const service = yield* TestPushService.TestPushService
        const subscription = yield* service.subscribe()
        const cases: ReadonlyArray<readonly [TestPushService.Answer, string]> = [
          [{ status: 201, fault: "Stall" }, "Timeout"],
          [{ status: 201, fault: "Drip" }, "Timeout"],
          [{ status: 500, fault: "Drip" }, "Timeout"],
          [{ status: 201, fault: "Reset" }, "Transport ECONNRESET"],
          [{ status: 500, fault: "Reset" }, "Transport ECONNRESET"],
          [{ status: 201, fault: "Endless" }, "Transport RESPONSE_TOO_LARGE"],
          [{ status: 500, fault: "Endless" }, "Unavailable"],
          [{ status: 410, fault: "Endless" }, "Gone"],
          [{ status: 201, fault: "GoAway" }, "Transport ECONNRESET"],
          [{ status: 307, headers: { location: "https://127.0.0.1/" } }, "Rejected"]
        ]
        for (const [answer, outcome] of cases) {
          yield* service.answer(answer)
          const [elapsed, error] = yield* Effect.timed(Effect.flip(WebPush.send(subscription, "hello", { timeout })))
          assert.strictEqual(describeError(error), outcome)
          assert.isBelow(Duration.toMillis(elapsed), timeout + slack)
        }
        collectGarbage()
        const before = process.memoryUsage.rss()
        yield* service.answer({ status: 500, fault: "Endless" })
        for (let index = 0; index < 30; index++) yield* Effect.flip(WebPush.send(subscription, "hello"))
        collectGarbage()
        assert.isBelow(process.memoryUsage.rss() - before, 5 * 1024 * 1024)

        // Nothing is left open but what can be used again.
        yield* Effect.repeat(Effect.delay(service.connections, "5 millis"), { until: ({ open }) => open <= 1 }).pipe(
          Effect.timeout("5 seconds")
        )
        // It is as good as new afterwards.
        yield* service.answer({ status: 201 })
        yield* WebPush.send(subscription, "hello")
      }).pipe(Effect.provide(
        Layer.unwrapEffect(
          Effect.map(VapidKeys.generate, (vapid) => WebPush.layer({ vapid, subject: "mailto:ops@example.com" }))
        ).pipe(Layer.provideMerge(TestPushService.layer({ protocol })))
      )), 30_000)
  }
})

describe("interruption", () => {
  for (
    const [name, server] of [
      ["before the TLS handshake", () => Net.createServer()],
      ["over HTTP/1.1", () => Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] })],
      ["over HTTP/2", () => Http2.createSecureServer(certificate, () => {})]
    ] as const
  ) {
    it.live(`closes the socket ${name}`, () =>
      Effect.gen(function*() {
        const { bytes, open, port } = yield* listen(server())
        yield* Effect.gen(function*() {
          const fibers = yield* Effect.replicateEffect(
            Effect.fork(WebPush.send(subscribe(`https://localhost:${port}/x`), "hello")),
            3
          )
          yield* until(() => open() > 0 && bytes() > 200)
          const [first, ...others] = fibers
          if (first !== undefined) yield* Fiber.interrupt(first)
          yield* Fiber.interruptAll(others)
          yield* until(() => open() === 0)
        }).pipe(withWebPush(port))
      }).pipe(Effect.scoped))
  }

  it.live("leaves the other requests of the connection alone", () =>
    Effect.gen(function*() {
      let endSlow = () => {}
      const server = Http2.createSecureServer(certificate)
      server.on("stream", (stream, headers) => {
        stream.on("error", () => {})
        if (headers[":path"] !== "/slow") return
        stream.respond({ ":status": 201 })
        stream.write("x")
        endSlow = () => stream.end()
      })
      const { opened, port } = yield* listen(server)
      yield* Effect.gen(function*() {
        const slow = yield* Effect.fork(WebPush.send(subscribe(`https://localhost:${port}/slow`), "hello"))
        const stuck = yield* Effect.fork(WebPush.send(subscribe(`https://localhost:${port}/stuck`), "hello"))
        yield* until(() => opened() === 1)
        yield* Effect.sleep("50 millis")
        yield* Fiber.interrupt(stuck)
        endSlow()
        assert.strictEqual((yield* Fiber.join(slow)).status, 201)
        assert.strictEqual(opened(), 1)
      }).pipe(withWebPush(port))
    }).pipe(Effect.scoped))

  it.live("closing the scope fails what is on its way, and dials for none that waits", () =>
    Effect.gen(function*() {
      const { bytes, open, opened, port } = yield* listen(
        Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] })
      )
      const scope = yield* Scope.make()
      const client = yield* Scope.extend(
        PushHttpClient.make({ ca: certificate.cert, allowedAddresses: ["127.0.0.1"], connections: 2 }),
        scope
      )
      const post = HttpClientRequest.post(`https://localhost:${port}/x`)
      const fibers = yield* Effect.replicateEffect(Effect.fork(Effect.flip(client.execute(post))), 8)
      yield* until(() => opened() === 2 && bytes() > 100)
      yield* Scope.close(scope, Exit.void)
      const errors = yield* Effect.forEach(fibers, Fiber.join)
      assert.isTrue(errors.every((error) => error._tag === "RequestError" && error.reason === "Transport"))
      yield* until(() => open() === 0)
      assert.strictEqual((yield* Effect.flip(client.execute(post)))._tag, "RequestError")
      yield* Effect.sleep("100 millis")
      assert.deepStrictEqual([opened(), open()], [2, 0])
    }).pipe(Effect.scoped))

  it.live("a header that cannot be sent leaves no connection behind", () =>
    Effect.gen(function*() {
      const { open, opened, port } = yield* listen(
        Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] })
      )
      const client = yield* PushHttpClient.make({ ca: certificate.cert, allowedAddresses: ["127.0.0.1"] })
      const error = yield* HttpClientRequest.post(`https://localhost:${port}/x`).pipe(
        HttpClientRequest.setHeader("topic", "a\nb"),
        client.execute,
        Effect.flip
      )
      assert.strictEqual(error._tag, "RequestError")
      yield* until(() => opened() === 1 && open() === 0)
    }).pipe(Effect.scoped))

  it.live("closing the scope closes every connection", () =>
    Effect.gen(function*() {
      for (
        const server of [
          Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] }),
          Http2.createSecureServer(certificate)
        ]
      ) {
        const { bytes, open, port } = yield* listen(server)
        const fiber = yield* WebPush.send(subscribe(`https://localhost:${port}/x`), "hello").pipe(
          withWebPush(port),
          Effect.fork
        )
        yield* until(() => bytes() > 200)
        yield* Fiber.interrupt(fiber)
        yield* until(() => open() === 0)
      }
    }).pipe(Effect.scoped))
})

describe("addresses", () => {
  const toLoopback: Net.LookupFunction = (_hostname, _options, callback) =>
    callback(null, [{ address: "127.0.0.1", family: 4 }])

  it.live("that are not public get not one byte, whatever they are called", () =>
    Effect.gen(function*() {
      const { bytes, opened, port } = yield* listen(Net.createServer())
      const client = yield* PushHttpClient.make({ ca: certificate.cert, lookup: toLoopback })
      for (const url of [...forbiddenUrls, ...pushServiceUrls]) {
        const target = URL.canParse(url) ? new URL(url) : undefined
        if (target !== undefined && target.protocol === "https:") target.port = String(port)
        yield* client.execute(HttpClientRequest.post(target?.href ?? url)).pipe(
          Effect.timeout("2 seconds"),
          Effect.flip
        )
      }
      assert.strictEqual(opened() + bytes(), 0)

      // The listener would have noticed.
      const open = yield* PushHttpClient.make({ allowedAddresses: ["127.0.0.0/8"], lookup: toLoopback })
      yield* open.get(`https://fcm.googleapis.com:${port}/`).pipe(Effect.timeout("200 millis"), Effect.flip)
      yield* open.get(`https://2130706433:${port}/`).pipe(Effect.timeout("200 millis"), Effect.flip)
      assert.strictEqual(opened(), 2)
    }).pipe(Effect.scoped), 60_000)

  it.live("are all checked, each time that a name is resolved", () =>
    Effect.gen(function*() {
      const { opened, port } = yield* listen(Net.createServer())
      const answers: ReadonlyArray<ReadonlyArray<string>> = [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["2001:4860:4860::8888", "::1"],
        ["8.8.8.8", "::ffff:10.0.0.1"],
        ["8.8.8.8", "64:ff9b::7f00:1"],
        ["169.254.169.254"],
        ["fd00::1"],
        []
      ]
      for (const addresses of answers) {
        const error = yield* WebPush.send(subscribe("https://push.example.org/x"), "hello").pipe(
          withWebPush(port, {
            lookup: (_hostname, _options, callback) =>
              callback(null, addresses.map((address) => ({ address, family: Net.isIP(address) })))
          }),
          Effect.flip
        )
        if (error._tag !== "WebPushFailure") return assert.fail(error._tag)
        assert.strictEqual(describeError(error), "Blocked ERR_BLOCKED_ADDRESS", addresses.join())
        // The name may stand for another address a moment later.
        assert.deepStrictEqual([error.isFinal, error.needsNewSubscription], [false, false])
      }
      assert.strictEqual(opened(), 0)
    }).pipe(Effect.scoped))

  it.live("are checked again for the next connection, when the name has come to mean something else", () =>
    Effect.gen(function*() {
      for (
        const server of [
          Https.createServer(
            certificate,
            (_request, response) => response.writeHead(201, { connection: "close" }).end()
          ),
          Http2.createSecureServer(certificate, (_request, response) => {
            response.writeHead(201).end()
            response.stream.session?.close()
          })
        ]
      ) {
        const { open, opened, port } = yield* listen(server)
        let address = "127.0.0.1"
        const client = yield* PushHttpClient.make({
          ca: certificate.cert,
          allowedAddresses: ["127.0.0.1"],
          lookup: (_hostname, _options, callback) => callback(null, [{ address, family: 4 }])
        })
        const get = client.get(`https://localhost:${port}/`)
        assert.strictEqual((yield* get).status, 201)
        yield* until(() => open() === 0)
        address = "127.0.0.2"
        const error = yield* Effect.flip(get)
        assert.include(inspect(error.cause), "ERR_BLOCKED_ADDRESS")
        address = "127.0.0.1"
        assert.strictEqual((yield* get).status, 201)
        assert.strictEqual(opened(), 2)
      }
    }).pipe(Effect.scoped))

  it.live("of a name that does not resolve are no Blocked, and may be tried again", () =>
    Effect.gen(function*() {
      const error = yield* WebPush.send(subscribe("https://push.example.org/x"), "hello").pipe(
        withWebPush(1, {
          lookup: (_hostname, _options, callback) =>
            callback(Object.assign(new Error("not found"), { code: "ENOTFOUND" }), [])
        }),
        Effect.flip
      )
      if (error._tag !== "WebPushFailure") return assert.fail(error._tag)
      assert.strictEqual(describeError(error), "Transport ENOTFOUND")
      assert.isTrue(error.isRetryable)
    }))
})

describe("the client", () => {
  it.live("waits for a free connection when all are busy", () =>
    Effect.gen(function*() {
      const server = Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] }, (socket) => {
        socket.on("data", (chunk) => {
          if (chunk.includes("\r\n\r\n")) {
            setTimeout(() => socket.write("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n"), 5)
          }
        })
      })
      const { opened, port } = yield* listen(server)
      const client = yield* PushHttpClient.make({ ...local, connections: 3 })
      yield* Effect.replicateEffect(client.get(`https://localhost:${port}/`), 40, { concurrency: "unbounded" })
      assert.strictEqual(opened(), 3)
    }).pipe(Effect.scoped))

  it.live("takes bytes and https alone", () =>
    Effect.gen(function*() {
      const client = yield* PushHttpClient.make()
      const http = yield* Effect.flip(client.get("http://push.example.org/"))
      assert.strictEqual(http.reason, "InvalidUrl")
      const form = yield* Effect.flip(
        client.execute(
          HttpClientRequest.bodyFormDataRecord(HttpClientRequest.post("https://push.example.org/"), { a: "b" })
        )
      )
      assert.strictEqual(form.reason, "Encode")
    }).pipe(Effect.scoped))
})
