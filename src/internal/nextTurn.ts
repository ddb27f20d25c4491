import * as Effect from "effect/Effect"

/** Lets the event loop turn once. */
export const nextTurn = Effect.async<void>((resume) => {
  const done = () => resume(Effect.void)
  if (typeof setImmediate === "function") setImmediate(done)
  else setTimeout(done, 0)
})
