import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"

import type { Device, SubscriptionStore } from "../../SubscriptionStore.js"
import type * as WebPush from "../../WebPush.js"

export interface Delivery {
  readonly outcomes: ReadonlyArray<WebPush.Outcome>
  readonly pruned: number
}

export const isGone = ({ result }: WebPush.Outcome): boolean =>
  Either.isLeft(result) && result.left._tag === "WebPushGone"

/** Sends to devices, forgets those that are gone and notes which were reached. What was sent is reported even if the store fails. */
export const deliver = (
  webPush: WebPush.WebPush.Service,
  store: SubscriptionStore.Service,
  devices: ReadonlyArray<Device>,
  message: WebPush.Message,
  options: WebPush.SendOptions
): Effect.Effect<Delivery> =>
  Effect.gen(function*() {
    const { outcomes } = yield* webPush.sendMany(devices, message, options)
    const [failed, sent] = Arr.partition(outcomes, ({ result }) => Either.isRight(result))
    const gone = Arr.filter(failed, isGone)
    const pruned = yield* keep(() => store.prune(Arr.map(gone, ({ subscription }) => subscription)))
    yield* keep(() => store.touch(Arr.map(sent, ({ subscription }) => subscription)))
    return { outcomes, pruned: pruned ?? 0 }
  })

/** The reason of a typed failure. Nothing else of a cause may be logged: a store or a driver may quote an endpoint in it. */
export const reasonOf = (cause: Cause.Cause<unknown>): string =>
  Option.match(Cause.failureOption(cause), {
    onNone: () => "defect",
    onSome: (error) => Predicate.hasProperty(error, "reason") ? String(error.reason) : "unknown"
  })

// A store that throws or dies does not take the outcomes with it either.
const keep = <A, E>(effect: () => Effect.Effect<A, E>) =>
  Effect.catchAllCause(
    Effect.suspend(effect),
    (cause) =>
      Effect.as(
        Effect.logWarning(
          `SubscriptionStore could not store the outcome of a push (${reasonOf(cause)}): the report has it alone`
        ),
        undefined
      )
  )
