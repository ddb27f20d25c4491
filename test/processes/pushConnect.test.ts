import { randomBytes } from "node:crypto"
import * as Net from "node:net"
import * as Tls from "node:tls"

import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"

import * as TestCertificate from "../../src/testing/internal/testCertificate.js"
import { layerOver } from "../support/webPush.js"

const certificate = TestCertificate.make(["localhost"])

// The first connection is never established, since its handshake is not answered. The others are.
const listen = Effect.acquireRelease(
  Effect.async<{ readonly port: number; readonly opened: () => number; readonly close: () => void }>((resume) => {
    let opened = 0
    const sockets = new Set<Net.Socket>()
    const secure = Tls.createServer({ ...certificate, ALPNProtocols: ["http/1.1"] }, (socket) => {
      socket.on("error", () => {})
      socket.on("data", (chunk) => {
        if (chunk.includes("POST ")) socket.write("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
      })
    })
    const server = Net.createServer((socket) => {
      sockets.add(socket)
      socket.on("error", () => {})
      if (++opened > 1) secure.emit("connection", socket)
    })
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      const close = () => {
        server.close()
        for (const socket of sockets) socket.destroy()
      }
      const port = typeof address === "object" && address !== null ? address.port : 0
      resume(Effect.succeed({ port, opened: () => opened, close }))
    })
  }),
  ({ close }) => Effect.sync(close)
)

it.live(
  "closes a connection that is not established after ten seconds, also if further messages wait for it",
  () =>
    Effect.gen(function*() {
      const { opened, port } = yield* listen
      const subscription = new WebPushSubscription({
        endpoint: `https://localhost:${port}/x`,
        keys: { p256dh: (yield* VapidKeys.generate).publicKey, auth: randomBytes(16).toString("base64url") }
      })
      yield* Effect.gen(function*() {
        const send = WebPush.send(subscription, "hello", { timeout: "12 seconds" })
        const first = yield* Effect.fork(Effect.flip(send))
        yield* Effect.sleep("5 seconds")
        const second = yield* Effect.fork(Effect.flip(send))
        for (const error of yield* Effect.all([Fiber.join(first), Fiber.join(second)])) {
          if (error._tag !== "WebPushFailure") return assert.fail(error._tag)
          assert.strictEqual(error.detail, "ETIMEDOUT")
          assert.isTrue(error.neverSent && error.isRetryable)
        }
        assert.strictEqual(opened(), 1)
        assert.strictEqual((yield* send).status, 201)
      }).pipe(Effect.provide(
        layerOver(PushHttpClient.layerWith({ ca: certificate.cert, allowedAddresses: ["127.0.0.1", "::1"] }), {
          hosts: [`localhost:${port}`]
        })
      ))
    }).pipe(Effect.scoped),
  60_000
)
