// @ts-check
/**
 * The thread of `encryptionPool.ts`, which encrypts batches in their order. The file is JavaScript, since Node starts a
 * thread with the file itself, also where a loader compiles the rest of the program (tsx, vitest, a bundler).
 */
import { parentPort } from "node:worker_threads"

import { encrypt } from "./aes128gcm.js"

/**
 * Messages, one behind the other in `bytes`.
 *
 * @typedef {{
 *   readonly bytes: Uint8Array<ArrayBuffer>
 *   readonly messages: ReadonlyArray<{
 *     readonly length: number
 *     readonly keys: { readonly p256dh: string, readonly auth: string }
 *     readonly padding: number
 *   }>
 * }} Batch
 */

/**
 * The encrypted messages, one behind the other in `bytes`, with their lengths. The length 0 is that of a message whose
 * keys cannot be used.
 *
 * @typedef {{ readonly bytes: Uint8Array<ArrayBuffer>, readonly lengths: ReadonlyArray<number> }} Answer
 */

parentPort?.on("message", (/** @type {Batch} */ { bytes, messages }) => {
  let start = 0
  const bodies = messages.map(({ keys, length, padding }) => {
    try {
      return encrypt(bytes.subarray(start, start += length), keys, padding)
    } catch {
      return new Uint8Array()
    }
  })
  const lengths = bodies.map((body) => body.length)
  const packed = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0))
  let end = 0
  for (const body of bodies) {
    packed.set(body, end)
    end += body.length
  }
  parentPort?.postMessage({ bytes: packed, lengths }, [packed.buffer])
})
