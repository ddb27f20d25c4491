import { randomBytes } from "node:crypto"

import { assert, describe, it } from "@effect/vitest"
import { Cause, Config, Effect, Exit, Layer, Stream } from "effect"
import * as NodeWebPush from "effect-realtime/node/NodeWebPush"
import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPushLibrary from "effect-realtime/web-push/WebPushLibrary"
import * as WebPush from "effect-realtime/WebPush"
import * as WebPushCrypto from "effect-realtime/WebPushCrypto"

import * as EngineCases from "./support/engineCases.js"
import { nodeEngines } from "./support/nodeEngines.js"
import { nodeOpeners } from "./support/nodeOpeners.js"
import * as Receiver from "./support/receiver.js"

const validKeys = Receiver.make().keys

const subject = "mailto:ops@example.com"

const layerOver = (
  layer: Layer.Layer<WebPushCrypto.WebPushCrypto>,
  vapid: VapidKeys.VapidKeys,
  options?: Partial<WebPush.Options>
) =>
  WebPush.layerWith({ vapid, subject, ...options }).pipe(
    Layer.provide(layer),
    Layer.provideMerge(TestPushService.layer)
  )

for (const { name, run } of EngineCases.make(nodeEngines, nodeOpeners)) it.live(name, () => run)

for (const [engine, { layer }] of Object.entries(nodeEngines)) {
  it.live(`${engine} sends messages that conform to the RFCs, with one token for 50 concurrent first sends`, () =>
    Effect.gen(function*() {
      const { supportsPadding } = yield* Effect.provide(WebPushCrypto.WebPushCrypto, layer)
      const vapid = yield* VapidKeys.generate
      yield* Effect.gen(function*() {
        const service = yield* TestPushService.TestPushService
        const devices = yield* Effect.replicateEffect(
          service.subscribe({ applicationServerKey: vapid.publicKey }),
          50
        )
        const { outcomes } = yield* WebPush.sendMany(devices, "hello", {
          padding: supportsPadding ? 100 : 0,
          concurrency: 50
        })
        assert.strictEqual(outcomes.filter(({ result }) => result._tag === "Right").length, 50)
        const received = yield* service.received
        assert.deepStrictEqual(yield* service.violations, [])
        assert.deepStrictEqual(new Set(received.map(({ text }) => text)), new Set(["hello"]))
        // One token for all of them.
        assert.strictEqual(new Set(received.map(({ headers }) => headers.authorization)).size, 1)
        for (const vendor of ["mozilla", "apple", "wns"] as const) {
          yield* WebPush.send(yield* service.subscribe({ vendor }), "", { ttl: 0 })
        }
        assert.deepStrictEqual(yield* service.violations, [])
      }).pipe(Effect.provide(layerOver(layer, vapid)))
    }))
}

for (const layer of [NodeWebPushCrypto.layer, WebPushLibrary.layer]) {
  it.effect("an engine that blocks the event loop encrypts eight messages in a turn of it", () =>
    Effect.gen(function*() {
      const { encrypt } = yield* WebPushCrypto.WebPushCrypto
      let turns = 0
      let immediate = setImmediate(function nextTurn() {
        turns++
        immediate = setImmediate(nextTurn)
      })
      yield* Effect.replicateEffect(encrypt(randomBytes(9), validKeys, 0), 80, { concurrency: "unbounded" })
      clearImmediate(immediate)
      assert.isAtLeast(turns, 8)
    }).pipe(Effect.provide(layer)))
}

describe("padding that web-push cannot give", () => {
  const died = "IllegalArgumentException: WebPush: padding is not supported by this layer of WebPushCrypto"
  const causeOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.map(Effect.exit(effect), (exit) => Exit.isFailure(exit) ? String(Cause.squash(exit.cause)) : "succeeded")

  it.live("is refused when the layer is built", () =>
    Effect.gen(function*() {
      const vapid = yield* VapidKeys.generate
      const build = (padding: number) =>
        causeOf(Effect.scoped(Layer.build(layerOver(WebPushLibrary.layer, vapid, { padding }))))
      assert.deepStrictEqual([yield* build(100), yield* build(0)], [died, "succeeded"])
    }))

  it.live("is refused by NodeWebPush whose engine is the package, and given by its own engine", () =>
    Effect.gen(function*() {
      const vapid = yield* VapidKeys.generate
      const build = (engine: Layer.Layer<WebPushCrypto.WebPushCrypto> | undefined) => {
        const layer = NodeWebPush.layerConfig({
          vapid: Config.succeed(vapid),
          subject: Config.succeed(subject),
          padding: Config.succeed(100),
          engine: Config.succeed(engine)
        })
        return causeOf(Effect.scoped(Layer.build(layer)))
      }
      assert.deepStrictEqual([yield* build(WebPushLibrary.layer), yield* build(undefined)], [died, "succeeded"])
    }))

  it.live("is refused for a call, before any message is sent", () =>
    Effect.gen(function*() {
      const vapid = yield* VapidKeys.generate
      yield* Effect.gen(function*() {
        const service = yield* TestPushService.TestPushService
        const device = yield* service.subscribe()
        assert.deepStrictEqual(
          [
            yield* causeOf(WebPush.send(device, "hello", { padding: 1 })),
            yield* causeOf(WebPush.sendMany([device], "hello", { padding: 1 })),
            yield* causeOf(Stream.runDrain(WebPush.broadcast(Stream.make(device), "hello", { padding: 1 }))),
            yield* causeOf(WebPush.send(device, "hello", { padding: 0 }))
          ],
          [died, died, died, "succeeded"]
        )
        assert.strictEqual((yield* service.received).length, 1)
      }).pipe(Effect.provide(layerOver(WebPushLibrary.layer, vapid)))
    }))

  it.effect("is refused by the port", () =>
    Effect.gen(function*() {
      const { encrypt } = yield* WebPushCrypto.WebPushCrypto
      assert.match(yield* causeOf(encrypt(new Uint8Array(), validKeys, 1)), /^IllegalArgumentException: WebPushLibrary/)
    }).pipe(Effect.provide(WebPushLibrary.layer)))
})
