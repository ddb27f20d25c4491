import { createECDH, randomBytes } from "node:crypto"
import { Worker } from "node:worker_threads"

import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Logger, Scope } from "effect"
import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
import * as WebPushCrypto from "effect-realtime/WebPushCrypto"
import { afterEach, beforeEach, vi } from "vitest"

import { nodeOpeners } from "../support/nodeOpeners.js"

const ecdh = createECDH("prime256v1")
const publicKey = ecdh.generateKeys()
const auth = randomBytes(16)
const receiver = { publicKey, privateKey: Buffer.concat([Buffer.alloc(32), ecdh.getPrivateKey()]).subarray(-32), auth }
const keys = { p256dh: publicKey.toString("base64url"), auth: auth.toString("base64url") }

const open = (body: Uint8Array) => Effect.promise(() => nodeOpeners["node:crypto"].open(body, receiver))

const encrypt = (message: Uint8Array) =>
  Effect.flatMap(WebPushCrypto.WebPushCrypto, (crypto) => crypto.encrypt(message, keys, 0))

const textOf = (index: number) => Buffer.from(`message ${index}`)
const texts = (count: number) => Array.from({ length: count }, (_, index) => textOf(index).toString())

/** Encrypts `message 0` and so on all at once, and decrypts them. */
const roundTrips = (count: number) =>
  Effect.forEach(
    Array.from({ length: count }, (_, index) => index),
    (index) => Effect.map(Effect.flatMap(encrypt(textOf(index)), open), (text) => text.toString()),
    { concurrency: "unbounded" }
  )

/** The lengths of the messages in a batch that was posted. */
const lengthsOf = ([{ messages }]: Parameters<Worker["postMessage"]>): ReadonlyArray<number> =>
  messages.map(({ length }: { readonly length: number }) => length)

describe("NodeWebPushCrypto.layerWorkers", () => {
  const postMessage = Worker.prototype.postMessage
  let threads = new Set<Worker>()
  /** Batches that were posted, without that of the start. */
  let batches: Array<ReadonlyArray<number>> = []
  let mostInFlight = 0
  /** Decides the fate of a batch. */
  let post = (send: () => void, _thread: Worker, _lengths: ReadonlyArray<number>): void => send()

  const hold = () => {
    const held: Array<() => void> = []
    post = (send) => held.push(send)
    return held
  }
  const terminate = (thread: Worker) => void thread.terminate()
  // The thread throws, since this is no batch.
  const makeThrow = (thread: Worker) => postMessage.call(thread, null)

  /** Waits until messages have been sent to threads. */
  const posted = Effect.promise(async () => {
    while (batches.length === 0) await new Promise((resolve) => setImmediate(resolve))
  })

  beforeEach(() => {
    threads = new Set()
    batches = []
    mostInFlight = 0
    let inFlight = 0
    post = (send) => send()
    vi.spyOn(Worker.prototype, "postMessage").mockImplementation(function(this: Worker, ...args) {
      const lengths = lengthsOf(args)
      mostInFlight = Math.max(mostInFlight, ++inFlight)
      if (!threads.has(this)) this.prependListener("message", () => inFlight--)
      threads.add(this)
      if (lengths[0] !== 0) batches.push(lengths)
      post(() => postMessage.apply(this, args), this, lengths)
    })
  })
  afterEach(() => {
    vi.restoreAllMocks()
  })

  for (const options of [{ workers: 0 }, { workers: 1.5 }, { workers: NaN }, { batch: 0 }, { batch: -1 }]) {
    it.effect(`refuses ${JSON.stringify(options)} when the layer is built`, () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Effect.scoped(Layer.build(NodeWebPushCrypto.layerWorkers(options))))
        const [defect] = Exit.isFailure(exit) ? Cause.defects(exit.cause) : []
        assert.isTrue(Cause.isIllegalArgumentException(defect))
        assert.match(String(defect), new RegExp(`${Object.keys(options)[0]} must be a whole number, 1 or more`))
        assert.strictEqual(threads.size, 0)
      }))
  }

  it.effect("sends messages of one turn together, at most `batch`, and two batches to a thread", () =>
    Effect.gen(function*() {
      assert.sameMembers(yield* roundTrips(50), texts(50))
      const sizes = batches.map((lengths) => lengths.length)
      assert.deepStrictEqual(sizes.slice(0, 4), [4, 4, 4, 4])
      assert.strictEqual(Math.max(...sizes), 4)
      assert.strictEqual(mostInFlight, 4)
      assert.strictEqual(threads.size, 2)
    }).pipe(Effect.provide(NodeWebPushCrypto.layerWorkers({ workers: 2, batch: 4 }))))

  it.effect("divides a few messages among the threads", () =>
    Effect.gen(function*() {
      yield* roundTrips(6)
      assert.deepStrictEqual(batches.map((lengths) => lengths.length), [3, 3])
    }).pipe(Effect.provide(NodeWebPushCrypto.layerWorkers({ workers: 2 }))))

  it.effect("leaves the caller's bytes alone, and copies no more than the message", () =>
    Effect.gen(function*() {
      const whole = new Uint8Array(2 ** 20).fill(7)
      const message = whole.subarray(100, 200)
      const body = yield* encrypt(message)
      assert.deepStrictEqual(yield* open(body), Buffer.alloc(100, 7))
      assert.strictEqual(whole.length, 2 ** 20)
      const [[posted] = []] = vi.mocked(Worker.prototype.postMessage).mock.calls.slice(-1)
      assert.deepStrictEqual(posted.messages.map(({ length }: { readonly length: number }) => length), [100])
      // Its buffer was moved.
      assert.strictEqual(posted.bytes.buffer.byteLength, 0)
    }).pipe(Effect.provide(NodeWebPushCrypto.layerWorkers({ workers: 1 }))))

  for (const [death, kill] of Object.entries({ "is terminated": terminate, "throws": makeThrow })) {
    it.effect(`loses no message when a thread ${death}`, () => {
      const logged: Array<string> = []
      return Effect.gen(function*() {
        let isFirst = true
        post = (send, thread) => {
          if (isFirst) kill(thread)
          else send()
          isFirst = false
        }
        assert.sameMembers(yield* roundTrips(200), texts(200))
        assert.strictEqual(logged.length, 1)
        assert.match(
          logged.join(),
          /^NodeWebPushCrypto lost a worker thread \((exit code 1|TypeError)\): its messages are /
        )
      }).pipe(
        Effect.provide([
          NodeWebPushCrypto.layerWorkers({ workers: 2, batch: 8 }),
          Logger.replace(Logger.defaultLogger, Logger.make(({ message }) => logged.push(String(message))))
        ])
      )
    })
  }

  it.effect("refuses keys that cannot be sent to a thread, and encrypts the others", () =>
    Effect.gen(function*() {
      const crypto = yield* WebPushCrypto.WebPushCrypto
      // As rows of a program without types have them.
      const wrong: ReadonlyArray<typeof keys> = [() => "", Symbol("p256dh"), null].flatMap((p256dh) =>
        JSON.parse("[{}]").map((row: object) => Object.assign(row, { p256dh, auth: keys.auth }))
      ).concat(JSON.parse("null"))
      const fibers = yield* Effect.forEach(
        wrong,
        (keys) => Effect.fork(Effect.flip(crypto.encrypt(textOf(0), keys, 0)))
      )
      assert.deepStrictEqual(yield* roundTrips(3), texts(3))
      for (const { reason } of yield* Fiber.joinAll(fibers)) assert.strictEqual(reason, "InvalidSubscription")
    }).pipe(Effect.provide(NodeWebPushCrypto.layerWorkers({ workers: 1, batch: 8 }))))

  it.effect("ends a message of which three threads have died with a defect, and encrypts the others", () =>
    Effect.gen(function*() {
      post = (send, thread, lengths) => lengths.includes(1000) ? makeThrow(thread) : send()
      const exits = yield* Effect.forEach(
        [...Array.from({ length: 30 }, (_, index) => textOf(index)), randomBytes(1000)],
        (message) => Effect.exit(Effect.flatMap(encrypt(message), open)),
        { concurrency: "unbounded" }
      )
      const last = exits.pop()
      assert(last !== undefined && Exit.isFailure(last))
      assert.match(String(Cause.squash(last.cause)), /3 worker threads died of one message \(TypeError\)/)
      assert.deepStrictEqual(
        exits.map((exit) => Exit.isSuccess(exit) ? exit.value.toString() : "lost").sort(),
        texts(30).sort()
      )
      assert.isAtMost(threads.size, 4)
    }).pipe(
      Effect.provide([
        NodeWebPushCrypto.layerWorkers({ workers: 1, batch: 8 }),
        Logger.remove(Logger.defaultLogger)
      ])
    ))

  it.effect("dies when the layer is built and no thread runs", () =>
    Effect.gen(function*() {
      post = (_send, thread) => makeThrow(thread)
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(NodeWebPushCrypto.layerWorkers())))
      assert(Exit.isFailure(exit))
      assert.match(String(Cause.squash(exit.cause)), /3 worker threads died/)
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))

  it.effect("does not send a message that is interrupted while it waits", () =>
    Effect.gen(function*() {
      const held = hold()
      const fibers = yield* Effect.forEach(texts(10), (_, index) => Effect.fork(encrypt(Buffer.alloc(index + 1))))
      yield* posted
      yield* Fiber.interruptAll(fibers.slice(3))
      post = (send) => send()
      for (const send of held) send()
      yield* Fiber.joinAll(fibers.slice(0, 3))
      assert.deepStrictEqual(batches, [[1], [2], [3]])
    }).pipe(Effect.provide(NodeWebPushCrypto.layerWorkers({ workers: 1, batch: 1 }))))

  it.effect("serves those that wait when all messages of a thread that dies are interrupted", () =>
    Effect.gen(function*() {
      hold()
      const fibers = yield* Effect.forEach(texts(3), (_, index) => Effect.fork(encrypt(textOf(index))))
      yield* posted
      yield* Fiber.interruptAll(fibers.slice(0, 2))
      post = (send) => send()
      threads.forEach(terminate)
      const bodies = yield* Fiber.joinAll(fibers.slice(2))
      assert.deepStrictEqual(yield* open(bodies[0] ?? new Uint8Array()), textOf(2))
    }).pipe(Effect.provide(NodeWebPushCrypto.layerWorkers({ workers: 1, batch: 1 }))))

  it.effect("ends its threads with the scope, and interrupts the messages that are awaited then", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(NodeWebPushCrypto.layerWorkers({ workers: 2, batch: 4 }), scope)
      hold()
      const fiber = yield* Effect.forEach(texts(100), (_, index) => Effect.exit(encrypt(textOf(index))), {
        concurrency: "unbounded"
      }).pipe(Effect.provide(context), Effect.fork)
      yield* posted
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual([...threads].map(({ threadId }) => threadId), [-1, -1])
      assert.isTrue((yield* Fiber.join(fiber)).every(Exit.isInterrupted))
      // None may wait forever.
      assert.isTrue(Exit.isInterrupted(yield* Effect.exit(Effect.provide(encrypt(textOf(0)), context))))
      assert.strictEqual(threads.size, 2)
    }))
})
