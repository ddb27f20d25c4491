import * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"

import { EventLogError } from "../../EventLog.js"
import type { Connection } from "../../EventStream/internal/connection.js"
import { awaitTurn } from "../../EventStream/internal/nodeSink.js"
import { channelFault, isHidden, patternFault } from "../../internal/channel.js"
import * as Topic from "../../Topic.js"
import type { Channel, Hub, Subscriber } from "./hub.js"

/** The limits of a broker as its options state them. */
interface Limits {
  readonly maxChannels?: number | undefined
  readonly maxConnections?: number | undefined
  readonly maxConnectionsPerOwner?: number | undefined
}

/** The function of the options that decides which of the channels a client may read. */
type Authorize<E, R> =
  | ((
    channels: ReadonlyArray<Channel>
  ) => Effect.Effect<
    { readonly channels: Iterable<Channel>; readonly expiresAt?: DateTime.DateTime | undefined },
    E,
    R
  >)
  | undefined

type Matches = (subscriber: Subscriber) => boolean

/** Channels and patterns by their names in the log. */
export type Channels = ReadonlyMap<string, Channel>

/** The channels that a client may read, and until when. */
export interface Granted {
  readonly channels: Channels
  readonly expiresAt: DateTime.DateTime | undefined
}

/**
 * A client that is being authorised. A disconnect meanwhile may concern it, and it is matched once its channels are
 * known.
 */
export interface Pending {
  readonly owner: string | undefined
  readonly disconnects: Array<Matches>
  isRefused: boolean
}

/**
 * The admission of clients. A client becomes a subscriber if
 *
 * 1. its channels follow the rules (`check`),
 * 2. the application grants them (`authorize`),
 * 3. no disconnect or revocation has matched it meanwhile (`pend`), and
 * 4. the limits leave room for it (`admits`).
 */
export interface Admission {
  /** True once all subscribers are refused. */
  readonly isClosed: boolean
  /** False once clients are refused. Consumers in this process may still be admitted. */
  readonly admitsClients: boolean
  readonly authorize: <E, R>(
    requested: Channels,
    authorize: Authorize<E, R>
  ) => Effect.Effect<Either.Either<Granted, EventLogError>, E, R>
  /** Authorises a subscriber again. Returns false if it may no longer read its channels. */
  readonly reauthorize: <E, R>(
    subscriber: Subscriber,
    authorize: Authorize<E, R>
  ) => Effect.Effect<boolean, E, R>
  /** Remembers each disconnect for a client until `use` has ended. */
  readonly pend: <A, E, R>(
    owner: string | undefined,
    use: (pending: Pending) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E, R>
  readonly admits: (subscriber: Subscriber, granted: Granted, pending: Pending) => boolean
  /** Shuts down the subscribers that match, and returns their number. Pending clients that match are refused. */
  readonly disconnect: (matches: Matches) => number
  /** Shuts down the subscribers whose owners match. Pending clients whose owners match are refused. */
  readonly disconnectOwners: (matches: (owner: string) => boolean) => void
  /** Refuses clients from now on. */
  readonly refuseClients: Effect.Effect<void>
  /** Refuses all subscribers from now on, and shuts down those that there are. */
  readonly close: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*(hub: Hub, limits: Limits) {
  const maxChannels = limits.maxChannels ?? 128
  const maxConnections = limits.maxConnections ?? Number.POSITIVE_INFINITY
  const maxConnectionsPerOwner = limits.maxConnectionsPerOwner ?? Number.POSITIVE_INFINITY
  for (const [name, limit] of Object.entries({ maxChannels, maxConnections, maxConnectionsPerOwner })) {
    if (limit === Number.POSITIVE_INFINITY || (Number.isSafeInteger(limit) && limit >= 1)) continue
    yield* Effect.die(
      new Cause.IllegalArgumentException(`EventBroker: ${name} must be a whole number, one or more, or Infinity`)
    )
  }
  const pendings = new Set<Pending>()
  const reauthorizations = Effect.unsafeMakeSemaphore(maxReauthorizations)
  let isClosed = false
  let admitsClients = true

  const authorize: Admission["authorize"] = (requested, authorize) =>
    Effect.flatMap(awaitTurn, () =>
      authorize === undefined
        ? Effect.succeed(limit({ channels: requested, expiresAt: undefined }))
        : Effect.map(
          authorize(Array.from(requested.values())),
          ({ channels, expiresAt }) => Either.flatMap(check(channels), (channels) => limit({ channels, expiresAt }))
        ))

  const limit = (granted: Granted): Either.Either<Granted, EventLogError> =>
    granted.channels.size <= maxChannels
      ? Either.right(granted)
      : Either.left(invalidChannel(`a connection must not have more than ${maxChannels} channels`))

  /**
   * Bounds the number of connections that are authorised again at the same time: a tail that has lost entries sends all
   * of them to the log. An authorisation that takes longer than a second does not count any more.
   */
  const pace = <A, E, R>(authorization: Effect.Effect<A, E, R>) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        const release = yield* Effect.once(reauthorizations.release(1))
        yield* restore(reauthorizations.take(1))
        const timer = yield* Effect.fork(Effect.interruptible(Effect.delay(release, patience)))
        return yield* Effect.ensuring(restore(authorization), Effect.zipRight(release, Fiber.interrupt(timer)))
      })
    )

  const admission: Admission = {
    get isClosed() {
      return isClosed
    },
    get admitsClients() {
      return admitsClients
    },
    authorize,
    reauthorize: ({ channels, connection, granted }, fn) =>
      Effect.map(
        pace(authorize(granted, fn)),
        (answer) =>
          Either.isRight(answer) && channels.every((channel) => answer.right.channels.has(channel)) &&
          expireAt(connection, answer.right.expiresAt)
      ),
    pend: (owner, use) =>
      Effect.suspend(() => {
        const pending: Pending = { owner, disconnects: [], isRefused: false }
        // Added inside: an interruption before `ensuring` would leave it.
        return Effect.ensuring(
          Effect.suspend(() => {
            pendings.add(pending)
            return use(pending)
          }),
          Effect.sync(() => pendings.delete(pending))
        )
      }),
    admits: (subscriber, granted, pending) => {
      const { channels, connection, owner } = subscriber
      return !isClosed &&
        connection.isOpen &&
        !pending.isRefused &&
        !pending.disconnects.some((matches) => matches(subscriber)) &&
        expireAt(connection, granted.expiresAt) &&
        (subscriber.isLocal || (admitsClients && hub.clients < maxConnections)) &&
        hub.hasRoomFor(channels) &&
        (owner === undefined || hub.countOfOwner(owner) < maxConnectionsPerOwner)
    },
    disconnect: (matches) => {
      for (const pending of pendings) {
        if (pending.disconnects.push(matches) > maxDisconnects) pending.isRefused = true
      }
      const matching = Array.from(hub.subscribers).filter(matches)
      for (const { connection } of matching) connection.shutdown()
      return matching.length
    },
    disconnectOwners: (matches) => {
      for (const pending of pendings) {
        if (pending.owner !== undefined && matches(pending.owner)) pending.isRefused = true
      }
      for (const { connection, owner } of Array.from(hub.subscribers)) {
        if (owner !== undefined && matches(owner)) connection.shutdown()
      }
    },
    refuseClients: Effect.sync(() => {
      admitsClients = false
    }),
    close: Effect.sync(() => {
      isClosed = true
      admitsClients = false
      for (const { connection } of Array.from(hub.subscribers)) connection.shutdown()
    })
  }
  return admission
})

/** Returns the channels by their names, or the error of the first that breaks a rule. */
export const check = (channels: Channel | Iterable<Channel>): Either.Either<Channels, EventLogError> => {
  const names = new Map<string, Channel>()
  for (const channel of toArray(channels)) {
    const fault = faultOf(channel)
    if (fault !== undefined) return Either.left(invalidChannel(`a channel ${fault}`))
    names.set(nameOf(channel), channel)
  }
  return Either.right(names)
}

/** Returns the channels that an option names. A string is one channel. */
export const toArray = (channels: Channel | Iterable<Channel>): ReadonlyArray<Channel> =>
  isChannel(channels) ? [channels] : Array.from(channels)

const isChannel = (u: unknown): u is Channel => typeof u === "string" || Topic.isChannel(u) || Topic.isPattern(u)

/** Returns the name of a channel or of a pattern in the log. */
export const nameOf = (channel: Channel): string =>
  typeof channel === "string" ? channel : Topic.isPattern(channel) ? channel.path : channel.name

/** Returns the rule that a channel breaks, or undefined. Only a `Pattern` is a pattern. */
const faultOf = (channel: Channel): string | undefined =>
  !isChannel(channel)
    ? "must be a string, a channel of Topic.channel, or a pattern of Topic.pattern"
    : (Topic.isPattern(channel) ? patternFault : channelFault)(nameOf(channel)) ??
      (isHidden(nameOf(channel)) ? hiddenFault : undefined)

/** Fails for a channel of the brokers themselves. The log checks the other rules. */
export const checkPublished = (channel: string): Effect.Effect<void, EventLogError> =>
  isHidden(channel) ? Effect.fail(invalidChannel(`a channel ${hiddenFault}`)) : Effect.void

// Channels of the brokers themselves are neither published to nor subscribed to by applications.
const hiddenFault = "must not begin with \"$\""

const invalidChannel = (detail: string) => new EventLogError({ reason: "InvalidChannel", detail })

/** Ends a connection when its credential expires. Returns false if the credential has expired. */
const expireAt = (connection: Connection, expiresAt: DateTime.DateTime | undefined): boolean =>
  expiresAt === undefined || connection.expireAt(DateTime.toEpochMillis(expiresAt))

/** The disconnects that are remembered for a pending client at most. With more, the client is refused. */
const maxDisconnects = 1000
const maxReauthorizations = 16
const patience = "1 second"
