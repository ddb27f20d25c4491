/**
 * The time limit of the requests of one call, with one timer for all of them and no fiber for each: `Effect.timeout`
 * costs two fibers and a timer for each.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"

/**
 * Runs an effect in the current fiber, and interrupts it at its deadline, with the children of the fiber. Ends after
 * the effect has ended, and restores the settings (FiberRefs) that the effect has changed.
 */
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
    // The interruptions by this id are those of deadlines.
    const self = FiberId.unsafeMake()
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

    const isInterruptedByOther = (refs: FiberRefs.FiberRefs): boolean => {
      const cause = FiberRefs.getOrDefault(refs, FiberRef.interruptedCause)
      return !Cause.isEmpty(cause) && HashSet.some(Cause.interruptors(cause), (id) => !Equal.equals(id, self))
    }

    return <A, E>(effect: Effect.Effect<A, E>, onTimeout: () => E) =>
      Effect.withFiberRuntime<A, E>((fiber) => {
        const before = fiber.getFiberRefs()
        const one = { fiber, deadline: clock.unsafeCurrentTimeNanos() + (nanos ?? 0n), isOver: false }
        pending.add(one)
        // An interruption is stored in a FiberRef, too: that of a deadline ends with the effect, any other remains.
        const restoreRefs = Effect.updateFiberRefs((_, refs) => isInterruptedByOther(refs) ? refs : before)
        return Effect.uninterruptibleMask((restore) =>
          Effect.matchCauseEffect(restore(effect), {
            onFailure: (cause) => {
              pending.delete(one)
              return Effect.zipRight(
                restoreRefs,
                one.isOver && Cause.isInterrupted(cause) ? Effect.failSync(onTimeout) : Effect.failCause(cause)
              )
            },
            onSuccess: (value) => {
              pending.delete(one)
              return Effect.as(restoreRefs, value)
            }
          })
        )
      })
  })

/**
 * Runs an effect with a limit of its own, and in a fiber of its own: a deadline must not interrupt the children of the
 * caller's fiber.
 */
export const runOne = <A, E>(
  timeout: Duration.Duration,
  run: (limit: Limit) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.scoped(
    Effect.flatMap(make(timeout), (limit) =>
      // Effect logs the error of a fiber that fails.
      Effect.flatMap(Effect.forkScoped(Effect.exit(run(limit))), ({ await: exit }) =>
        Effect.flatten(Effect.flatten(exit))))
  )
