import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"

import type * as EventBroker from "../EventBroker.js"
import * as EventLog from "../EventLog.js"
import * as EventStream from "../EventStream.js"
import { isHidden, withoutCovered } from "./channel.js"
import { Connection } from "./connection.js"
import { fromConnection } from "./eventStream.js"
import { Hub, Subscriber } from "./hub.js"
import * as Metrics from "./metrics.js"
import { handOver } from "./nodeSink.js"
import * as Replay from "./replay.js"
import * as Settings from "./settings.js"

type SubscribeOptions<E, R> = EventBroker.SubscribeOptions<E, R>

interface Admission {
  readonly channels: ReadonlyArray<string>
  readonly expiresAt: DateTime.DateTime | undefined
}

export const make = Effect.fnUntraced(function*<R = never>(options: EventBroker.Options<R> = {}) {
  const log = yield* EventLog.EventLog
  const tail = yield* log.tail
  const presence = yield* log.presence
  const clock = yield* Effect.clock
  const context = yield* Effect.context<R>()
  const scope = yield* Effect.scope
  const hub = new Hub()
  const follows = new Map<string, Follow>()
  const present = new Map<string, number>()
  const someone = Effect.unsafeMakeLatch(false)
  const nobody = Effect.unsafeMakeLatch(true)
  let isDraining = false

  interface Follow {
    users: number
    isFollowed: boolean
    /** One at a time: an unfollow that is on its way would undo the follow of whoever comes meanwhile. */
    readonly turn: Effect.Semaphore
  }

  const follow = (channel: string) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const known = follows.get(channel) ??
          { users: 0, isFollowed: false, turn: Effect.unsafeMakeSemaphore(1) }
        follows.set(channel, known)
        known.users++
        return known
      }),
      (known) =>
        Effect.suspend(() => --known.users > 0 ? Effect.void : known.turn.withPermits(1)(unfollow(channel, known)))
    ).pipe(
      Effect.flatMap((known) => {
        const once = Effect.suspend(() =>
          known.isFollowed ? Effect.void : Effect.map(tail.follow(channel), () => {
            known.isFollowed = true
          })
        )
        return known.isFollowed ? Effect.void : known.turn.withPermits(1)(once)
      })
    )

  const unfollow = (channel: string, known: Follow) =>
    Effect.suspend(() => {
      if (known.users > 0 || follows.get(channel) !== known) return Effect.void
      known.isFollowed = false
      return Effect.map(tail.unfollow(channel), () => {
        if (known.users === 0) follows.delete(channel)
      })
    })

  /** Takes a place among the connections for as long as the scope lasts, if there is one to be had. */
  const enter = (subscriber: Subscriber) =>
    Effect.suspend(() => {
      let isJoining = false
      return Effect.acquireRelease(
        Effect.suspend(() => {
          if (isFull(subscriber)) return Effect.succeed(false)
          hub.add(subscriber)
          someone.unsafeOpen()
          nobody.unsafeClose()
          return Effect.as(countPresent(subscriber, 1), true)
        }),
        (hasEntered) =>
          Effect.suspend(() => {
            if (!hasEntered) return Effect.void
            hub.remove(subscriber)
            if (hub.all.size === 0) {
              someone.unsafeClose()
              nobody.unsafeOpen()
            }
            const left = countPresent(subscriber, -1)
            return isJoining ? Effect.zipRight(left, runHook(options.onLeave, subscriber)) : left
          })
      ).pipe(
        // A hook may take its time, and the client leave meanwhile.
        Effect.tap((hasEntered) => {
          isJoining = hasEntered
          return isJoining ? runHook(options.onJoin, subscriber) : Effect.void
        })
      )
    })

  const countPresent = (subscriber: Subscriber, change: 1 | -1) =>
    Effect.forEach(withoutCovered(subscriber.channels), (channel) => {
      const count = (present.get(channel) ?? 0) + change
      if (count === 0) present.delete(channel)
      else present.set(channel, count)
      return presence.set(channel, count)
    }, { discard: true })

  const runHook = (hook: typeof options.onJoin, subscriber: Subscriber) =>
    hook === undefined ? Effect.void : Effect.provide(hook(toSubscription(subscriber)), context)

  const authorize = <E1, R1>(requested: ReadonlyArray<string>, options: SubscribeOptions<E1, R1>) =>
    options.authorize === undefined
      ? Effect.succeed<Admission>({ channels: requested, expiresAt: undefined })
      : Effect.map(options.authorize(requested), ({ channels, expiresAt }): Admission => ({
        channels: unique(channels),
        expiresAt
      }))

  const isFull = ({ channels, key }: Subscriber) =>
    isDraining ||
    channels.length > (options.maxChannels ?? 128) ||
    hub.all.size >= (options.maxConnections ?? Number.POSITIVE_INFINITY) ||
    (key !== undefined && hub.connectionsOf(key) >= (options.maxConnectionsPerKey ?? Number.POSITIVE_INFINITY))

  const makeConnection = (options: EventStream.Options, expiresAt?: DateTime.DateTime) =>
    Effect.map(Settings.make({ retry: "3 seconds", strategy: "disconnect", ...options }), (settings) => {
      const left = expiresAt === undefined
        ? Number.POSITIVE_INFINITY
        : DateTime.toEpochMillis(expiresAt) - clock.unsafeCurrentTimeMillis()
      return new Connection({ ...settings, maxAge: Math.min(settings.maxAge, left) }, clock)
    })

  /** A stream that only says when to come back. */
  const shed = (options: EventStream.Options) =>
    Effect.map(makeConnection(options), (connection) => {
      Metrics.add(Metrics.shed, 1)
      connection.shutdown()
      return fromConnection(connection)
    })

  /** The subscription, unless there is no place for it. Nothing remains of one that fails. */
  const open = <E1, R1>(admission: Admission, options: SubscribeOptions<E1, R1>) =>
    Effect.flatMap(
      Effect.scope,
      (scope) =>
        Effect.flatMap(Scope.fork(scope, ExecutionStrategy.sequential), (scope) =>
          Effect.onError(
            Scope.extend(openIn(admission, options), scope),
            (cause) => Scope.close(scope, Exit.failCause(cause))
          ))
    )

  const openIn = <E1, R1>(admission: Admission, options: SubscribeOptions<E1, R1>) =>
    Effect.gen(function*() {
      yield* Effect.forEach(admission.channels, notReserved, { discard: true })
      const connection = yield* makeConnection(options, admission.expiresAt)
      const subscriber = new Subscriber(connection, admission.channels, options.key)
      const subscriptionContext = yield* Effect.context<R1>()
      connection.heartbeat = () => hub.heartbeatOf(subscriber)
      yield* Effect.addFinalizer(() => Effect.sync(() => connection.end()))
      if (!(yield* enter(subscriber))) return Option.none()
      yield* Effect.forEach(subscriber.channels, follow, { discard: true })

      const subscriberScope = yield* Effect.scope
      const goOn = (reading: Effect.Effect<void, unknown, R1>) =>
        reading.pipe(
          Effect.catchAllCause((cause) =>
            Effect.zipRight(Effect.logError("A subscription could not go on", cause), sendAway(subscriber))
          ),
          Effect.interruptible,
          Effect.forkIn(subscriberScope),
          Effect.provide(subscriptionContext)
        )
      const catchUp = Replay.catchUp(log, subscriber, options.snapshot)
      subscriber.goAstray = goOn(Effect.flatMap(authorize(admission.channels, options), (grant) =>
        admission.channels.every((channel) =>
            grant.channels.includes(channel)
          )
          ? catchUp
          : sendAway(subscriber)))

      const asked = Option.fromNullable(options.lastEventId)
      const cursor = Option.flatMap(asked, EventLog.parseEventId)
      if (Option.isSome(cursor)) {
        subscriber.moveTo(cursor.value)
        yield* goOn(catchUp)
        return Option.some(connection)
      }
      const head = yield* log.head
      if (Option.isSome(asked) || options.snapshot !== undefined) {
        const reason = Option.isSome(asked) ? "Malformed" : undefined
        yield* goOn(Effect.zipRight(Replay.startAnew(subscriber, options.snapshot, head, reason), catchUp))
        return Option.some(connection)
      }
      subscriber.moveTo(head)
      connection.offer(Replay.cursorFrame(head))
      if (subscriber.isBehind) {
        yield* goOn(catchUp)
      } else subscriber.isLive = true
      return Option.some(connection)
    }).pipe(
      Effect.map(Option.map(fromConnection)),
      Effect.withSpan("EventBroker.subscribe", {
        attributes: { channels: admission.channels },
        captureStackTrace: false
      })
    )

  const shutdown = Effect.sync(() => {
    isDraining = true
    for (const { connection } of hub.all) connection.shutdown()
  })

  const disconnect = (matches: (subscriber: Subscriber) => boolean) => {
    const matching = Array.from(hub.all).filter(matches)
    for (const { connection } of matching) connection.shutdown()
    return matching.length
  }

  const revoke = (entries: ReadonlyArray<EventLog.Entry>) => {
    if (entries.length === 0) return
    const keys = new Set(entries.map(({ data }) => new TextDecoder().decode(data)))
    disconnect(({ key }) => key !== undefined && keys.has(key))
  }

  /** Which keys were revoked while the tail was lost. If that is not known, all that have one are sent away. */
  const revokeLost = Effect.gen(function*() {
    const page = yield* Effect.retry(log.read([revocations], revokedUntil, 1000), Replay.backoff)
    revokedUntil = page.position
    revoke(page.entries)
    if (Option.isSome(page.missing)) disconnect(({ key }) => key !== undefined)
    return page.more
  }).pipe(Effect.repeat({ while: (more) => more }))

  const deliver = Effect.flatMap(tail.take, (items) => {
    const entries = items.filter((item) => item._tag === "Entry")
    revoke(entries.filter(({ channel }) => channel === revocations))
    const astray = hub.dispatch(items)
    const goAstray = Effect.forEach(astray, (subscriber) => subscriber.goAstray, { discard: true })
    if (entries.length < items.length) return Effect.zipRight(goAstray, revokeLost)
    revokedUntil = entries.at(-1) ?? revokedUntil
    return goAstray
  })

  const keepTime = Effect.suspend(() => Effect.sleep(Math.min(Math.max(hub.tick(), minTick), maxTick)))

  let revokedUntil = yield* log.head
  yield* tail.follow(revocations)
  yield* Effect.forkIn(Effect.forever(deliver), scope)
  yield* Effect.forkIn(Effect.forever(someone.whenOpen(keepTime)), scope)
  yield* Effect.addFinalizer(() => shutdown)

  const service: EventBroker.EventBroker.Service = {
    publish: (channel, event) =>
      Effect.flatMap(
        Effect.zipRight(notReserved(channel), Replay.encode(event)),
        (data) => log.append(channel, data)
      ).pipe(
        Effect.map((cursor) => {
          Metrics.add(Metrics.published, 1)
          return EventLog.formatEventId(cursor)
        }),
        Effect.withSpan("EventBroker.publish", { attributes: { channel }, captureStackTrace: false })
      ),
    subscribe: (channels, options = {}) =>
      Effect.flatMap(
        authorize(unique(channels), options),
        (admission) =>
          Effect.flatMap(
            open(admission, options),
            Option.match({ onNone: () => shed(options), onSome: Effect.succeed })
          )
      ),
    respond: (channels, options = {}) =>
      Effect.gen(function*() {
        const request = yield* HttpServerRequest
        const admission = yield* authorize(unique(channels), options)
        if (admission.channels.length === 0) return HttpServerResponse.empty({ status: 403 })
        const sendAway = request.headers.accept?.includes("text/event-stream") === true
          ? Effect.map(shed(options), EventStream.toResponse(options))
          : Effect.map(Settings.make(options), ({ farewell }) =>
            HttpServerResponse.empty({
              status: 503,
              headers: { "retry-after": String(Math.ceil(farewell / 1000)) }
            }))
        const lastEventId = options.lastEventId ?? Option.getOrUndefined(yield* EventStream.lastEventId)
        return yield* open(admission, { ...options, lastEventId }).pipe(
          Effect.flatMap(Option.match({
            onNone: () => sendAway,
            onSome: (stream) => handOver(stream[EventStream.TypeId], EventStream.toResponse(stream, options))
          })),
          // Told 500, a browser would never come back.
          Effect.catchIf((error) => error instanceof EventLog.EventLogError && error.retryable, () => sendAway)
        )
      }),
    subscribers: (channel) =>
      Effect.map(presence.others(channel), (others) => hub.subscribersOf(channel).size + others),
    channels: Effect.sync(() => hub.channels),
    disconnect: (predicate) => Effect.sync(() => disconnect((subscriber) => predicate(toSubscription(subscriber)))),
    revoke: (key) => Effect.asVoid(log.append(revocations, new TextEncoder().encode(key))),
    drain: shutdown.pipe(
      Effect.zipRight(Effect.timeoutOption(nobody.await, drainGrace)),
      Effect.zipRight(Effect.sync(() => {
        for (const { connection } of hub.all) connection.disconnect()
      }))
    )
  }
  return service
})

const unique = (names: string | Iterable<string>): ReadonlyArray<string> =>
  typeof names === "string" ? [names] : Array.from(new Set(names))

const toSubscription = ({ channels, key }: Subscriber): EventBroker.Subscription => ({
  channels,
  key: Option.fromNullable(key)
})

/** What the brokers tell each other is not for others to say or to read. */
const notReserved = (channel: string): Effect.Effect<void, EventLog.EventLogError> =>
  isHidden(channel)
    ? new EventLog.EventLogError({ reason: "InvalidChannel", detail: "a channel must not begin with \"$\"" })
    : Effect.void

const sendAway = ({ connection }: Subscriber) => Effect.sync(() => connection.shutdown())

// The keys whose connections are to end, on every node.
const revocations = "$effect-realtime/revoked"
const drainGrace = "1 second"
const minTick = 10
const maxTick = 1000
