/**
 * Encryption in worker threads. A thread gets batches, at most two at a time, so that it has work while an answer is on
 * its way. All other messages wait here, where they can be interrupted.
 *
 * A message that was lost with its thread is sent again, alone, since it may be what the thread died of.
 *
 * These are plain threads, and not `Worker` of `@effect/platform`: a pool of that loads Effect in each thread (45 MB
 * and four times the start instead of 12 MB), costs the event loop a third more for each batch, needs
 * `@effect/platform-node`, and starts a thread that cannot run again every second without an end, for which it waits.
 */
import { Worker } from "node:worker_threads"

import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

import { annotateWith } from "../../internal/logging.js"
import type { WebPushCrypto } from "../../WebPushCrypto.js"
import { WebPushCryptoError } from "../../WebPushCrypto.js"
import type { Answer, Batch } from "./encryptionWorker.js"

type Encrypt = WebPushCrypto.Service["encrypt"]
type Encrypted = ReturnType<Encrypt>

interface Job {
  readonly message: Uint8Array
  readonly keys: Parameters<Encrypt>[1]
  readonly padding: number
  /** Number of threads that died of a batch with this message. */
  readonly losses: number
  readonly resume: (encrypted: Encrypted) => void
}

interface Thread {
  readonly worker: Worker
  /** Batches that are not answered, in their order. */
  readonly batches: Array<ReadonlyArray<Job>>
}

const batchesPerThread = 2
const maxLosses = 3

/** Copies the messages, since they are the caller's, and a view may be of a buffer that is much longer. */
const pack = (jobs: ReadonlyArray<Job>): Batch => {
  const bytes = new Uint8Array(jobs.reduce((sum, { message }) => sum + message.length, 0))
  let end = 0
  const messages = jobs.map(({ keys, message, padding }) => {
    bytes.set(message, end)
    end += message.length
    return { length: message.length, keys, padding }
  })
  return { bytes, messages }
}

/** Copies the keys as texts. Keys that cannot be sent to a thread would fail there for all messages of the batch. */
const readKeys = (keys: Job["keys"]): Effect.Effect<Job["keys"], WebPushCryptoError> =>
  Effect.try({
    try: () => ({ p256dh: `${keys.p256dh}`, auth: `${keys.auth}` }),
    catch: () => new WebPushCryptoError({ reason: "InvalidSubscription" })
  })

const reasonOf = (error: unknown, code: number): string =>
  error instanceof Error ? ("code" in error ? String(error.code) : error.name) : `exit code ${code}`

const warnOfLoss = (reason: string) =>
  Effect.logWarning(`NodeWebPushCrypto lost a worker thread (${reason}): its messages are encrypted by another one`)
    .pipe(
      annotateWith("NodeWebPushCrypto")
    )

const makePool = (workers: number, batch: number) => {
  const threads = new Set<Thread>()
  const waiting = new Set<Job>()
  let isScheduled = false
  let isClosed = false

  /** Sends at the end of the turn of the event loop, so that messages that arrive in it travel together. */
  const schedule = () => {
    if (isScheduled) return
    isScheduled = true
    setImmediate(() => {
      isScheduled = false
      dispatch()
    })
  }

  const encrypt = (message: Uint8Array, keys: Job["keys"], padding: number, losses = 0): Encrypted =>
    Effect.async((resume) => {
      if (isClosed) return resume(Effect.interrupt)
      const job: Job = { message, keys, padding, losses, resume }
      waiting.add(job)
      schedule()
      return Effect.sync(() => {
        waiting.delete(job)
      })
    })

  const again = ({ keys, message, padding }: Job, losses: number) => encrypt(message, keys, padding, losses)

  /** Sends the messages again that a thread did not answer. It was at work on those of the first batch. */
  const recover = ([lost = [], ...unread]: Thread["batches"], error: unknown, code: number) => {
    for (const job of unread.flat()) job.resume(again(job, job.losses))
    const reason = reasonOf(error, code)
    lost.forEach((job, index) => {
      const losses = job.losses + 1
      job.resume(
        losses === maxLosses
          ? Effect.die(
            new Error(`NodeWebPushCrypto: ${maxLosses} worker threads died of one message (${reason})`, {
              cause: error
            })
          )
          : index === 0
          ? Effect.zipRight(warnOfLoss(reason), again(job, losses))
          : again(job, losses)
      )
    })
  }

  const start = (): Thread => {
    const worker = new Worker(new URL("./encryptionWorker.js", import.meta.url), { name: "NodeWebPushCrypto" })
    const thread: Thread = { worker, batches: [] }
    let error: unknown
    threads.add(thread)
    worker.on("message", ({ bytes, lengths }: Answer) => {
      let start = 0
      thread.batches.shift()?.forEach((job, index) => {
        const body = bytes.subarray(start, start += lengths[index] ?? 0)
        job.resume(
          body.length === 0
            ? Effect.fail(new WebPushCryptoError({ reason: "InvalidSubscription" }))
            : Effect.succeed(body)
        )
      })
      dispatch()
    })
    // The event "exit" follows.
    worker.on("error", (cause) => {
      error = cause
    })
    worker.on("exit", (code) => {
      threads.delete(thread)
      recover(thread.batches, error, code)
      schedule()
    })
    return thread
  }

  /** Returns the thread with the fewest batches, and a new one rather than one that is at work. */
  const free = (): Thread | undefined => {
    let best: Thread | undefined
    for (const thread of threads) {
      if (best === undefined || thread.batches.length < best.batches.length) best = thread
    }
    if (best === undefined || (best.batches.length > 0 && threads.size < workers)) {
      try {
        return start()
      } catch (error) {
        // The system has no thread for us.
        if (best === undefined) {
          recover([take(batch)], error, 0)
          schedule()
        }
      }
    }
    return best !== undefined && best.batches.length < batchesPerThread ? best : undefined
  }

  const take = (size: number): ReadonlyArray<Job> => {
    const jobs: Array<Job> = []
    for (const job of waiting) {
      const isAlone = job.losses > 0
      if (isAlone && jobs.length > 0) break
      waiting.delete(job)
      if (jobs.push(job) === size || isAlone) break
    }
    return jobs
  }

  const dispatch = () => {
    // A few messages are divided among the threads.
    const size = Math.min(batch, Math.ceil(waiting.size / workers))
    while (waiting.size > 0) {
      const thread = free()
      if (thread === undefined) return
      const jobs = take(size)
      const message = pack(jobs)
      thread.batches.push(jobs)
      thread.worker.postMessage(message, [message.bytes.buffer])
    }
  }

  const close = Effect.promise(() => {
    isClosed = true
    const running = [...threads]
    for (const job of [...waiting, ...running.flatMap(({ batches }) => batches.flat())]) job.resume(Effect.interrupt)
    waiting.clear()
    return Promise.all(running.map(({ worker }) => worker.terminate()))
  })

  return { encrypt, close }
}

/**
 * Starts a pool that is closed with its scope: the threads end, and messages that are still awaited are interrupted.
 * Dies if no thread can be started.
 */
export const make = (workers: number, batch: number): Effect.Effect<Encrypt, never, Scope.Scope> =>
  Effect.acquireRelease(Effect.sync(() => makePool(workers, batch)), ({ close }) => close).pipe(
    // A thread refuses a message without keys, which shows that it runs.
    Effect.tap(({ encrypt }) => Effect.ignore(encrypt(new Uint8Array(), { p256dh: "", auth: "" }, 0))),
    Effect.map(({ encrypt }): Encrypt => (message, keys, padding) =>
      Effect.flatMap(readKeys(keys), (keys) => encrypt(message, keys, padding))
    )
  )
