import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"

import type * as EventBroker from "../../EventBroker.js"
import * as EventLog from "../../EventLog.js"
import * as EventStream from "../../EventStream.js"
import type { Connection } from "../../EventStream/internal/connection.js"
import { fromConnection, open as openConnection } from "../../EventStream/internal/eventStream.js"
import { acceptsEvents } from "../../EventStream/internal/mediaType.js"
import * as Metrics from "../../EventStream/internal/metrics.js"
import { handOver, turn } from "../../EventStream/internal/nodeSink.js"
import * as Settings from "../../EventStream/internal/settings.js"
import { channelFault, isHidden, patternFault, withoutCovered } from "../../internal/channel.js"
import * as Topic from "../../Topic.js"
import { Hub, Subscriber } from "./hub.js"
import * as Replay from "./replay.js"

type SubscribeOptions<E, R> = EventBroker.SubscribeOptions<E, R>
type Channel = string | Topic.Pattern
type Matches = (subscriber: Subscriber) => boolean

/** A client that is being authorised: a disconnect meanwhile may concern it. */
interface Pending {
  readonly key: string | undefined
  readonly missed: Array<Matches>
  isRefused: boolean
}

interface Admission {
  /** By their names in the log. */
  readonly channels: ReadonlyMap<string, Channel>
  readonly expiresAt: DateTime.DateTime | undefined
}

export const make = Effect.fnUntraced(function*<R = never>(options: EventBroker.Options<R> = {}) {
  const maxChannels = options.maxChannels ?? 128
  const maxConnections = options.maxConnections ?? Number.POSITIVE_INFINITY
  const maxConnectionsPerKey = options.maxConnectionsPerKey ?? Number.POSITIVE_INFINITY
  for (const [name, limit] of Object.entries({ maxChannels, maxConnections, maxConnectionsPerKey })) {
    if (limit === Number.POSITIVE_INFINITY || (Number.isSafeInteger(limit) && limit >= 1)) continue
    yield* Effect.die(
      new Cause.IllegalArgumentException(`EventBroker: ${name} must be a whole number, one or more, or Infinity`)
    )
  }
  const log = yield* EventLog.EventLog
  const tail = yield* log.tail
  const presence = yield* log.presence
  const clock = yield* Effect.clock
  const context = yield* Effect.context<R>()
  const scope = yield* Effect.scope
  // Those that leave: a connection ends in the midst of a loop, and a scope of its own it may not have.
  const departures = yield* FiberSet.make<void>()
  const runDeparture = yield* FiberSet.runtime(departures)<never>()
  const hub = new Hub()
  const replays = Replay.makeTurns()
  const reauthorizations = Effect.unsafeMakeSemaphore(maxReauthorizations)
  const present = new Map<string, number>()
  const pendings = new Set<Pending>()
  const someone = Effect.unsafeMakeLatch(false)
  const nobody = Effect.unsafeMakeLatch(true)
  const lost = Effect.unsafeMakeLatch(false)
  let isDraining = false

  const follow = (subscriber: Subscriber, channel: string) =>
    Effect.suspend(() =>
      hub.all.has(subscriber) ? Scope.extend(tail.follow(channel), subscriber.followed) : Effect.void
    )

  /** Takes a place among the connections, if there is one to be had. */
  const enter = (subscriber: Subscriber, admission: Admission, pending: Pending) =>
    Effect.suspend(() => {
      if (isRefused(subscriber, admission, pending)) return Effect.succeed(false)
      hub.add(subscriber)
      someone.unsafeOpen()
      nobody.unsafeClose()
      return Effect.uninterruptible(countPresent(subscriber, 1)).pipe(
        Effect.zipRight(announce(subscriber)),
        Effect.as(true)
      )
    })

  /** A hook may take its time, and the client leave meanwhile: then the one hook follows the other. */
  const announce = (subscriber: Subscriber) =>
    Effect.suspend(() => {
      if (!hub.all.has(subscriber)) return Effect.void
      subscriber.announcement = "joining"
      return Effect.ensuring(
        runHook("onJoin", options.onJoin, subscriber),
        Effect.suspend(() => {
          subscriber.announcement = "joined"
          return hub.all.has(subscriber) ? Effect.void : within(depart(subscriber))
        })
      )
    })

  /** Frees the place of a subscriber at once. What its leaving costs others is for `depart`. */
  const remove = (subscriber: Subscriber) => {
    hub.remove(subscriber)
    if (hub.isEmpty) {
      someone.unsafeClose()
      nobody.unsafeOpen()
    }
  }

  /** Gives back whatever a subscriber has taken, once. */
  const depart = (subscriber: Subscriber): Effect.Effect<void> =>
    Effect.suspend(() => {
      const unfollowed = Scope.close(subscriber.followed, Exit.void)
      const absent = subscriber.isPresent ? countPresent(subscriber, -1) : Effect.void
      const hasJoined = subscriber.announcement === "joined"
      if (hasJoined) subscriber.announcement = "left"
      return unfollowed.pipe(
        Effect.zipRight(absent),
        Effect.catchAllCause((cause) =>
          Effect.logError("EventBroker could not withdraw a connection from the log: it may still be counted", cause)
        ),
        Effect.zipRight(hasJoined ? runHook("onLeave", options.onLeave, subscriber) : Effect.void)
      )
    })

  /** The connection has ended, or nothing that is published reaches it any more. Its scope may never be closed. */
  const onStop = (subscriber: Subscriber) => {
    remove(subscriber)
    runDeparture(depart(subscriber))
  }

  const leave = (subscriber: Subscriber) =>
    Effect.suspend(() => {
      const { announcement, connection, isPresent } = subscriber
      connection.end()
      if (!connection.isCarried) hub.forget(connection)
      remove(subscriber)
      if (!isPresent && announcement !== "joined") return Effect.void
      const departure = runDeparture(depart(subscriber))
      return departure.unsafePoll() === null ? within(Fiber.await(departure)) : Effect.void
    })

  const countPresent = (subscriber: Subscriber, change: 1 | -1) =>
    Effect.suspend(() => {
      if (subscriber.isPresent === (change === 1)) return Effect.void
      subscriber.isPresent = change === 1
      return Effect.forEach(withoutCovered(subscriber.channels), (channel) => {
        const count = (present.get(channel) ?? 0) + change
        if (count === 0) present.delete(channel)
        else present.set(channel, count)
        return presence.set(channel, count)
      }, { discard: true })
    })

  const runHook = (name: string, hook: typeof options.onJoin, subscriber: Subscriber) =>
    hook === undefined
      ? Effect.void
      : Effect.suspend(() => hook(toSubscription(subscriber))).pipe(
        Effect.provide(context),
        Effect.catchAllCause((cause) =>
          Effect.logError(`EventBroker ran ${name}, which failed: the connection is not affected`, cause)
        ),
        Effect.asVoid
      )

  /** The names of what a client asks for, or of what it was granted. */
  const check = (
    channels: Channel | Iterable<Channel>
  ): Either.Either<Admission["channels"], EventLog.EventLogError> => {
    const names = new Map<string, Channel>()
    for (const channel of typeof channels === "string" || Topic.isPattern(channels) ? [channels] : channels) {
      const fault = faultOf(channel)
      if (fault !== undefined) return Either.left(invalidChannel(`a channel ${fault}`))
      names.set(typeof channel === "string" ? channel : channel.path, channel)
    }
    return Either.right(names)
  }

  /** Asks who may read. A disconnect that comes before the answer has been used is remembered for it. */
  const pend = <A, E1, R1>(key: string | undefined, use: (pending: Pending) => Effect.Effect<A, E1, R1>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const pending: Pending = { key, missed: [], isRefused: false }
        pendings.add(pending)
        return pending
      }),
      use,
      (pending) => Effect.sync(() => pendings.delete(pending))
    )

  const authorize = <E1, R1>(
    requested: Admission["channels"],
    options: SubscribeOptions<E1, R1>
  ): Effect.Effect<Either.Either<Admission, EventLog.EventLogError>, E1, R1> =>
    Effect.map(
      Effect.flatMap(turn, () =>
        options.authorize === undefined
          ? Effect.succeed(Either.right<Admission>({ channels: requested, expiresAt: undefined }))
          : Effect.map(
            options.authorize(Array.from(requested.values())),
            ({ channels, expiresAt }) => Either.map(check(channels), (channels): Admission => ({ channels, expiresAt }))
          )),
      Either.filterOrLeft(
        ({ channels }) => channels.size <= maxChannels,
        () => invalidChannel(`a connection must not have more than ${maxChannels} channels`)
      )
    )

  /**
   * Bounds how many connections are authorised anew at once: a tail that is lost sends all of them to the log. An
   * authorisation that takes longer than a second lets the next one begin.
   */
  const pace = <A, E1, R1>(authorization: Effect.Effect<A, E1, R1>) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        const release = yield* Effect.once(reauthorizations.release(1))
        yield* restore(reauthorizations.take(1))
        const timer = yield* Effect.fork(Effect.interruptible(Effect.delay(release, patience)))
        return yield* Effect.ensuring(restore(authorization), Effect.zipRight(release, Fiber.interrupt(timer)))
      })
    )

  const isRefused = (subscriber: Subscriber, admission: Admission, pending: Pending) =>
    isDraining ||
    pending.isRefused ||
    pending.missed.some((matches) => matches(subscriber)) ||
    !limit(subscriber.connection, admission.expiresAt) ||
    hub.all.size >= maxConnections ||
    !hub.hasRoomFor(subscriber.channels) ||
    (subscriber.key !== undefined && hub.connectionsOf(subscriber.key) >= maxConnectionsPerKey)

  /** Ends a connection when the credential expires. Returns false if it has. */
  const limit = (connection: Connection, expiresAt: DateTime.DateTime | undefined) =>
    expiresAt === undefined || connection.expireAt(DateTime.toEpochMillis(expiresAt))

  const toStreamOptions = (options: EventStream.Options): EventStream.Options => ({
    ...options,
    retry: options.retry ?? "3 seconds",
    strategy: options.strategy ?? "disconnect"
  })

  const makeConnection = (options: EventStream.Options) =>
    Effect.flatMap(Settings.make(toStreamOptions(options)), (settings) => openConnection(settings, clock))

  /** A stream that only says when to come back. It has no place in the hub, and keeps its time itself. */
  const shed = (options: EventStream.Options) =>
    Effect.tap(EventStream.make(toStreamOptions(options)), (stream) => {
      Metrics.add(Metrics.shed, 1)
      stream[EventStream.TypeId].shutdown()
    })

  /** The subscription, unless there is no place for it. Nothing remains of one that fails. */
  const open = <E1, R1>(admission: Admission, pending: Pending, options: SubscribeOptions<E1, R1>) =>
    Effect.gen(function*() {
      const context = yield* Effect.context<R1>()
      const scope = yield* Effect.scope
      const connection = yield* makeConnection(options)
      const subscriber = new Subscriber(
        connection,
        admission.channels,
        options.key,
        options.cursor !== "off",
        yield* Scope.make()
      )
      const goOn = (reading: Effect.Effect<void, unknown, R1>) =>
        reading.pipe(
          Effect.catchAllCause((cause) =>
            Effect.zipRight(Effect.logError("A subscription could not go on", cause), sendAway(subscriber))
          ),
          Effect.interruptible,
          Effect.forkIn(scope),
          Effect.tap((fiber) =>
            Effect.sync(() => fiber.addObserver(connection.onStop(() => fiber.unsafeInterruptAsFork(FiberId.none))))
          ),
          Effect.provide(context)
        )
      connection.heartbeat = () => hub.heartbeatOf(subscriber)
      connection.onStop(() => onStop(subscriber))
      connection.onEnd(() => {
        hub.forget(connection)
        remove(subscriber)
      })
      // Made when it is needed, which for most it never is.
      subscriber.goAstray = Effect.suspend(() =>
        goOn(
          Effect.flatMap(pace(authorize(admission.channels, options)), (answer) =>
            Either.isRight(answer) && subscriber.channels.every((channel) =>
                answer.right.channels.has(channel)
              ) &&
              limit(connection, answer.right.expiresAt)
              ? Replay.catchUp(log, replays, subscriber, options.snapshot)
              : sendAway(subscriber))
        )
      )
      return yield* Effect.uninterruptibleMask((restore) =>
        Scope.addFinalizer(scope, leave(subscriber)).pipe(
          Effect.zipRight(restore(start(subscriber, admission, pending, options, goOn))),
          Effect.onError(() => leave(subscriber))
        )
      ).pipe(Effect.withSpan("EventBroker.subscribe", {
        attributes: { channels: subscriber.channels },
        captureStackTrace: false
      }))
    })

  const start = <E1, R1>(
    subscriber: Subscriber,
    admission: Admission,
    pending: Pending,
    options: SubscribeOptions<E1, R1>,
    goOn: (reading: Effect.Effect<void, unknown, R1>) => Effect.Effect<unknown>
  ) =>
    Effect.gen(function*() {
      const { channels, connection } = subscriber
      if (!(yield* enter(subscriber, admission, pending))) return Option.none()
      yield* Effect.forEach(channels, (channel) => follow(subscriber, channel), { discard: true })

      const stream = Option.some(fromConnection(connection))
      const catchUp = Effect.suspend(() => Replay.catchUp(log, replays, subscriber, options.snapshot))
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
      if (subscriber.hasCursor) connection.offer(Replay.cursorFrame(head))
      if (subscriber.isBehind) yield* goOn(catchUp)
      else subscriber.isLive = true
      return stream
    })

  const shutdown = Effect.sync(() => {
    isDraining = true
    for (const { connection } of Array.from(hub.all)) connection.shutdown()
  })

  const drain = shutdown.pipe(
    Effect.zipRight(Effect.timeoutOption(Effect.interruptible(nobody.await), grace)),
    Effect.zipRight(Effect.sync(() => {
      for (const connection of hub.connections()) connection.disconnect()
    }))
  )

  const disconnect = (matches: Matches) => {
    for (const pending of pendings) {
      if (pending.missed.push(matches) > maxMissed) pending.isRefused = true
    }
    const matching = Array.from(hub.all).filter(matches)
    for (const { connection } of matching) connection.shutdown()
    return matching.length
  }

  const disconnectKeys = (matches: (key: string) => boolean) => {
    for (const pending of pendings) {
      if (pending.key !== undefined && matches(pending.key)) pending.isRefused = true
    }
    for (const { connection, key } of Array.from(hub.all)) {
      if (key !== undefined && matches(key)) connection.shutdown()
    }
  }

  const revoke = (entries: ReadonlyArray<EventLog.Entry>) => {
    if (entries.length === 0) return
    const keys = new Set(entries.map(({ data }) => new TextDecoder().decode(data)))
    disconnectKeys((key) => keys.has(key))
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
            if (Option.isSome(page.missing)) disconnectKeys(() => true)
          })
      }
    )
  })

  const dispatch = (items: Arr.NonEmptyReadonlyArray<EventLog.Item>) =>
    Effect.suspend(() => {
      const astray = hub.dispatch(items)
      if (items.some(({ _tag }) => _tag === "Lost")) {
        lostFrom ??= revokedUntil
        lost.unsafeOpen()
      }
      const last = Arr.lastNonEmpty(items)
      revokedUntil = last._tag === "Lost" ? last.position : last
      return Effect.forEach(astray, (subscriber) => subscriber.goAstray, { discard: true })
    })

  /** Delivers what the tail has, in parts between which the event loop turns: there may be much, and many connections. */
  const deliver = Effect.flatMap(tail.take, (items) => {
    revoke(items.filter((item) => item._tag === "Entry").filter(({ channel }) => channel === revocations))
    const itemsPerTurn = Math.ceil(offersPerTurn / (hub.all.size + 100))
    return items.length <= itemsPerTurn
      ? dispatch(items)
      : Effect.forEach(
        Arr.chunksOf(items, itemsPerTurn),
        (part) => Effect.zipRight(dispatch(part), Replay.nextTurn),
        { discard: true }
      )
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
  // Events published just before are on their way from the log. In real time: the clock of a test stands still.
  yield* Effect.addFinalizer(() =>
    Effect.zipRight(
      hub.isEmpty ? shutdown : Effect.withClock(Effect.delay(drain, "10 millis"), Clock.make()),
      within(FiberSet.awaitEmpty(departures))
    )
  )

  const publishFault = (channel: string) =>
    channel.startsWith("$") ? Effect.fail(invalidChannel(`a channel ${hiddenFault}`)) : Effect.void

  const service: EventBroker.EventBroker.Service = {
    publish: (channel, event) =>
      Effect.flatMap(
        Effect.zipRight(publishFault(channel), Replay.encode(event)),
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
        Effect.suspend(() => check(channels)),
        (requested) =>
          pend(options.key, (pending) =>
            Effect.flatMap(
              Effect.flatten(authorize(requested, options)),
              (admission) =>
                Effect.flatMap(
                  open(admission, pending, options),
                  Option.match({ onNone: () => shed(options), onSome: Effect.succeed })
                )
            ))
      ),
    respond: (channels, options = {}) =>
      Effect.gen(function*() {
        const { headers, method } = yield* HttpServerRequest
        const lastEventId = options.lastEventId ?? Option.getOrUndefined(yield* EventStream.lastEventId)
        const requested = check(channels)
        if (Either.isLeft(requested)) return refuse(requested.left)
        return yield* pend(options.key, (pending) =>
          Effect.gen(function*() {
            const answer = yield* authorize(requested.right, options)
            if (Either.isLeft(answer)) return refuse(answer.left)
            const admission = answer.right
            if (admission.channels.size === 0) return HttpServerResponse.empty({ status: 403 })
            if (method === "HEAD") return toHead(options)
            const sendAway = acceptsEvents(headers.accept)
              ? Effect.map(shed(options), EventStream.toResponse(options))
              : Effect.map(Settings.make(options), ({ farewell }) =>
                HttpServerResponse.empty({
                  status: 503,
                  headers: { "retry-after": String(Math.ceil(farewell / 1000)) }
                }))
            return yield* open(admission, pending, { ...options, lastEventId }).pipe(
              Effect.flatMap(Option.match({
                onNone: () => sendAway,
                onSome: (stream) => handOver(stream[EventStream.TypeId], EventStream.toResponse(stream, options))
              })),
              // Told 500, a browser would never come back.
              Effect.catchAll((error) => error.retryable ? sendAway : Effect.succeed(refuse(error)))
            )
          }))
      }),
    subscribers: (channel) => Effect.map(presence.others(channel), (others) => hub.countOf(channel) + others),
    channels: Effect.sync(() => hub.channels),
    disconnect: (predicate) =>
      Effect.suspend(() => {
        const failures: Array<unknown> = []
        const count = disconnect((subscriber) => {
          try {
            return predicate(toSubscription(subscriber))
          } catch (error) {
            failures.push(error)
            return false
          }
        })
        return Effect.as(
          failures.length === 0 ? Effect.void : Effect.logError(
            `EventBroker ran a predicate of disconnect, which threw for ${failures.length} connections: they stay`,
            Cause.die(failures[0])
          ),
          count
        )
      }),
    revoke: (key) => Effect.asVoid(log.append(revocations, new TextEncoder().encode(key))),
    drain
  }
  return service
})

const toSubscription = ({ granted, key }: Subscriber): EventBroker.Subscription => ({
  channels: Array.from(granted.values()),
  key: Option.fromNullable(key)
})

const invalidChannel = (detail: string) => new EventLog.EventLogError({ reason: "InvalidChannel", detail })

// Channels of the brokers themselves are neither published to nor read by others.
const hiddenFault = "must not begin with \"$\""

/** The rule that a channel breaks: a string is one channel, and only a Pattern is a pattern. */
const faultOf = (channel: Channel): string | undefined =>
  typeof channel === "string"
    ? channelFault(channel) ?? (isHidden(channel) ? hiddenFault : undefined)
    : Topic.isPattern(channel)
    ? patternFault(channel.path) ?? (isHidden(channel.path) ? hiddenFault : undefined)
    : "must be a string, or a pattern of Topic.pattern"

/** An answer after which a client does not come back: asked again, it would be the same. */
const refuse = ({ detail }: EventLog.EventLogError) => HttpServerResponse.text(detail, { status: 400 })

/** The head alone: no stream is opened for it. */
const toHead = (options: EventStream.ResponseOptions) =>
  HttpServerResponse.empty({ status: options.status ?? 200 }).pipe(
    HttpServerResponse.setHeaders({
      "content-type": "text/event-stream",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no"
    }),
    HttpServerResponse.setHeaders(options.headers ?? {})
  )

const sendAway = ({ connection }: Subscriber) => Effect.sync(() => connection.shutdown())

/** Waits, but no longer than a finalizer may, in real time: the clock of a test stands still. */
const within = <A>(effect: Effect.Effect<A>): Effect.Effect<void> =>
  effect.pipe(
    Effect.timeoutOption(grace),
    Effect.withClock(Clock.make()),
    Effect.interruptible,
    Effect.fork,
    Effect.flatMap(Fiber.await),
    Effect.asVoid
  )

// The keys whose connections are to end, on every node.
const revocations = "$effect-realtime/revoked"
const maxMissed = 1000
/** The offers to connections in one turn of the event loop. An item that reaches none counts as a hundred. */
const offersPerTurn = 100_000
const maxReauthorizations = 16
const patience = "1 second"
const grace = "1 second"
const minTick = 100
const maxTick = 1000
