import * as Effect from "effect/Effect"

// An encryption blocks the event loop for a part of a millisecond, and a thousand fibers may be ready for one at once.
const encryptionsPerTurn = 8

/** Returns a function that runs an encryption when the current turn of the event loop has room for it. */
export const make = () => {
  const waiting: Array<() => void> = []
  let left = encryptionsPerTurn
  const nextTurn = () => {
    const woken = waiting.splice(0, encryptionsPerTurn)
    left = encryptionsPerTurn - woken.length
    if (woken.length > 0) setImmediate(nextTurn)
    for (const wake of woken) wake()
  }
  const wait = Effect.async<void>((resume) => {
    const wake = () => resume(Effect.void)
    waiting.push(wake)
    return Effect.sync(() => {
      const index = waiting.indexOf(wake)
      if (index !== -1) waiting.splice(index, 1)
    })
  })
  return <A, E>(encryption: () => Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      if (left === encryptionsPerTurn) setImmediate(nextTurn)
      if (left === 0) return Effect.flatMap(wait, encryption)
      left--
      return encryption()
    })
}
