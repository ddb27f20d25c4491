import { randomBytes } from "node:crypto"
import * as Http from "node:http"
import * as Http2 from "node:http2"
import * as Https from "node:https"
import * as Net from "node:net"
import type { Duplex, Writable } from "node:stream"
import * as Tls from "node:tls"
import { inspect } from "node:util"

import { HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Either, Exit, Fiber, Redacted, Scope } from "effect"
import * as NodeWebPush from "effect-realtime/node/NodeWebPush"
import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"
import type { WebPushFailure, WebPushGone } from "effect-realtime/WebPushError"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"

import * as TestCertificate from "../../src/testing/internal/testCertificate.js"
import { forbiddenUrls, pushServiceUrls } from "../support/endpoints.js"
import { layerOver } from "../support/webPush.js"

const { publicKey: p256dh } = await Effect.runPromise(VapidKeys.generate)
const auth = randomBytes(16).toString("base64url")

const subscribe = (endpoint: string) =>
  new WebPushSubscription({ endpoint, keys: { p256dh, auth } }, { disableValidation: true })

interface Server {
  readonly port: number
  readonly open: () => number
  readonly opened: () => number
  readonly bytes: () => number
}

/** Starts a server on this machine that counts its connections and their bytes. */
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
    if ("setTimeout" in server) return // HTTP/2 reads its sockets itself
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
  Effect.provide(layerOver(PushHttpClient.layerWith(options), { hosts: [`localhost:${port}`, "push.example.org"] }))

const until = (condition: () => boolean) =>
  Effect.repeat(Effect.delay(Effect.sync(condition), "5 millis"), { until: (holds) => holds }).pipe(
    Effect.timeoutFail({ duration: "5 seconds", onTimeout: () => "the condition did not become true" })
  )

const describeError = (error: WebPushGone | WebPushFailure) =>
  error._tag === "WebPushGone" ? "Gone" : error.detail === undefined ? error.reason : `${error.reason} ${error.detail}`

describe("a push service that misbehaves", () => {
  const timeout = 300
  // Slack for a busy machine. Without a timeout these would never end.
  const slack = 2000

  // The first request of a connection is answered, the next one is met by a GOAWAY.
  const goingAway = (code: number, lastStreamId: number) => () => {
    const server = Http2.createSecureServer(certificate)
    server.on("sessionError", () => {})
    server.on("stream", (stream) => {
      stream.on("error", () => {})
      if (stream.id === 1) {
        stream.respond({ ":status": 201 })
        stream.end()
      } else stream.session?.goaway(code, lastStreamId)
    })
    return server
  }
  const { NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = Http2.constants

  /** Servers of bytes, below HTTP, and `neverSent` of a message to them. */
  const raw: ReadonlyArray<
    readonly [name: string, server: () => Net.Server, outcome: string, neverSent?: "neverSent"]
  > = [
    ["accepts and sends nothing", () => Net.createServer(), "Timeout", "neverSent"],
    ["accepts and closes", () => Net.createServer((socket) => socket.destroy()), "Transport ECONNRESET", "neverSent"],
    [
      "closes in the middle of the handshake",
      () => Net.createServer((socket) => socket.once("data", () => socket.destroy())),
      "Transport ECONNRESET",
      "neverSent"
    ],
    [
      "speaks no TLS",
      () => Net.createServer((socket) => socket.end("HTTP/1.1 201 Created\r\n\r\n")),
      "Transport ERR_SSL_WRONG_VERSION_NUMBER",
      "neverSent"
    ],
    ["answers no request", () => Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] }), "Timeout"],
    [
      "negotiates HTTP/2 and sends nothing",
      () => Tls.createServer({ ...certificate, ALPNProtocols: ["h2"] }),
      "Timeout",
      "neverSent"
    ],
    [
      "speaks no HTTP",
      () =>
        Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] }, (socket) => socket.write("nonsense\r\n\r\n")),
      "Transport HPE_INVALID_CONSTANT"
    ],
    [
      "closes in the middle of the headers",
      () =>
        Tls.createServer(
          { ...certificate, ALPNProtocols: ["http/1.1"] },
          (socket) => socket.once("data", () => socket.end("HTTP/1.1 201 Cre"))
        ),
      "Transport ECONNRESET"
    ],
    [
      "closes in the middle of the body",
      () =>
        Tls.createServer(
          { ...certificate, ALPNProtocols: ["http/1.1"] },
          (socket) => socket.once("data", () => socket.end("HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\nx"))
        ),
      "Transport ECONNRESET"
    ],
    [
      "sends headers without end",
      () =>
        Tls.createServer(
          { ...certificate, ALPNProtocols: ["http/1.1"] },
          (socket) => socket.once("data", () => socket.write(`HTTP/1.1 201 Created\r\nx: ${"x".repeat(1 << 20)}`))
        ),
      "Transport HPE_HEADER_OVERFLOW"
    ],
    [
      "has a self-signed certificate",
      () => Tls.createServer(TestCertificate.make(["localhost"])),
      "Transport DEPTH_ZERO_SELF_SIGNED_CERT",
      "neverSent"
    ],
    [
      "sends GOAWAY and drops the request",
      goingAway(NGHTTP2_NO_ERROR, 1),
      "Transport NGHTTP2_REFUSED_STREAM",
      "neverSent"
    ],
    [
      "sends GOAWAY with an error and drops the request",
      goingAway(NGHTTP2_ENHANCE_YOUR_CALM, 1),
      "Transport NGHTTP2_REFUSED_STREAM",
      "neverSent"
    ],
    [
      "sends GOAWAY with an error after it has processed the request",
      goingAway(NGHTTP2_ENHANCE_YOUR_CALM, 3),
      "Transport ECONNRESET"
    ],
    [
      "sends GOAWAY with the error REFUSED_STREAM after it has processed the request",
      goingAway(NGHTTP2_REFUSED_STREAM, 3),
      "Transport ECONNRESET"
    ]
  ]

  for (const [name, server, outcome, neverSent] of raw) {
    it.live(`that ${name} causes a failure in time`, () =>
      Effect.gen(function*() {
        const { open, port } = yield* listen(server())
        yield* Effect.gen(function*() {
          const subscription = subscribe(`https://localhost:${port}/x`)
          const send = WebPush.send(subscription, "hello", { timeout })
          const goesAway = name.includes("GOAWAY")
          if (goesAway) yield* WebPush.send(subscription, "hello")
          const [elapsed, error] = yield* Effect.timed(Effect.flip(send))
          if (error._tag !== "WebPushFailure") return assert.fail(error._tag)
          assert.strictEqual(describeError(error), outcome)
          assert.strictEqual(error.neverSent, neverSent === undefined ? undefined : true)
          assert.strictEqual(error.isRetryable, neverSent !== undefined)
          assert.isBelow(Duration.toMillis(elapsed), timeout + slack)
          // After its own GOAWAY, Node's server reads nothing and does not observe that the client leaves.
          if (!goesAway) yield* until(() => open() === 0)
        }).pipe(withWebPush(port))
      }).pipe(Effect.scoped))
  }

  it.live("that has a certificate for another name causes a failure", () =>
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
    it.live(`over ${protocol} causes a failure in time`, () =>
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
          const options = outcome === "Timeout" ? { timeout } : {}
          const [elapsed, error] = yield* Effect.timed(Effect.flip(WebPush.send(subscription, "hello", options)))
          assert.strictEqual(describeError(error), outcome)
          if (error._tag === "WebPushFailure") assert.isUndefined(error.neverSent)
          assert.isBelow(Duration.toMillis(elapsed), timeout + slack)
        }

        // Only a reusable connection is left open.
        yield* Effect.repeat(Effect.delay(service.connections, "5 millis"), { until: ({ open }) => open <= 1 }).pipe(
          Effect.timeout("5 seconds")
        )
        // The client works afterwards.
        yield* service.answer({ status: 201 })
        yield* WebPush.send(subscription, "hello")
      }).pipe(Effect.provide(TestPushService.layerWebPushWith({ protocol }))))
  }
})

describe("a response without end", () => {
  for (const protocol of ["h2", "http/1.1"] as const) {
    it.live(`uses no memory over ${protocol}: the client reads 8 KiB, and its connection transfers no more`, () =>
      Effect.gen(function*() {
        let offered = 0
        const chunk = Buffer.alloc(16_384, "x")
        const answer = (response: Writable) => {
          const more = () => {
            do offered += chunk.length
            while (response.write(chunk) && !response.destroyed)
          }
          response.on("error", () => {})
          response.on("drain", more)
          more()
        }
        const { open, port } = yield* listen(
          protocol === "h2"
            ? Http2.createSecureServer(certificate).on("stream", (stream) => {
              stream.respond({ ":status": 500 })
              answer(stream)
            })
            : Https.createServer(certificate, (_request, response) => answer(response.writeHead(500)))
        )
        yield* Effect.gen(function*() {
          const client = yield* PushHttpClient.make(local)
          for (let index = 0; index < 10; index++) {
            const response = yield* client.get(`https://localhost:${port}/`)
            assert.isBelow((yield* response.text).length, 8192 + 2 * 16_384)
          }
          // The buffers of the system on both sides: at most a few hundred KiB for a connection.
          const before = offered
          yield* until(() => open() <= 1)
          assert.isBelow(before, 10 * 1024 * 1024)
          yield* Effect.sleep("100 millis")
          assert.isBelow(offered - before, 4 * 1024 * 1024)
        }).pipe(Effect.scoped)
        yield* until(() => open() === 0)
      }).pipe(Effect.scoped))
  }
})

describe("a connection that a network has dropped", () => {
  /** Starts a proxy that forwards bytes, until it drops its connections and discards their bytes. */
  const forgetful = (to: number) => {
    const forget: Array<() => void> = []
    const server = Net.createServer((inner) => {
      const outer = Net.connect(to, "127.0.0.1")
      const sockets = [inner, outer]
      let isForgotten = false
      forget.push(() => {
        isForgotten = true
      })
      for (const [from, to] of [sockets, [outer, inner]]) {
        from?.on("error", () => {})
        from?.on("data", (chunk) => {
          if (!isForgotten) to?.write(chunk)
        })
        from?.on("close", () => {
          if (!isForgotten) to?.destroy()
        })
      }
      inner.on("close", () => outer.destroy())
    })
    return { server, forgetAll: () => forget.forEach((one) => one()) }
  }

  const accepting = () => {
    let pings = 0
    const server = Http2.createSecureServer(certificate, (_request, response) => response.writeHead(201).end())
    server.on("session", (session) => {
      session.on("error", () => {})
      session.on("ping", () => pings++)
    })
    return { server, pings: () => pings }
  }

  for (const concurrency of [1, "unbounded"] as const) {
    it.live(`is detected before any of 20 messages is lost over HTTP/2 (concurrency: ${concurrency})`, () =>
      Effect.gen(function*() {
        const { port: target } = yield* listen(accepting().server)
        const { forgetAll, server } = forgetful(target)
        const { opened, port } = yield* listen(server)
        yield* Effect.gen(function*() {
          const send = WebPush.send(subscribe(`https://localhost:${port}/x`), "hello")
          yield* send
          yield* Effect.sleep("1100 millis")
          forgetAll()
          const statuses = yield* Effect.replicateEffect(send, 20, { concurrency })
          assert.deepStrictEqual(statuses.map(({ status }) => status), Array(20).fill(201))
          assert.isAtLeast(opened(), 2)
        }).pipe(withWebPush(port))
      }).pipe(Effect.scoped))
  }

  it.live("loses one message over HTTP/1.1: the other idle connections are closed with it", () =>
    Effect.gen(function*() {
      const { port: target } = yield* listen(
        Https.createServer(certificate, (_request, response) => setTimeout(() => response.writeHead(201).end(), 20))
      )
      const { forgetAll, server } = forgetful(target)
      const { opened, port } = yield* listen(server)
      yield* Effect.gen(function*() {
        const subscription = subscribe(`https://localhost:${port}/x`)
        const send = WebPush.send(subscription, "hello")
        yield* Effect.replicateEffect(send, 5, { concurrency: "unbounded" })
        const before = opened()
        assert.isAbove(before, 1)
        forgetAll()
        const error = yield* Effect.flip(WebPush.send(subscription, "hello", { timeout: 300 }))
        assert.strictEqual(describeError(error), "Timeout")
        yield* Effect.replicateEffect(send, 5)
        assert.isAbove(opened(), before)
      }).pipe(withWebPush(port))
    }).pipe(Effect.scoped))

  it.live("is distinguished from a silent one, which is probed and used again", () =>
    Effect.gen(function*() {
      const { pings, server } = accepting()
      const { port } = yield* listen(server)
      yield* Effect.gen(function*() {
        const send = WebPush.send(subscribe(`https://localhost:${port}/x`), "hello")
        yield* send
        yield* send
        assert.strictEqual(pings(), 0)
        yield* Effect.sleep("1100 millis")
        const waiting = yield* Effect.fork(Effect.replicateEffect(send, 20, { concurrency: "unbounded" }))
        yield* Fiber.join(waiting)
        assert.strictEqual(pings(), 1)
      }).pipe(withWebPush(port))
    }).pipe(Effect.scoped))
})

describe("an idle connection of HTTP/1.1 that closes as a request arrives", () => {
  /**
   * Starts a server that answers the first request of the first connection, then acts on the next one. It counts
   * both.
   */
  const serve = (next: (socket: Tls.TLSSocket, connection: number) => void) => {
    let connections = 0
    let requests = 0
    const server = Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] }, (socket) => {
      const connection = ++connections
      let answered = 0
      socket.on("data", (chunk) => {
        if (!chunk.includes("POST ")) return
        requests++
        if (connection === 1 && answered++ === 0) socket.write("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
        else next(socket, connection)
      })
    })
    return { server, requests: () => requests }
  }
  const sendTwice = (port: number) =>
    Effect.gen(function*() {
      const send = WebPush.send(subscribe(`https://localhost:${port}/x`), "hello")
      yield* send
      return yield* Effect.either(send)
    }).pipe(withWebPush(port))

  it.live("is replaced, and the request sent once more", () =>
    Effect.gen(function*() {
      const { requests, server } = serve((socket, connection) =>
        connection === 1 ? socket.destroy() : socket.write("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
      )
      const { opened, port } = yield* listen(server)
      assert.isTrue(Either.isRight(yield* sendTwice(port)))
      assert.deepStrictEqual([opened(), requests()], [2, 3])
    }).pipe(Effect.scoped))

  for (
    const [name, next, expected] of [
      ["not a second time", (socket: Tls.TLSSocket) => socket.destroy(), 2],
      ["not when the answer has begun", (socket: Tls.TLSSocket) => socket.end("HTTP/1.1 20"), 1]
    ] as const
  ) {
    it.live(`is replaced, but ${name}`, () =>
      Effect.gen(function*() {
        const { requests, server } = serve(next)
        const { opened, port } = yield* listen(server)
        const result = yield* sendTwice(port)
        if (Either.isRight(result) || result.left._tag === "WebPushGone") return assert.fail("the request was answered")
        assert.strictEqual(describeError(result.left), "Transport ECONNRESET")
        assert.isFalse(result.left.isRetryable)
        assert.deepStrictEqual([opened(), requests()], [expected, expected + 1])
      }).pipe(Effect.scoped))
  }
})

describe("a resolver of the application", () => {
  const resolvers: ReadonlyArray<readonly [name: string, lookup: Net.LookupFunction, outcome: string]> = [
    [
      "throws",
      () => {
        throw new Error("no resolver")
      },
      "Transport ERR_LOOKUP_FAILED"
    ],
    [
      "calls back later with another value",
      (_hostname, _options, callback) => setImmediate(() => Reflect.apply(callback, undefined, [null, [undefined]])),
      "Transport ERR_LOOKUP_FAILED"
    ],
    [
      "calls back without a value",
      (_hostname, _options, callback) => setImmediate(() => Reflect.apply(callback, undefined, [null])),
      "Transport ERR_LOOKUP_FAILED"
    ],
    [
      "calls back with no addresses",
      (_hostname, _options, callback) => callback(null, [{ address: "localhost", family: 4 }]),
      "Blocked ERR_BLOCKED_ADDRESS"
    ],
    [
      "calls back twice",
      (_hostname, _options, callback) => {
        callback(Object.assign(new Error("later"), { code: "EAI_AGAIN" }), [])
        callback(null, "127.0.0.1", 4)
      },
      "Transport EAI_AGAIN"
    ],
    ["never answers", () => {}, "Timeout"]
  ]
  for (const [name, lookup, outcome] of resolvers) {
    it.live(`that ${name} causes a failure of the message`, () =>
      Effect.gen(function*() {
        const error = yield* WebPush.send(subscribe("https://push.example.org/x"), "hello", { timeout: 500 }).pipe(
          Effect.flip,
          withWebPush(1, { ...local, lookup })
        )
        assert.strictEqual(describeError(error), outcome)
        assert.isTrue(error._tag === "WebPushFailure" && error.neverSent)
      }))
  }

  it.live("that throws for a second connection of HTTP/1.1 causes a failure of that message only", () =>
    Effect.gen(function*() {
      const { port } = yield* listen(
        Https.createServer(certificate, (_request, response) => setTimeout(() => response.writeHead(201).end(), 50))
      )
      let calls = 0
      yield* Effect.gen(function*() {
        const send = WebPush.send(subscribe(`https://localhost:${port}/x`), "hello")
        yield* send
        const results = yield* Effect.replicateEffect(Effect.either(send), 2, { concurrency: "unbounded" })
        assert.deepStrictEqual(
          results.map((result) => Either.isLeft(result) ? describeError(result.left) : result.right.status),
          [201, "Transport ERR_LOOKUP_FAILED"]
        )
      }).pipe(withWebPush(port, {
        ...local,
        lookup: (_hostname, _options, callback) => {
          if (++calls > 1) throw new Error("no resolver")
          callback(null, "127.0.0.1", 4)
        }
      }))
    }).pipe(Effect.scoped))
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

  it.live("does not affect the other requests of the connection", () =>
    Effect.gen(function*() {
      let endSlow = () => {}
      let streams = 0
      const server = Http2.createSecureServer(certificate)
      server.on("stream", (stream, headers) => {
        stream.on("error", () => {})
        streams++
        if (headers[":path"] !== "/slow") return
        stream.respond({ ":status": 201 })
        stream.write("x")
        endSlow = () => stream.end()
      })
      const { opened, port } = yield* listen(server)
      yield* Effect.gen(function*() {
        const slow = yield* Effect.fork(WebPush.send(subscribe(`https://localhost:${port}/slow`), "hello"))
        const stuck = yield* Effect.fork(WebPush.send(subscribe(`https://localhost:${port}/stuck`), "hello"))
        yield* until(() => streams === 2)
        yield* Fiber.interrupt(stuck)
        endSlow()
        assert.strictEqual((yield* Fiber.join(slow)).status, 201)
        assert.strictEqual(opened(), 1)
      }).pipe(withWebPush(port))
    }).pipe(Effect.scoped))

  it.live("closing the scope fails the pending requests, and opens no connection for waiting ones", () =>
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

  it.live("a header that cannot be sent leaves no connection open", () =>
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

  it.live("that are not public receive no byte, in any notation", () =>
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

      // The listener observes an unguarded connection.
      const open = yield* PushHttpClient.make({ allowedAddresses: ["127.0.0.0/8"], lookup: toLoopback })
      yield* open.get(`https://fcm.googleapis.com:${port}/`).pipe(Effect.timeout("200 millis"), Effect.flip)
      yield* open.get(`https://2130706433:${port}/`).pipe(Effect.timeout("200 millis"), Effect.flip)
      assert.strictEqual(opened(), 2)
    }).pipe(Effect.scoped), 60_000)

  it.live("are all checked, for each resolution of a name", () =>
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
        // A later resolution may return another address.
        assert.deepStrictEqual([error.isFinal, error.needsNewSubscription], [false, false])
      }
      assert.strictEqual(opened(), 0)
    }).pipe(Effect.scoped))

  it.live("in the endpoint itself are blocked permanently", () =>
    Effect.gen(function*() {
      const hosts = ["127.0.0.1", "10.0.0.1", "[::1]", "[::ffff:7f00:1]"].flatMap((host) => [host, `${host}:8443`])
      yield* Effect.forEach(hosts, (host) =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(WebPush.send(subscribe(`https://${host}/x`), "hello"))
          if (error._tag !== "WebPushFailure") return assert.fail(error._tag)
          assert.strictEqual(describeError(error), "Blocked ERR_BLOCKED_ADDRESS", host)
          assert.deepStrictEqual([error.isFinal, error.needsNewSubscription], [true, true], host)
        })).pipe(Effect.provide(layerOver(PushHttpClient.layerWith({ ca: certificate.cert }), { hosts })))
    }))

  it.live("are checked again for the next connection, when the name resolves to another one", () =>
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

  it.live("of a public name that resolves to this network are refused, if hosts is public", () =>
    Effect.gen(function*() {
      const keys = yield* VapidKeys.generate
      for (const address of ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1"]) {
        const error = yield* WebPush.send(subscribe("https://127.0.0.1.nip.io/x"), "hello").pipe(
          Effect.provide(NodeWebPush.layerWith({
            vapid: keys,
            subject: "mailto:ops@example.com",
            hosts: "public",
            lookup: (_hostname, _options, callback) =>
              callback(null, [{ address, family: Net.isIPv6(address) ? 6 : 4 }])
          })),
          Effect.flip
        )
        assert.strictEqual(error._tag === "WebPushFailure" && describeError(error), "Blocked ERR_BLOCKED_ADDRESS")
      }
    }))

  it.live("of a name that does not resolve cause a retryable failure, and not Blocked", () =>
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

describe("a proxy", () => {
  /** Starts a proxy that opens tunnels to this machine, or answers each request with a status. */
  const startProxy = (options: { readonly status?: number; readonly isSecure?: boolean } = {}) =>
    Effect.gen(function*() {
      const requests: Array<readonly [target: string | undefined, credentials: string | undefined]> = []
      const server = options.isSecure === true ? Https.createServer(certificate) : Http.createServer()
      server.on("connect", (request: Http.IncomingMessage, near: Duplex) => {
        requests.push([request.url, request.headers["proxy-authorization"]])
        near.on("error", () => {})
        if (options.status !== undefined) return near.end(`HTTP/1.1 ${options.status} No\r\n\r\n`)
        const far = Net.connect(Number(request.url?.split(":").at(-1)), "127.0.0.1", () => {
          near.write("HTTP/1.1 200 Connection established\r\n\r\n")
          near.pipe(far).pipe(near)
        })
        far.on("error", () => near.destroy())
        near.on("close", () => far.destroy())
      })
      return { ...(yield* listen(server)), requests }
    })
  const pushService = (protocol: "h2" | "http/1.1") =>
    listen(
      protocol === "h2"
        ? Http2.createSecureServer(certificate, (_request, response) => response.writeHead(201).end())
        : Https.createServer(certificate, (_request, response) => response.writeHead(201).end())
    )
  const throughProxy = (port: number, isSecure = false): PushHttpClient.Options => ({
    ca: certificate.cert,
    proxy: { url: `${isSecure ? "https" : "http"}://localhost:${port}`, credentials: Redacted.make("user:pass:word") }
  })
  const credentials = `Basic ${Buffer.from("user:pass:word").toString("base64")}`

  for (const protocol of ["h2", "http/1.1"] as const) {
    for (const isSecure of [false, true]) {
      it.live(`${isSecure ? "in TLS " : ""}carries messages over ${protocol}, and resolves their names`, () =>
        Effect.gen(function*() {
          const { open, port } = yield* pushService(protocol)
          const proxy = yield* startProxy({ isSecure })
          const resolved: Array<string> = []
          yield* Effect.gen(function*() {
            const subscriptions = Array.from(
              { length: 40 },
              (_, index) => subscribe(`https://localhost:${port}/${index}`)
            )
            for (let round = 0; round < 2; round++) {
              const { outcomes } = yield* WebPush.sendMany(subscriptions, "hello", { concurrency: 4 })
              assert.isTrue(outcomes.every(({ result }) => Either.isRight(result)))
            }
            const tunnels = protocol === "h2" ? 1 : proxy.requests.length
            assert.isAtMost(tunnels, 4)
            assert.deepStrictEqual(proxy.requests, Array(tunnels).fill([`localhost:${port}`, credentials]))
            assert.isAbove(open(), 0)
          }).pipe(withWebPush(port, {
            ...throughProxy(proxy.port, isSecure),
            lookup: (hostname, _options, callback) => {
              resolved.push(hostname)
              callback(null, [{ address: "127.0.0.1", family: 4 }])
            }
          }))
          assert.strictEqual(resolved.length, proxy.requests.length)
          yield* until(() => open() === 0 && proxy.open() === 0)
        }).pipe(Effect.scoped))
    }
  }

  it.live("is not asked for a private address that stands in the URL", () =>
    Effect.gen(function*() {
      const proxy = yield* startProxy()
      const client = yield* PushHttpClient.make(throughProxy(proxy.port))
      for (const host of ["127.0.0.1", "10.0.0.1", "[::1]", "2130706433"]) {
        const error = yield* Effect.flip(client.get(`https://${host}/`))
        assert.include(inspect(error.cause), "ERR_BLOCKED_ADDRESS")
      }
      assert.strictEqual(proxy.opened(), 0)
    }).pipe(Effect.scoped))

  it.live("that fails causes a failure with a detail, and the message was never sent", () =>
    Effect.gen(function*() {
      const refusing = yield* startProxy({ status: 407 })
      const closing = yield* listen(Net.createServer((socket) => socket.destroy()))
      const silent = yield* listen(Net.createServer())
      const closed = yield* Effect.scoped(listen(Net.createServer()))
      const { port } = yield* pushService("h2")
      for (
        const [proxy, outcome] of [
          [refusing, "Transport ERR_PROXY_407"],
          [closing, "Transport ERR_PROXY_ECONNRESET"],
          [silent, "Timeout"],
          [closed, "Transport ERR_PROXY_ECONNREFUSED"]
        ] as const
      ) {
        const error = yield* WebPush.send(subscribe(`https://localhost:${port}/x`), "hello", { timeout: 500 }).pipe(
          withWebPush(port, throughProxy(proxy.port)),
          Effect.flip
        )
        if (error._tag !== "WebPushFailure") return assert.fail(error._tag)
        assert.deepStrictEqual([describeError(error), error.neverSent], [outcome, true])
        assert.notInclude(inspect(error, { depth: 20 }), credentials)
        yield* until(() => proxy.open() === 0)
      }
    }).pipe(Effect.scoped))

  it.live("of the environment is used only when asked, and not for the names of NO_PROXY", () =>
    Effect.gen(function*() {
      const { port } = yield* pushService("h2")
      const proxy = yield* startProxy()
      const names = ["https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"]
      const before = yield* Effect.acquireRelease(
        Effect.sync(() => names.map((name) => [name, process.env[name]] as const)),
        (before) =>
          Effect.sync(() => {
            for (const [name, value] of before) {
              if (value === undefined) delete process.env[name]
              else process.env[name] = value
            }
          })
      )
      for (const [name] of before) delete process.env[name]
      process.env.HTTPS_PROXY = `http://user:pass%3Aword@127.0.0.1:${proxy.port}`
      const cases: ReadonlyArray<readonly [noProxy: string, asked: boolean, isUsed: boolean]> = [
        ["", true, true],
        ["", false, false],
        ["example.org, localhost", true, false],
        ["*", true, false],
        [`localhost:${port}`, true, false],
        ["host,.ocalhost,localhost:1", true, true]
      ]
      for (const [noProxy, asked, isUsed] of cases) {
        proxy.requests.length = 0
        process.env.NO_PROXY = noProxy
        yield* Effect.scoped(
          Effect.gen(function*() {
            const client = yield* PushHttpClient.make({ ...local, ...(asked ? { proxy: "environment" } : {}) })
            assert.strictEqual((yield* client.get(`https://localhost:${port}/`)).status, 201)
          })
        )
        assert.deepStrictEqual(proxy.requests, isUsed ? [[`localhost:${port}`, credentials]] : [], noProxy)
      }
      process.env.HTTPS_PROXY = "proxy"
      assert.isTrue(Exit.isFailure(yield* Effect.exit(PushHttpClient.make({ proxy: "environment" }))))
    }).pipe(Effect.scoped))
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

  it.effect("dies if an option is invalid, when it is built", () =>
    Effect.gen(function*() {
      for (
        const options of [
          { connections: 0 },
          { connections: 1.5 },
          { connections: Number.NaN },
          { allowedAddresses: ["localhost"] },
          { allowedAddresses: ["10.0.0.0/33"] },
          { allowedAddresses: ["10.0.0.1", "fd00::/129"] },
          { allowedAddresses: ["10.0.0.0/-1"] },
          { allowedAddresses: [""] },
          { ca: "" },
          { ca: [certificate.cert, "/etc/ssl/ca.pem"] },
          { proxy: { url: "proxy.example.com:3128" } },
          { proxy: { url: "socks5://proxy.example.com" } },
          { proxy: { url: "http://user:password@proxy.example.com:3128" } }
        ]
      ) {
        const exit = yield* Effect.exit(Effect.scoped(PushHttpClient.make(options)))
        assert.isTrue(
          Exit.isFailure(exit) && Cause.isDieType(exit.cause) && Cause.isIllegalArgumentException(exit.cause.defect),
          inspect(options)
        )
      }
    }))

  it.live("closes a connection that does not belong to the host (421)", () =>
    Effect.gen(function*() {
      for (
        const server of [
          Https.createServer(certificate, (_request, response) => response.writeHead(421).end()),
          Http2.createSecureServer(certificate, (_request, response) => response.writeHead(421).end())
        ]
      ) {
        const { open, opened, port } = yield* listen(server)
        const client = yield* PushHttpClient.make(local)
        yield* client.get(`https://localhost:${port}/`)
        yield* client.get(`https://localhost:${port}/`)
        assert.strictEqual(opened(), 2)
        yield* until(() => open() === 0)
      }
    }).pipe(Effect.scoped))

  it.live("accepts only bytes and https", () =>
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
