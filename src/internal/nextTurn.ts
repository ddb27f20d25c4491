import * as Effect from "effect/Effect"

/** Calls back in the next turn of the event loop. */
export const later = (callback: () => void): void => {
  if (typeof setImmediate === "function") setImmediate(callback)
  else setTimeout(callback, 0)
}

/** Lets the event loop turn once. */
export const nextTurn = Effect.async<void>((resume) => later(() => resume(Effect.void)))
