import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"

import type { EventLogError, Presence, Tail } from "../../EventLog.js"
import { withoutCovered } from "../../internal/channel.js"
import type { Channel, Hub, Subscriber } from "./hub.js"
import { logError } from "./logError.js"

/** A subscriber as the application sees it. */
interface Joined {
  readonly channels: ReadonlyArray<Channel>
  readonly owner: Option.Option<string>
}

interface Hooks<R> {
  readonly onJoin?: ((subscriber: Joined) => Effect.Effect<unknown, never, R>) | undefined
  readonly onLeave?: ((subscriber: Joined) => Effect.Effect<unknown, never, R>) | undefined
}

/**
 * The life of a subscriber. All that it acquires when it joins is released once, when its connection has stopped: its
 * scope may close much later, or never.
 *
 *     join     hub.add ----> presence + 1 --> onJoin --> follow
 *     release  hub.remove -> unfollow --> presence - 1 --> onLeave
 *
 * A channel is followed while the hub has subscribers for it. `release` may run at any moment of `join`. If that is
 * during `onJoin`, `onLeave` runs after it.
 */
export interface Lifecycle {
  readonly join: (subscriber: Subscriber) => Effect.Effect<void, EventLogError>
  /** Releases a subscriber whose connection has stopped, in a fiber of the broker. */
  readonly stop: (subscriber: Subscriber) => void
  /** Ends the connection of a subscriber whose scope closes, and waits for its release, for a second at most. */
  readonly leave: (subscriber: Subscriber) => Effect.Effect<void>
  /** Waits until all subscribers that have stopped are released, for a second at most. */
  readonly awaitReleases: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*<R>(hub: Hub, tail: Tail, presence: Presence, hooks: Hooks<R>) {
  const context = yield* Effect.context<R>()
  const releases = yield* FiberSet.make<void>()
  const runRelease = yield* FiberSet.runtime(releases)<never>()
  const followed = new Map<string, Scope.CloseableScope>()
  const present = new Map<string, number>()

  const isFollowed = (channel: string) => followed.has(channel)

  const followAll = (subscriber: Subscriber) =>
    Effect.suspend(() =>
      subscriber.channels.every(isFollowed)
        ? Effect.void
        : Effect.forEach(subscriber.channels, (channel) => follow(subscriber, channel), { discard: true })
    )

  const follow = (subscriber: Subscriber, channel: string) =>
    isFollowed(channel) || !hub.subscribers.has(subscriber) ?
      Effect.void :
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function*() {
          const scope = yield* Scope.make()
          const exit = yield* Effect.exit(restore(Scope.extend(tail.follow(channel), scope)))
          if (Exit.isFailure(exit) || followed.has(channel) || !hub.hasChannel(channel)) {
            yield* Scope.close(scope, exit)
            return yield* exit
          }
          followed.set(channel, scope)
        })
      )

  const unfollow = (channel: string) =>
    Effect.suspend(() => {
      const scope = followed.get(channel)
      if (scope === undefined || hub.hasChannel(channel)) return Effect.void
      followed.delete(channel)
      return Scope.close(scope, Exit.void)
    })

  const countPresent = (subscriber: Subscriber, change: 1 | -1) =>
    Effect.suspend(() => {
      if (change === 1 ? !hub.subscribers.has(subscriber) : !subscriber.isPresent) return Effect.void
      subscriber.isPresent = change === 1
      return Effect.forEach(withoutCovered(subscriber.channels), (channel) => {
        const count = (present.get(channel) ?? 0) + change
        if (count === 0) present.delete(channel)
        else present.set(channel, count)
        return presence.set(channel, count)
      }, { discard: true })
    })

  const runHook = (name: keyof Hooks<R>, subscriber: Subscriber) => {
    const hook = hooks[name]
    return hook === undefined
      ? Effect.void
      : Effect.suspend(() => hook(toJoined(subscriber))).pipe(
        Effect.provide(context),
        Effect.catchAllCause((cause) =>
          logError(`EventBroker ran ${name}, which failed: the connection is not affected`, cause)
        ),
        Effect.asVoid
      )
  }

  /** Runs `onJoin`, and the rest of the release if the connection has stopped meanwhile. */
  const runOnJoin = (subscriber: Subscriber) =>
    hooks.onJoin === undefined && hooks.onLeave === undefined ? Effect.void : Effect.suspend(() => {
      if (subscriber.isLocal || !hub.subscribers.has(subscriber)) return Effect.void
      subscriber.hooks = "joining"
      return Effect.ensuring(
        runHook("onJoin", subscriber),
        Effect.suspend(() => {
          subscriber.hooks = "joined"
          return hub.subscribers.has(subscriber) ? Effect.void : atMostGrace(release(subscriber))
        })
      )
    })

  /** Releases everything that a subscriber has acquired so far. */
  const release = (subscriber: Subscriber): Effect.Effect<void> =>
    Effect.suspend(() => {
      const hasJoined = subscriber.hooks === "joined"
      if (hasJoined) subscriber.hooks = "left"
      return Effect.forEach(subscriber.channels, unfollow, { discard: true }).pipe(
        Effect.zipRight(countPresent(subscriber, -1)),
        Effect.catchAllCause((cause) =>
          logError("EventBroker could not remove a connection from the log: it may still be counted", cause)
        ),
        Effect.zipRight(hasJoined ? runHook("onLeave", subscriber) : Effect.void)
      )
    })

  const lifecycle: Lifecycle = {
    join: (subscriber) =>
      Effect.suspend(() => {
        hub.add(subscriber)
        return Effect.uninterruptible(countPresent(subscriber, 1)).pipe(
          Effect.zipRight(runOnJoin(subscriber)),
          Effect.zipRight(followAll(subscriber))
        )
      }),
    stop: (subscriber) => {
      hub.remove(subscriber)
      runRelease(release(subscriber))
    },
    leave: (subscriber) =>
      Effect.suspend(() => {
        const { connection, hooks, isPresent } = subscriber
        const isSubscribed = hub.subscribers.has(subscriber)
        connection.end()
        hub.remove(subscriber)
        if (!connection.isCarried) hub.forget(connection)
        if (!isSubscribed && !isPresent && hooks !== "joined") return Effect.void
        const releasing = runRelease(release(subscriber))
        return releasing.unsafePoll() === null ? atMostGrace(Fiber.await(releasing)) : Effect.void
      }),
    awaitReleases: atMostGrace(FiberSet.awaitEmpty(releases))
  }
  return lifecycle
})

/** Returns the subscriber as the hooks and the predicate of `disconnect` receive it. */
export const toJoined = ({ granted, owner }: Subscriber): Joined => ({
  channels: Array.from(granted.values()),
  owner: Option.fromNullable(owner)
})

/** The time that a scope of the application, or of the broker, waits when it closes. */
export const grace = "1 second"

/** Waits for an effect, for a second of real time at most: the clock of a test does not advance. */
const atMostGrace = <A>(effect: Effect.Effect<A>): Effect.Effect<void> =>
  effect.pipe(
    Effect.timeoutOption(grace),
    Effect.withClock(Clock.make()),
    Effect.interruptible,
    Effect.fork,
    Effect.flatMap(Fiber.await),
    Effect.asVoid
  )
