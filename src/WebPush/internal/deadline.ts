/**
 * The time limit of the requests of one call, with one timer for all of them: `Effect.timeout` costs two fibers and a
 * timer for each.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"

/** Runs an effect in a fiber of its own, and interrupts it at its deadline. Ends after the effect has ended. */
export type Limit = <A, E>(effect: Effect.Effect<A, E>, onTimeout: () => E) => Effect.Effect<A, E>

interface Pending {
  readonly fiber: Fiber.RuntimeFiber<unknown, unknown>
  readonly deadline: bigint
  isOver: boolean
}

/** Builds the limit of a call. Its timer is owned by the scope. */
export const make = (timeout: Duration.Duration): Effect.Effect<Limit, never, Scope.Scope> =>
  Effect.gen(function*() {
    const clock = yield* Effect.clock
    const self = yield* Effect.fiberId
    const nanos = Option.getOrUndefined(Duration.toNanos(timeout))
    // In the order of their deadlines, since all have the same time limit.
    const pending = new Set<Pending>()

    const expire = Effect.suspend(() => {
      const now = clock.unsafeCurrentTimeNanos()
      for (const one of pending) {
        if (one.deadline > now) return clock.sleep(Duration.nanos(one.deadline - now))
        pending.delete(one)
        one.isOver = true
        one.fiber.unsafeInterruptAsFork(self)
      }
      return clock.sleep(timeout)
    })
    if (nanos !== undefined) yield* Effect.forkScoped(Effect.forever(expire))

    return <A, E>(effect: Effect.Effect<A, E>, onTimeout: () => E) =>
      // Effect logs the error of a fiber that fails.
      Effect.flatMap(Effect.fork(Effect.exit(effect)), (fiber) =>
        Effect.async<A, E>((resume) => {
          const one = { fiber, deadline: clock.unsafeCurrentTimeNanos() + (nanos ?? 0n), isOver: false }
          pending.add(one)
          fiber.addObserver((ended) => {
            pending.delete(one)
            const exit = Exit.flatten(ended)
            resume(one.isOver && Exit.isInterrupted(exit) ? Effect.fail(onTimeout()) : exit)
          })
          return Fiber.interrupt(fiber)
        }))
  })
