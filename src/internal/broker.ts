import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
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
import { handOver, turn } from "./nodeSink.js"
import * as Replay from "./replay.js"
import * as Settings from "./settings.js"

type SubscribeOptions<E, R> = EventBroker.SubscribeOptions<E, R>

interface Admission {
  readonly channels: ReadonlyArray<string>
  readonly expiresAt: DateTime.DateTime | undefined
  /** What had been disconnected when it was asked for: more, and the answer may be out of date. */
  readonly disconnects: number
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
  const lost = Effect.unsafeMakeLatch(false)
  let isDraining = false
  let disconnects = 0

  interface Follow {
    users: number
    isFollowed: boolean
    /** One at a time: an unfollow that is on its way would undo the follow of whoever comes meanwhile. */
    readonly turn: Effect.Semaphore
  }

  const follow = (subscriber: Subscriber, channel: string) =>
    Effect.suspend(() => {
      const known = follows.get(channel) ?? { users: 0, isFollowed: false, turn: Effect.unsafeMakeSemaphore(1) }
      follows.set(channel, known)
      known.users++
      subscriber.following++
      const once = Effect.suspend(() =>
        known.isFollowed ? Effect.void : Effect.map(tail.follow(channel), () => {
          known.isFollowed = true
        })
      )
      return known.isFollowed ? Effect.void : known.turn.withPermits(1)(once)
    })

  const unfollow = (channel: string) =>
    Effect.suspend(() => {
      const known = follows.get(channel)
      if (known === undefined || --known.users > 0) return Effect.void
      return known.turn.withPermits(1)(Effect.suspend(() => {
        if (known.users > 0 || follows.get(channel) !== known) return Effect.void
        known.isFollowed = false
        return Effect.map(tail.unfollow(channel), () => {
          if (known.users === 0) follows.delete(channel)
        })
      }))
    })

  /** Takes a place among the connections, if there is one to be had. */
  const enter = (subscriber: Subscriber, admission: Admission) =>
    Effect.suspend(() => {
      if (isRefused(subscriber, admission)) return Effect.succeed(false)
      hub.add(subscriber)
      someone.unsafeOpen()
      nobody.unsafeClose()
      const announce = Effect.suspend(() => {
        // A hook may take its time, and the client leave meanwhile.
        subscriber.isAnnounced = true
        return runHook(options.onJoin, subscriber)
      })
      return Effect.uninterruptible(countPresent(subscriber, 1)).pipe(Effect.zipRight(announce), Effect.as(true))
    })

  /** Gives back whatever a subscriber has taken, once. */
  const leave = (subscriber: Subscriber) =>
    Effect.suspend(() => {
      subscriber.connection.end()
      const followed = subscriber.channels.slice(0, subscriber.following)
      subscriber.following = 0
      const unfollowed = Effect.forEach(followed, unfollow, { discard: true })
      if (!hub.remove(subscriber)) return unfollowed
      if (hub.all.size === 0) {
        someone.unsafeClose()
        nobody.unsafeOpen()
      }
      return unfollowed.pipe(
        Effect.zipRight(countPresent(subscriber, -1)),
        Effect.zipRight(subscriber.isAnnounced ? runHook(options.onLeave, subscriber) : Effect.void)
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
    Effect.flatMap(turn, () => {
      const before = disconnects
      return options.authorize === undefined
        ? Effect.succeed<Admission>({ channels: requested, expiresAt: undefined, disconnects: before })
        : Effect.map(options.authorize(requested), ({ channels, expiresAt }): Admission => ({
          channels: unique(channels),
          expiresAt,
          disconnects: before
        }))
    })

  const isRefused = ({ channels, connection, key }: Subscriber, admission: Admission) =>
    isDraining ||
    admission.disconnects !== disconnects ||
    !limit(connection, admission.expiresAt) ||
    channels.length > (options.maxChannels ?? 128) ||
    hub.all.size >= (options.maxConnections ?? Number.POSITIVE_INFINITY) ||
    (key !== undefined && hub.connectionsOf(key) >= (options.maxConnectionsPerKey ?? Number.POSITIVE_INFINITY))

  /** Ends a connection when the credential expires. Returns false if it has. */
  const limit = (connection: Connection, expiresAt: DateTime.DateTime | undefined) =>
    expiresAt === undefined || connection.expireAt(DateTime.toEpochMillis(expiresAt))

  const makeConnection = (options: EventStream.Options) =>
    Effect.map(
      Settings.make({
        ...options,
        retry: options.retry ?? "3 seconds",
        strategy: options.strategy ?? "disconnect"
      }),
      (settings) => new Connection(settings, clock)
    )

  /** A stream that only says when to come back. */
  const shed = (options: EventStream.Options) =>
    Effect.map(makeConnection(options), (connection) => {
      Metrics.add(Metrics.shed, 1)
      connection.shutdown()
      return fromConnection(connection)
    })

  /** The subscription, unless there is no place for it. Nothing remains of one that fails. */
  const open = <E1, R1>(admission: Admission, options: SubscribeOptions<E1, R1>) =>
    Effect.gen(function*() {
      const context = yield* Effect.context<R1>()
      const scope = yield* Effect.scope
      const connection = yield* makeConnection(options)
      const subscriber = new Subscriber(connection, admission.channels, options.key)
      const goOn = (reading: Effect.Effect<void, unknown, R1>) =>
        reading.pipe(
          Effect.catchAllCause((cause) =>
            Effect.zipRight(Effect.logError("A subscription could not go on", cause), sendAway(subscriber))
          ),
          Effect.interruptible,
          Effect.forkIn(scope),
          Effect.provide(context)
        )
      connection.heartbeat = () => hub.heartbeatOf(subscriber)
      // Made when it is needed, which for most it never is.
      subscriber.goAstray = Effect.suspend(() =>
        goOn(Effect.flatMap(authorize(admission.channels, options), (grant) =>
          admission.channels.every((channel) =>
              grant.channels.includes(channel)
            ) && limit(connection, grant.expiresAt)
            ? Replay.catchUp(log, subscriber, options.snapshot)
            : sendAway(subscriber)))
      )
      return yield* Effect.uninterruptibleMask((restore) =>
        Scope.addFinalizer(scope, leave(subscriber)).pipe(
          Effect.zipRight(restore(start(subscriber, admission, options, goOn))),
          Effect.onError(() =>
            leave(subscriber)
          )
        )
      ).pipe(Effect.withSpan("EventBroker.subscribe", {
        attributes: { channels: admission.channels },
        captureStackTrace: false
      }))
    })

  const start = <E1, R1>(
    subscriber: Subscriber,
    admission: Admission,
    options: SubscribeOptions<E1, R1>,
    goOn: (reading: Effect.Effect<void, unknown, R1>) => Effect.Effect<unknown>
  ) =>
    Effect.gen(function*() {
      const { channels, connection } = subscriber
      yield* Effect.forEach(channels, notReserved, { discard: true })
      if (!(yield* enter(subscriber, admission))) return Option.none()
      yield* Effect.forEach(channels, (channel) => follow(subscriber, channel), { discard: true })

      const stream = Option.some(fromConnection(connection))
      const catchUp = Effect.suspend(() => Replay.catchUp(log, subscriber, options.snapshot))
      const asked = Option.filter(Option.fromNullable(options.lastEventId), (id) => id !== "")
      const cursor = Option.flatMap(asked, EventLog.parseEventId)
      if (Option.isSome(cursor)) {
        subscriber.moveTo(cursor.value)
        yield* goOn(catchUp)
        return stream
      }
      const head = yield* log.head
      if (Option.isSome(asked) || options.snapshot !== undefined) {
        const reason = Option.isSome(asked) ? "Malformed" : undefined
        yield* goOn(Effect.zipRight(Replay.startAnew(subscriber, options.snapshot, head, reason), catchUp))
        return stream
      }
      subscriber.moveTo(head)
      connection.offer(Replay.cursorFrame(head))
      if (subscriber.isBehind) yield* goOn(catchUp)
      else subscriber.isLive = true
      return stream
    })

  const shutdown = Effect.sync(() => {
    isDraining = true
    for (const { connection } of hub.all) connection.shutdown()
  })

  const drain = shutdown.pipe(
    Effect.zipRight(Effect.timeoutOption(Effect.interruptible(nobody.await), drainGrace)),
    Effect.zipRight(Effect.sync(() => {
      for (const { connection } of hub.all) connection.disconnect()
    }))
  )

  const disconnect = (matches: (subscriber: Subscriber) => boolean) => {
    disconnects++
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
  const revokeLost = Effect.suspend(() => {
    lost.unsafeClose()
    const from = lostFrom ?? revokedUntil
    lostFrom = undefined
    return Effect.iterate<{ position: EventLog.Cursor; more: boolean }, never, EventLog.EventLogError>(
      { position: from, more: true },
      {
        while: ({ more }) => more,
        body: ({ position }) =>
          Effect.tap(Effect.retry(log.read([revocations], position, 1000), Replay.backoff), (page) => {
            revoke(page.entries)
            if (Option.isSome(page.missing)) disconnect(({ key }) => key !== undefined)
          })
      }
    )
  })

  const deliver = Effect.flatMap(tail.take, (items) => {
    const entries = items.filter((item) => item._tag === "Entry")
    revoke(entries.filter(({ channel }) => channel === revocations))
    const astray = hub.dispatch(items)
    if (entries.length < items.length) {
      lostFrom ??= revokedUntil
      lost.unsafeOpen()
    }
    const last = Arr.lastNonEmpty(items)
    revokedUntil = last._tag === "Lost" ? last.position : last
    return Effect.forEach(astray, (subscriber) => subscriber.goAstray, { discard: true })
  })

  /** Without it nobody would get anything any more, and not know. */
  const keepDoing = <E>(work: Effect.Effect<unknown, E>) =>
    Effect.forever(work).pipe(
      Effect.catchAllCause((cause) => Effect.zipRight(Effect.logError("A broker could not go on", cause), drain)),
      Effect.forkIn(scope)
    )

  const keepTime = Effect.suspend(() => Effect.sleep(Math.min(Math.max(hub.tick(), minTick), maxTick)))

  let revokedUntil = yield* log.head
  let lostFrom: EventLog.Cursor | undefined
  yield* tail.follow(revocations)
  yield* keepDoing(deliver)
  // On its own: while the log is away, what is published still comes from the tail.
  yield* keepDoing(lost.whenOpen(revokeLost))
  yield* keepDoing(someone.whenOpen(keepTime))
  // In real time, because the clock of a test stands still.
  yield* Effect.addFinalizer(() => Effect.withClock(drain, Clock.make()))

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
    subscribers: (channel) => Effect.map(presence.others(channel), (others) => hub.countOf(channel) + others),
    channels: Effect.sync(() => hub.channels),
    disconnect: (predicate) => Effect.sync(() => disconnect((subscriber) => predicate(toSubscription(subscriber)))),
    revoke: (key) => Effect.asVoid(log.append(revocations, new TextEncoder().encode(key))),
    drain
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
const minTick = 100
const maxTick = 1000
