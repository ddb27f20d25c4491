/**
 * The time limit of the requests of one call, with one timer for all of them and no fiber for each: `Effect.timeout`
 * costs two fibers and a timer for each.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type * as Scope from "effect/Scope"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

export interface Limit<E> {
  /** Interrupts a fiber at its deadline, unless the returned function is called before. */
  readonly begin: (fiber: AnyFiber, onTimeout: () => E) => () => void
  /** Returns the failure of a fiber that its deadline has interrupted. */
  readonly failureOf: (fiber: AnyFiber) => E | undefined
}

interface Pending<E> {
  readonly fiber: AnyFiber
  readonly deadline: bigint
  readonly onTimeout: () => E
}

/** Builds the limit of a call. Its timer is owned by the scope. */
export const make = <E>(timeout: Duration.Duration): Effect.Effect<Limit<E>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const clock = yield* Effect.clock
    const nanos = Duration.isFinite(timeout) ? Duration.unsafeToNanos(timeout) : undefined
    // In the order of their deadlines, since all have the same time limit.
    const pending = new Set<Pending<E>>()
    const expired = new WeakMap<AnyFiber, () => E>()

    const expire = Effect.suspend(() => {
      const now = clock.unsafeCurrentTimeNanos()
      for (const one of pending) {
        if (one.deadline > now) return clock.sleep(Duration.nanos(one.deadline - now))
        pending.delete(one)
        expired.set(one.fiber, one.onTimeout)
        one.fiber.unsafeInterruptAsFork(FiberId.none)
      }
      return clock.sleep(timeout)
    })
    // Also in an uninterruptible region, in which the scope would wait for ever.
    if (nanos !== undefined) yield* Effect.forkScoped(Effect.interruptible(Effect.forever(expire)))

    return {
      begin: (fiber, onTimeout) => {
        const one = { fiber, deadline: clock.unsafeCurrentTimeNanos() + (nanos ?? 0n), onTimeout }
        pending.add(one)
        return () => void pending.delete(one)
      },
      failureOf: (fiber) => expired.get(fiber)?.()
    }
  })

/** Runs an effect with a limit of its own, in a fiber of its own. */
export const runOne = <A, E>(
  timeout: Duration.Duration,
  run: (limit: Limit<E>) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.scoped(
    Effect.flatMap(make<E>(timeout), (limit) =>
      // Effect logs the error of a fiber that fails.
      Effect.flatMap(Effect.forkScoped(Effect.interruptible(Effect.exit(run(limit)))), (fiber) =>
        Effect.flatMap(fiber.await, (exit) => {
          const failure = Exit.isFailure(exit) ? limit.failureOf(fiber) : undefined
          return failure === undefined ? Exit.flatten(exit) : Effect.fail(failure)
        })))
  )
