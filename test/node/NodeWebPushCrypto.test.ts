import { createECDH, randomBytes } from "node:crypto"
import { Worker } from "node:worker_threads"

import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Logger, Scope } from "effect"
import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
import * as WebPushCrypto from "effect-realtime/WebPushCrypto"
import { afterEach, beforeEach, vi } from "vitest"

import { openers } from "../support/openers.js"

const ecdh = createECDH("prime256v1")
const publicKey = ecdh.generateKeys()
const auth = randomBytes(16)
const receiver = { publicKey, privateKey: Buffer.concat([Buffer.alloc(32), ecdh.getPrivateKey()]).subarray(-32), auth }
const keys = { p256dh: publicKey.toString("base64url"), auth: auth.toString("base64url") }

const open = (body: Uint8Array) => Effect.promise(() => openers["node:crypto"].open(body, receiver))

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
  /** Returns `true` for a batch of which its thread dies. */
  let isDeadly = (_lengths: ReadonlyArray<number>): boolean => false

  /** Waits until messages have been sent to threads. */
  const posted = Effect.promise(async () => {
    while (batches.length === 0) await new Promise((resolve) => setImmediate(resolve))
  })

  beforeEach(() => {
    threads = new Set()
    batches = []
    mostInFlight = 0
    let inFlight = 0
    isDeadly = () => false
    vi.spyOn(Worker.prototype, "postMessage").mockImplementation(function(this: Worker, ...args) {
      const lengths = lengthsOf(args)
      mostInFlight = Math.max(mostInFlight, ++inFlight)
      if (!threads.has(this)) this.prependListener("message", () => inFlight--)
      threads.add(this)
      if (lengths[0] !== 0) batches.push(lengths)
      // The thread throws, since this is no batch.
      return isDeadly(lengths) ? postMessage.call(this, null) : postMessage.apply(this, args)
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
      const fiber = yield* Effect.fork(roundTrips(50))
      yield* posted
      assert.deepStrictEqual(batches.map((lengths) => lengths.length), [4, 4, 4, 4])
      assert.sameMembers(yield* Fiber.join(fiber), texts(50))
      assert.strictEqual(Math.max(...batches.map((lengths) => lengths.length)), 4)
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

  for (
    const [death, kill] of Object.entries({
      "is terminated": (thread: Worker) => thread.terminate(),
      "throws": (thread: Worker) => postMessage.call(thread, null)
    })
  ) {
    it.effect(`loses no message when a thread ${death}`, () => {
      const logged: Array<string> = []
      return Effect.gen(function*() {
        const fiber = yield* Effect.fork(roundTrips(200))
        yield* posted
        const [first] = threads
        assert(first !== undefined)
        kill(first)
        assert.sameMembers(yield* Fiber.join(fiber), texts(200))
        assert.strictEqual(threads.size, 3)
        assert.match(logged.join(), /^NodeWebPushCrypto lost a worker thread \(\w+( \w+ \d)?\): its messages are /)
      }).pipe(
        Effect.provide(NodeWebPushCrypto.layerWorkers({ workers: 2, batch: 8 })),
        Effect.provide(Logger.replace(Logger.defaultLogger, Logger.make(({ message }) => logged.push(String(message)))))
      )
    })
  }

  it.effect("ends a message of which three threads have died with a defect, and encrypts the others", () =>
    Effect.gen(function*() {
      isDeadly = (lengths) => lengths.includes(1000)
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
      assert.isAtMost(threads.size, 5)
    }).pipe(
      Effect.provide(NodeWebPushCrypto.layerWorkers({ workers: 2, batch: 8 })),
      Effect.provide(Logger.remove(Logger.defaultLogger))
    ))

  it.effect("dies when the layer is built and no thread runs", () =>
    Effect.gen(function*() {
      isDeadly = () => true
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(NodeWebPushCrypto.layerWorkers())))
      assert(Exit.isFailure(exit))
      assert.match(String(Cause.squash(exit.cause)), /3 worker threads died/)
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))

  it.effect("does not send a message that is interrupted while it waits", () =>
    Effect.gen(function*() {
      const fibers = yield* Effect.forEach(texts(10), (_, index) => Effect.fork(encrypt(Buffer.alloc(index + 1))))
      yield* posted
      yield* Fiber.interruptAll(fibers.slice(3))
      yield* Fiber.joinAll(fibers.slice(0, 3))
      assert.deepStrictEqual(batches, [[1], [2], [3]])
    }).pipe(Effect.provide(NodeWebPushCrypto.layerWorkers({ workers: 1, batch: 1 }))))

  it.effect("serves those that wait when all messages of a thread that dies are interrupted", () =>
    Effect.gen(function*() {
      const fibers = yield* Effect.forEach(texts(3), (_, index) => Effect.fork(encrypt(textOf(index))))
      yield* posted
      const [first] = threads
      void first?.terminate()
      yield* Fiber.interruptAll(fibers.slice(0, 2))
      const bodies = yield* Fiber.joinAll(fibers.slice(2))
      assert.deepStrictEqual(yield* open(bodies[0] ?? new Uint8Array()), textOf(2))
    }).pipe(Effect.provide(NodeWebPushCrypto.layerWorkers({ workers: 1, batch: 1 }))))

  it.effect("ends its threads with the scope, and interrupts the messages that are awaited then", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(NodeWebPushCrypto.layerWorkers({ workers: 2, batch: 4 }), scope)
      const fiber = yield* Effect.forEach(texts(100), (_, index) => Effect.exit(encrypt(textOf(index))), {
        concurrency: "unbounded"
      }).pipe(Effect.provide(context), Effect.fork)
      yield* posted
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual([...threads].map(({ threadId }) => threadId), [-1, -1])
      const exits = yield* Fiber.join(fiber)
      assert.isTrue(exits.some(Exit.isInterrupted))
      // None may wait forever.
      assert.isTrue(Exit.isInterrupted(yield* Effect.exit(Effect.provide(encrypt(textOf(0)), context))))
      assert.strictEqual(threads.size, 2)
    }))
})
