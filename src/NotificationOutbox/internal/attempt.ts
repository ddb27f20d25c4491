import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Random from "effect/Random"

import type { EventLogError } from "../../EventLog.js"
import type { Notifier, NotifyError, NotifyOptions } from "../../Notifier.js"
import { withoutExcluded } from "../../Notifier.js"
import type { Device, SubscriptionStore } from "../../SubscriptionStore.js"
import type * as WebPush from "../../WebPush.js"
import type { Entry, Pending } from "./entry.js"
import { expiryOf } from "./entry.js"

/** The result of one attempt to send a notification. */
export interface Attempt {
  readonly failures: ReadonlyArray<Pending>
  readonly reached: Entry["reached"]
  readonly isExpired: boolean
}

const longestBackoff = 3_600_000

/** The longest wait that a push service can ask for, in milliseconds. */
export const longestRetryAfter = 86_400_000

/** A random factor from 0.5 to 1.5. Devices that fail together use the same one, and are tried again together. */
export const jitter: Effect.Effect<number> = Effect.map(Random.next, (random) => 0.5 + random)

/** Returns the time before the next attempt, in milliseconds. */
export const backoff = (attempts: number, jitter: number): number =>
  Math.min(longestBackoff, 1000 * 2 ** attempts) * jitter

/** Returns `true` if a further attempt may reach the device. */
export const isPending = ({ attempts = 0, isFinal }: Pending, maxAttempts: number): boolean =>
  !isFinal && attempts < maxAttempts

const sendOptions = (entry: Entry, now: number): NotifyOptions => {
  const { delay = Duration.zero, policy, topic, ...options } = entry.message.options
  const left = expiryOf(entry) - now
  const wait = policy === "always" ? 0 : Duration.toMillis(delay)
  return {
    ...options,
    policy,
    ...(entry.message.options.delay === undefined ? undefined : { delay }),
    ...(options.ttl === undefined ? undefined : {
      ttl: Math.max(0, Math.min(Duration.toMillis(options.ttl), left - (entry.failures === null ? wait : 0)))
    }),
    ...(topic === undefined && entry.failures === null && entry.attempts === 1 ?
      undefined :
      { topic: topic ?? entry.id })
  }
}

const idsOf = (outcomes: ReadonlyArray<WebPush.Outcome>): ReadonlyArray<string> =>
  Arr.map(outcomes, ({ subscription }) => subscription.endpointId)

const isGone = ({ result }: WebPush.Outcome): boolean => Either.isLeft(result) && result.left._tag === "WebPushGone"

const toPending = (
  entry: Entry,
  { result, subscription }: WebPush.Outcome,
  now: number,
  jitter: number
): Option.Option<Pending> => {
  if (Either.isRight(result) || result.left._tag === "WebPushGone") return Option.none()
  const before = entry.failures?.find(({ device }) => device === subscription.endpointId)
  const attempts = entry.failures === null ? entry.attempts : (before?.attempts ?? 0) + 1
  const { isFinal, reason, retryAfter = Duration.zero } = result.left
  const wait = Math.max(Math.min(longestRetryAfter, Duration.toMillis(retryAfter)), backoff(attempts, jitter))
  return Option.some({ device: subscription.endpointId, reason, isFinal, attempts, dueAt: now + wait })
}

/** Returns the devices that the notification was not sent to: they are new, or replace another one. */
const newDevices = (
  devices: ReadonlyArray<Device>,
  { createdAt, failures, reached }: Entry
): ReadonlyArray<Device> => {
  const known = new Set([...reached ?? [], ...(failures ?? []).map(({ device }) => device)])
  return Arr.filter(
    devices,
    (device) =>
      !known.has(device.endpointId) &&
      (reached !== null || device.createdAt.epochMillis > createdAt.epochMillis)
  )
}

const expired = { reason: "Expired", isFinal: true } as const

/**
 * Makes one attempt to send a notification. The first attempt publishes the event and pushes to all devices that the
 * policy names. A later one pushes to the devices that are due, and to those that replace a device which was removed.
 */
export const attempt = Effect.fnUntraced(function*(
  { maxAttempts, notifier, push, store }: {
    readonly maxAttempts: number
    readonly notifier: Notifier.Service
    readonly push: WebPush.MessageFor<Device>
    readonly store: SubscriptionStore.Service
  },
  claimed: Entry
): Effect.fn.Return<Attempt, NotifyError | EventLogError> {
  const failures = claimed.failures?.map((failure) => ({ attempts: claimed.attempts - 1, ...failure })) ?? null
  const entry: Entry = { ...claimed, failures }
  const { message: { event }, owner } = entry
  const now = yield* Clock.currentTimeMillis
  // The store is read first: if it fails after the event was published, each attempt would publish the event again.
  const devicesOfOwner = Effect.map(
    store.forOwner(owner),
    (devices) => withoutExcluded(devices, entry.message.options.exclude ?? [])
  )
  const devices = yield* devicesOfOwner
  if (now >= expiryOf(entry)) {
    yield* Effect.logWarning(
      "NotificationOutbox did not send a notification whose ttl has passed: it becomes a dead letter"
    )
    return {
      failures: failures === null
        ? Arr.map(devices, ({ endpointId }): Pending => ({ device: endpointId, ...expired }))
        : Arr.map(failures, (failure) => isPending(failure, maxAttempts) ? { ...failure, ...expired } : failure),
      reached: entry.reached,
      isExpired: true
    }
  }
  const options = sendOptions(entry, now)

  /** Adds the outcomes, and those of the devices that replace one which was gone. */
  const toAttempt = Effect.fnUntraced(function*(
    outcomes: ReadonlyArray<WebPush.Outcome>,
    failures: ReadonlyArray<Pending>,
    connected: ReadonlyArray<Device>
  ): Effect.fn.Return<Attempt> {
    const known = {
      ...entry,
      reached: [...entry.reached ?? [], ...connected.map(({ endpointId }) => endpointId), ...idsOf(outcomes)]
    }
    const replacements = outcomes.some(isGone)
      ? newDevices(yield* Effect.orElseSucceed(devicesOfOwner, () => []), known)
      : []
    const more = replacements.length === 0 ? [] : (yield* notifier.push(replacements, push, options)).outcomes
    const now = yield* Clock.currentTimeMillis
    const factor = yield* jitter
    const pending = Arr.filterMap([...outcomes, ...more], (outcome) => toPending(entry, outcome, now, factor))
    return {
      failures: [...failures, ...pending],
      reached: Arr.difference(Arr.dedupe([...known.reached, ...idsOf(more)]), pending.map(({ device }) => device)),
      isExpired: false
    }
  })

  if (failures === null) {
    const { connected, event: published, outcomes } = yield* notifier.notify(owner, { event, push }, options)
    // The event was not published and no push was sent: the whole notification is tried again.
    if (Either.isLeft(published) && outcomes.length === 0) return yield* published.left
    return yield* toAttempt(outcomes, [], connected)
  }
  const [rest, pending] = Arr.partition(failures, (failure) => isPending(failure, maxAttempts))
  const byId = new Map(Arr.map(devices, (device) => [device.endpointId, device]))
  const [removed, present] = Arr.partition(pending, ({ device }) => byId.has(device))
  const [waiting, due] = Arr.partition(present, ({ dueAt = 0 }) => dueAt <= now)
  const replacements = removed.length === 0 ? [] : newDevices(devices, entry)
  const { outcomes } = yield* notifier.push(
    [...Arr.filterMap(due, ({ device }) => Option.fromNullable(byId.get(device))), ...replacements],
    push,
    options
  )
  const lost = Arr.map(
    Arr.drop(removed, replacements.length),
    (failure): Pending => ({ ...failure, reason: "Removed", isFinal: true })
  )
  return yield* toAttempt(outcomes, [...rest, ...waiting, ...lost], [])
})
