/**
 * Notifications that survive the process: the database accepts them, as part of the caller's transaction if there is one, and any node
 * sends them, at least once.
 *
 * @since 0.1.0
 */
import type { MigrationError } from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Predicate from "effect/Predicate"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import * as Frame from "../EventStream/internal/frame.js"
import type { Notification, NotifyOptions } from "../Notifier.js"
import { Notifier } from "../Notifier.js"
import { deliver, isGone, reasonOf } from "../Notifier/internal/deliver.js"
import * as ServerSentEvent from "../ServerSentEvent.js"
import type { Device } from "../SubscriptionStore.js"
import { isOwner, SubscriptionStore } from "../SubscriptionStore.js"
import * as WebPush from "../WebPush.js"
import { WebPushFailure } from "../WebPushError.js"
import { maxBytes, toBytes } from "../WebPushPayload.js"
import * as Sql from "./internal/sql.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The number of notifications that are sent at once, one or more. Default 16. */
  readonly concurrency?: number | undefined
  /** The time after the death of a node after which another one takes its notifications over. Default 30 seconds. */
  readonly lease?: Duration.DurationInput | undefined
  /** The number of attempts at a device after which it is given up, one or more. Default 14, which is about three hours. */
  readonly maxAttempts?: number | undefined
  /** The time between two searches for notifications that other nodes have accepted, or that are due again. Default 1 second. */
  readonly pollInterval?: Duration.DurationInput | undefined
}

/**
 * Why a notification did not get to a device: its `endpointId`, and the reason of the `WebPushFailure` or one of two more. `isFinal` if
 * trying again is of no use.
 *
 * - `Expired`: the notification was not sent, or not again, because its `ttl` had passed since it was enqueued.
 * - `Removed`: the owner no longer has the device, and has no new one that may have taken its place.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Failure = Schema.Struct({
  device: Schema.String,
  reason: Schema.Literal(...WebPushFailure.fields.reason.literals, "Expired", "Removed"),
  isFinal: Schema.Boolean
})

/**
 * @since 0.1.0
 * @category models
 */
export type Failure = typeof Failure.Type

/**
 * A notification that was given up.
 *
 * @since 0.1.0
 * @category models
 */
export interface DeadLetter {
  readonly id: string
  readonly owner: string
  readonly attempts: number
  readonly createdAt: DateTime.Utc
  /** The devices that it did not get to. Empty if no device was tried. */
  readonly failures: ReadonlyArray<Failure>
}

/**
 * A request that the outbox has not carried out.
 *
 * - `InvalidNotification`: a notification or an option that could never be sent; `detail` names the part and the rule. It is not stored.
 * - `Unavailable`: the database failed; `detail` is the code of the failure.
 * - `InvalidRow`: the database has a row that is no notification.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotificationOutboxError
  extends Schema.TaggedError<NotificationOutboxError>("effect-realtime/NotificationOutboxError")(
    "NotificationOutboxError",
    { reason: Schema.Literal("InvalidNotification", "Unavailable", "InvalidRow"), detail: Schema.String }
  )
{
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `${this.reason}: ${this.detail}`
  }
}

/**
 * @since 0.1.0
 * @category tags
 */
export class NotificationOutbox extends Context.Tag("effect-realtime/NotificationOutbox")<
  NotificationOutbox,
  NotificationOutbox.Service
>() {}

/**
 * @since 0.1.0
 */
export declare namespace NotificationOutbox {
  /**
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    /**
     * Accepts a notification and returns its id. Inside a transaction of the `SqlClient` it is accepted if that commits, and a failure of
     * the database is not tried again.
     *
     * A `ttl`, or else that of the `WebPush` layer, counts from here: the push service gets the rest of it, and once nothing is left the notification becomes a dead letter. A
     * `ttl` of zero is sent within 10 seconds or not at all. From the second attempt on the id is the push `topic` if none was asked for,
     * so that a repetition replaces an earlier one that is not delivered yet.
     */
    readonly enqueue: (
      owner: string,
      notification: Notification,
      options?: NotifyOptions
    ) => Effect.Effect<string, ServerSentEvent.InvalidServerSentEvent | NotificationOutboxError>
    /** Sends the notifications that are due until none is, and returns the number of attempts. */
    readonly drain: Effect.Effect<number, NotificationOutboxError>
    /** The notifications that were given up, the one that was given up first at the start. */
    readonly deadLetters: Stream.Stream<DeadLetter, NotificationOutboxError>
    /**
     * Makes a dead letter due again, for the devices that it did not get to or those in their place, and returns whether there is one with
     * this id. Its `ttl` still counts from `enqueue`.
     */
    readonly retry: (id: string) => Effect.Effect<boolean, NotificationOutboxError>
    /** Deletes a dead letter, and returns whether there is one with this id. */
    readonly discard: (id: string) => Effect.Effect<boolean, NotificationOutboxError>
  }
}

const column = <A, I>(schema: Schema.Schema<A, I>, name: string) =>
  Schema.propertySignature(schema).pipe(Schema.fromKey(name))

const Message = Schema.parseJson(Schema.Struct({
  event: Schema.Struct({
    event: Schema.optional(Schema.String),
    data: Schema.optional(Schema.String),
    retry: Schema.optional(Schema.Number),
    comment: Schema.optional(Schema.String)
  }),
  push: Schema.Uint8ArrayFromBase64,
  options: Schema.Struct({
    policy: Schema.optional(Schema.Literal("closed", "always", "unconnected", "unacknowledged")),
    delay: Schema.optional(Schema.Duration),
    ttl: Schema.optional(Schema.Duration),
    urgency: Schema.optional(Schema.Literal("very-low", "low", "normal", "high")),
    topic: Schema.optional(Schema.String),
    timeout: Schema.optional(Schema.Duration),
    padding: Schema.optional(Schema.NonNegativeInt)
  })
}))

// A device that has the notification not yet. Those without `attempts` and `dueAt` were written before each device had its own.
const Pending = Schema.Struct({
  ...Failure.fields,
  attempts: Schema.optional(Schema.Number),
  dueAt: Schema.optional(Schema.Number)
})

type Pending = typeof Pending.Type

const Row = Schema.Struct({
  id: Schema.String,
  owner: Schema.String,
  message: Message,
  // None as long as it was not tried: from then on the event is out, and only devices are left.
  failures: Schema.NullOr(Schema.parseJson(Schema.Array(Pending))),
  // The devices that need nothing any more. None if that was not recorded.
  reached: Schema.NullOr(Schema.parseJson(Schema.Array(Schema.String))),
  attempts: Schema.Number,
  // When it may be claimed: at once, when it is to be tried again, or when the node that claimed it must be dead.
  dueAt: column(Schema.Number, "due_at"),
  claim: Schema.NullOr(Schema.String),
  createdAt: column(Schema.DateTimeUtcFromNumber, "created_at"),
  diedAt: column(Schema.NullOr(Schema.Number), "died_at")
})

type Row = typeof Row.Type

/**
 * What the layer runs before it uses the database, for those who keep their migrations in one place. They do
 * nothing when run again.
 *
 * @since 0.1.0
 * @category migrations
 */
export const migrations: Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>> = {
  "0001_create_outbox": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE IF NOT EXISTS notification_outbox (
      id TEXT PRIMARY KEY,
      owner TEXT NOT NULL,
      message TEXT NOT NULL,
      failures TEXT,
      attempts DOUBLE PRECISION NOT NULL,
      due_at DOUBLE PRECISION NOT NULL,
      claim TEXT,
      created_at DOUBLE PRECISION NOT NULL,
      died_at DOUBLE PRECISION
    )`
    yield* sql`CREATE INDEX IF NOT EXISTS notification_outbox_by_due ON notification_outbox (due_at) WHERE died_at IS NULL`
  }),
  "0002_add_reached": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const add = sql`ALTER TABLE notification_outbox ADD COLUMN ${
      sql.onDialectOrElse({
        pg: () => sql.literal("IF NOT EXISTS "),
        orElse: () => sql.literal("")
      })
    }reached TEXT`
    yield* sql.onDialectOrElse({
      pg: () => add,
      // Another node may have added it in the meantime.
      orElse: () =>
        Effect.unlessEffect(
          Effect.catchAll(add, (error) => Effect.unlessEffect(error, hasReached(sql))),
          hasReached(sql)
        )
    })
  })
}

const findReached = (sql: SqlClient.SqlClient) =>
  sql`SELECT name FROM pragma_table_info('notification_outbox') WHERE name = 'reached'`

const hasReached = (sql: SqlClient.SqlClient) => Effect.map(findReached(sql), Arr.isNonEmptyReadonlyArray)

const decodeRow = Schema.decodeUnknownEither(Row)

const encodeMessage = Schema.encodeEither(Message)

const DeadRow = Schema.Struct({
  ...Row.pick("id", "owner", "attempts", "createdAt", "diedAt").fields,
  failures: Schema.NullOr(Schema.parseJson(Schema.Array(Failure)))
})

const decodeDeadRows = Schema.decodeUnknown(Schema.Array(DeadRow))

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })

const textOf = (data: unknown): string | undefined =>
  data === undefined || typeof data === "string"
    ? data
    : data instanceof Uint8Array
    ? utf8.decode(data)
    : JSON.stringify(data)

const invalid = (detail: string) => new NotificationOutboxError({ reason: "InvalidNotification", detail })

// `Duration.decode` makes zero of what is negative or no number.
const duration = (name: string, input: Duration.DurationInput | undefined) =>
  input === undefined
    ? Either.right(undefined)
    : /^-|NaN/.test(String(input))
    ? Either.left(invalid(`${name} must be a duration`))
    : Either.fromOption(Duration.decodeUnknown(input), () => invalid(`${name} must be a duration`))

/** The message as it is stored, or the part of it that could never be sent. */
const toMessage = (
  { event, push }: Notification,
  { delay, timeout, ttl, ...options }: NotifyOptions
): Either.Either<string, ServerSentEvent.InvalidServerSentEvent | NotificationOutboxError> =>
  Either.gen(function*() {
    yield* Frame.fromEvent(event)
    if (event.id !== undefined) {
      return yield* Either.left(new ServerSentEvent.InvalidServerSentEvent({ field: "id", reason: "Assigned" }))
    }
    const bytes = toBytes(push)
    if (Predicate.isUint8Array(bytes) && bytes.length > maxBytes) {
      return yield* Either.left(invalid(`push must be at most ${maxBytes} bytes long`))
    }
    const wait = yield* duration("delay", delay)
    if (wait !== undefined && !Duration.isFinite(wait)) return yield* Either.left(invalid("delay must be finite"))
    const limit = yield* duration("timeout", timeout)
    if (limit !== undefined && Duration.toMillis(limit) === 0) {
      return yield* Either.left(invalid("timeout must be longer than zero"))
    }
    const life = yield* duration("ttl", ttl)
    if (wait !== undefined && life !== undefined && Duration.toMillis(wait) >= lifeOf(life)) {
      return yield* Either.left(invalid("delay must be shorter than ttl"))
    }
    const message = {
      event: { ...event, data: textOf(event.data) },
      push: bytes,
      options: {
        ...options,
        delay: wait,
        timeout: limit,
        ttl: life
      }
    }
    return yield* Either.mapLeft(encodeMessage(message), (error) => {
      const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
      return invalid(`${issue?.path.at(-1)?.toString() ?? "the notification"} is not one that can be sent`)
    })
  })

const longestBackoff = 3_600_000

const longestRetryAfter = 86_400_000

// A push service keeps none of what has a ttl of zero, but the outbox needs a moment.
const shortestTtl = 10_000

const lifeOf = (ttl: Duration.Duration): number => Duration.toMillis(ttl) || shortestTtl

const expiryOf = ({ createdAt, message: { options } }: Row): number =>
  options.ttl === undefined
    ? Number.POSITIVE_INFINITY
    : createdAt.epochMillis + (lifeOf(options.ttl))

/** One run of `drain`: the mark on the rows that it claims, the ids of those that it has not settled, and until when they were renewed. */
interface Run {
  readonly claim: string
  readonly inHand: Set<string>
  leasedUntil: number
}

/** What one attempt came to. */
interface Attempt {
  readonly failures: ReadonlyArray<Pending>
  readonly reached: Row["reached"]
  readonly isExpired: boolean
}

const wholeNumber = (name: string, value: number): Effect.Effect<void> =>
  Number.isSafeInteger(value) && value >= 1 ? Effect.void : refuseOption(`${name} must be a whole number, one or more`)

const positive = (name: string, value: Duration.DurationInput): Effect.Effect<number> => {
  const millis = Either.match(duration(name, value), {
    onLeft: () => 0,
    onRight: (duration) => duration === undefined ? 0 : Duration.toMillis(duration)
  })
  return millis > 0 && Number.isFinite(millis)
    ? Effect.succeed(millis)
    : refuseOption(`${name} must be a duration, longer than zero and finite`)
}

const refuseOption = (rule: string): Effect.Effect<never> =>
  Effect.die(new Cause.IllegalArgumentException(`SqlNotificationOutbox: ${rule}`))

/**
 * Makes an outbox in the database of the `SqlClient`, that sends only while `drain` runs. Creates its table if it is not there.
 * When `drain` is interrupted, what it has not sent yet is left to others at once, and a database that does not answer is not waited for
 * longer than a second.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { SqlNotificationOutbox } from "effect-realtime/sql"
 *
 * // Drained by a job, not all the time.
 * const job = Effect.flatMap(SqlNotificationOutbox.make(), (outbox) => outbox.drain)
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: Options = {}
): Effect.Effect<
  NotificationOutbox.Service,
  SqlError | MigrationError,
  SqlClient.SqlClient | Notifier | SubscriptionStore | WebPush.WebPush
> => Effect.map(makeWithWakeUp(options), ({ outbox }) => outbox)

const makeWithWakeUp = (
  { concurrency = 16, lease = "30 seconds", maxAttempts = 14, pollInterval = "1 second" }: Options
) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const notifier = yield* Notifier
    const store = yield* SubscriptionStore
    const webPush = yield* WebPush.WebPush
    yield* wholeNumber("concurrency", concurrency)
    yield* wholeNumber("maxAttempts", maxAttempts)
    yield* positive("pollInterval", pollInterval)
    const leaseMillis = yield* positive("lease", lease)
    // No node makes a row due later than this: the clock of the one that did was wrong, or no bound was known to it.
    const farthest = 2 * Math.max(leaseMillis, longestRetryAfter)
    yield* Sql.migrate({
      component: "SqlNotificationOutbox",
      table: "notification_outbox_migrations",
      migrations,
      last: findReached
    })

    const somethingIsDue = yield* Effect.makeLatch(false)
    const query = (access: "read" | "write") => (statement: Sql.Statement) =>
      Effect.mapError(
        Sql.run(sql, access, statement.withoutTransform),
        (error) => new NotificationOutboxError({ reason: "Unavailable", detail: Sql.failureCode(error) })
      )
    const read = query("read")
    const write = query("write")

    // A message of a schema quotes the row.
    const toDeadRows = (rows: ReadonlyArray<unknown>) =>
      Effect.mapError(
        decodeDeadRows(rows),
        () =>
          new NotificationOutboxError({
            reason: "InvalidRow",
            detail: "a row of notification_outbox is no notification"
          })
      )

    const claimSome = ({ claim, inHand }: Run) =>
      Effect.gen(function*() {
        yield* somethingIsDue.close
        const now = yield* Clock.currentTimeMillis
        const due = sql`
          SELECT id FROM notification_outbox
          WHERE died_at IS NULL AND (due_at <= ${now} OR due_at > ${now + farthest})
          ORDER BY due_at LIMIT ${concurrency}
        `
        const isDue = sql.onDialectOrElse({
          pg: () => sql`id = ANY(ARRAY(${due} FOR UPDATE SKIP LOCKED))`,
          // There is one writer at a time.
          orElse: () => sql`id IN (${due})`
        })
        const rows = yield* write(sql`
          UPDATE notification_outbox SET claim = ${claim}, due_at = ${now + leaseMillis}, attempts = attempts + 1
          WHERE ${isDue} RETURNING *
        `)
        const [unreadable, claimed] = Arr.partitionMap(rows, (row) => Either.mapLeft(decodeRow(row), () => row))
        if (unreadable.length > 0) {
          yield* Effect.logError(
            `NotificationOutbox cannot read ${unreadable.length} rows of notification_outbox: they become dead letters`
          )
          const ids = Arr.map(unreadable, (row) => Predicate.hasProperty(row, "id") ? row.id : null)
          yield* write(
            sql`UPDATE notification_outbox SET claim = NULL, failures = NULL, died_at = ${now} WHERE ${
              sql.in("id", ids)
            }`
          )
        }
        for (const { id } of claimed) inHand.add(id)
        // One that takes its time does not keep from the others what comes meanwhile.
        if (rows.length === 0 && inHand.size > 0) yield* Effect.timeoutOption(somethingIsDue.await, pollInterval)
        const isOver = rows.length === 0 && inHand.size === 0
        return [Chunk.unsafeFromArray(claimed), Option.liftPredicate(undefined, () => !isOver)] as const
      }).pipe(Effect.withSpan("NotificationOutbox.claim", { captureStackTrace: false }))

    const renew = (run: Run) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        run.inHand.size === 0 ? Effect.void : Effect.map(
          write(sql`
            UPDATE notification_outbox SET due_at = ${now + leaseMillis}
            WHERE claim = ${run.claim} AND ${sql.in("id", [...run.inHand])}
          `),
          () => {
            run.leasedUntil = now + leaseMillis
          }
        ))

    // A node that stops in good order, as for each deployment, has not been ended by what it had: that attempt does not count.
    const release = ({ claim }: Run) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        write(sql`
          UPDATE notification_outbox SET claim = NULL, due_at = ${now}, attempts = attempts - 1 WHERE claim = ${claim}
        `))

    const sendOptions = (row: Row, now: number): NotifyOptions => {
      const { delay = Duration.zero, policy, topic, ...options } = row.message.options
      const left = expiryOf(row) - now
      const wait = policy === "always" ? 0 : Duration.toMillis(delay)
      return {
        ...options,
        policy,
        ...(row.message.options.delay === undefined ? undefined : { delay }),
        ...(options.ttl === undefined ? undefined : {
          ttl: Math.max(0, Math.min(Duration.toMillis(options.ttl), left - (row.failures === null ? wait : 0)))
        }),
        ...(topic === undefined && row.failures === null && row.attempts === 1 ? undefined : { topic: topic ?? row.id })
      }
    }

    const isPending = ({ attempts = 0, isFinal }: Pending): boolean => !isFinal && attempts < maxAttempts

    const jitter = Effect.map(Random.next, (random) => 0.5 + random)

    const backoff = (attempts: number, jitter: number) => Math.min(longestBackoff, 1000 * 2 ** attempts) * jitter

    const toPending = (row: Row, { result, subscription }: WebPush.Outcome, now: number, jitter: number) => {
      if (Either.isRight(result) || result.left._tag === "WebPushGone") return Option.none()
      const before = row.failures?.find(({ device }) => device === subscription.endpointId)
      const attempts = row.failures === null ? row.attempts : (before?.attempts ?? 0) + 1
      const { reason, retryAfter = Duration.zero } = result.left
      const wait = Math.max(Math.min(longestRetryAfter, Duration.toMillis(retryAfter)), backoff(attempts, jitter))
      return Option.some<Pending>({
        device: subscription.endpointId,
        reason,
        isFinal: result.left.isFinal,
        attempts,
        dueAt: now + wait
      })
    }

    /** The devices of the owner that the notification has not been at: new since then, or in the place of another. */
    const newDevices = (devices: ReadonlyArray<Device>, { createdAt, failures, reached }: Row) => {
      const known = new Set([...reached ?? [], ...(failures ?? []).map(({ device }) => device)])
      return Arr.filter(
        devices,
        (device) =>
          !known.has(device.endpointId) &&
          (reached !== null || device.createdAt.epochMillis > createdAt.epochMillis)
      )
    }

    const attempt = (claimed: Row): Effect.Effect<Attempt, unknown> =>
      Effect.gen(function*() {
        const failures = claimed.failures?.map((failure) => ({ attempts: claimed.attempts - 1, ...failure })) ?? null
        const row = { ...claimed, failures }
        const { message: { event, push }, owner } = row
        const now = yield* Clock.currentTimeMillis
        const devices = yield* store.forOwner(owner)
        if (now >= expiryOf(row)) {
          yield* Effect.logWarning(
            "NotificationOutbox did not send a notification whose ttl has passed: it becomes a dead letter"
          )
          const expired = { reason: "Expired", isFinal: true } as const
          return {
            failures: failures === null
              ? Arr.map(devices, ({ endpointId }): Pending => ({ device: endpointId, ...expired }))
              : Arr.map(failures, (failure): Pending => isPending(failure) ? { ...failure, ...expired } : failure),
            reached: row.reached,
            isExpired: true
          }
        }
        const options = sendOptions(row, now)
        if (failures === null) {
          // If the store is away, that is found out before the event is published: it would be published again each time.
          const report = yield* notifier.notify(owner, { event, push }, options)
          // No event was published and no push was sent yet.
          if (Either.isLeft(report.event) && report.outcomes.length === 0) return yield* Effect.fail(report.event.left)
          return yield* toAttempt(
            row,
            options,
            report.outcomes,
            [],
            Arr.map(report.connected, ({ endpointId }) => endpointId)
          )
        }
        const [rest, pending] = Arr.partition(failures, isPending)
        const byId = new Map(Arr.map(devices, (device) => [device.endpointId, device]))
        const [removed, present] = Arr.partition(pending, ({ device }) => byId.has(device))
        const [waiting, due] = Arr.partition(present, ({ dueAt = 0 }) => dueAt <= now)
        const replacements = removed.length === 0 ? [] : newDevices(devices, row)
        const { outcomes } = yield* deliver(
          webPush,
          store,
          [...Arr.filterMap(due, ({ device }) => Option.fromNullable(byId.get(device))), ...replacements],
          push,
          options
        )
        const lost = Arr.map(
          Arr.drop(removed, replacements.length),
          (failure): Pending => ({ ...failure, reason: "Removed", isFinal: true })
        )
        return yield* toAttempt(row, options, outcomes, [...rest, ...waiting, ...lost], [])
      })

    /** Adds the outcomes, and those of devices that have taken the place of one that is gone since the devices were read. */
    const toAttempt = (
      row: Row,
      options: NotifyOptions,
      outcomes: ReadonlyArray<WebPush.Outcome>,
      failures: ReadonlyArray<Pending>,
      spared: ReadonlyArray<string>
    ): Effect.Effect<Attempt> =>
      Effect.gen(function*() {
        const ids = (outcomes: ReadonlyArray<WebPush.Outcome>) =>
          Arr.map(outcomes, ({ subscription }) => subscription.endpointId)
        const known = { ...row, reached: [...row.reached ?? [], ...spared, ...ids(outcomes)] }
        const replacements = outcomes.some(isGone)
          ? newDevices(yield* Effect.orElseSucceed(store.forOwner(row.owner), () => []), known)
          : []
        const more = replacements.length === 0
          ? { outcomes: [] }
          : yield* deliver(webPush, store, replacements, row.message.push, options)
        const now = yield* Clock.currentTimeMillis
        // Devices that fail together are tried again together.
        const spread = yield* jitter
        const pending = Arr.filterMap([...outcomes, ...more.outcomes], (outcome) =>
          toPending(row, outcome, now, spread))
        return {
          failures: [...failures, ...pending],
          reached: Arr.difference(
            Arr.dedupe([...known.reached, ...ids(more.outcomes)]),
            pending.map(({ device }) =>
              device
            )
          ),
          isExpired: false
        }
      })

    /** Stores what an attempt came to, or when to make it again if it came to nothing. */
    const settle = ({ claim }: Run, row: Row, outcome: Option.Option<Attempt>) =>
      Effect.gen(function*() {
        if (Option.isSome(outcome) && outcome.value.failures.length === 0 && !outcome.value.isExpired) {
          return yield* write(sql`DELETE FROM notification_outbox WHERE id = ${row.id} AND claim = ${claim}`)
        }
        const now = yield* Clock.currentTimeMillis
        const { failures, reached }: Pick<Row, "failures" | "reached"> = Option.getOrElse(outcome, () => row)
        const pending = Arr.filter(failures ?? [], isPending)
        const next = Option.isNone(outcome)
          ? {
            isDue: row.attempts < maxAttempts,
            attempts: row.attempts,
            dueAt: now + backoff(row.attempts, yield* jitter)
          }
          : {
            isDue: pending.length > 0,
            attempts: Math.max(...pending.map(({ attempts = 0 }) => attempts)),
            dueAt: Math.min(...pending.map(({ dueAt = now }) => dueAt))
          }
        const expiry = expiryOf(row)
        return yield* write(sql`
          UPDATE notification_outbox SET
            claim = NULL,
            failures = ${failures === null ? null : JSON.stringify(failures)},
            reached = ${reached === null ? null : JSON.stringify(reached)},
            attempts = ${next.isDue ? next.attempts : row.attempts},
            due_at = ${!next.isDue ? now : expiry > now ? Math.min(next.dueAt, expiry) : next.dueAt},
            died_at = ${next.isDue ? null : now}
          WHERE id = ${row.id} AND claim = ${claim}
        `)
      })

    const process = (run: Run, row: Row) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        // This node stood still, and another has it by now: what was not begun is not sent twice.
        now >= Math.max(row.dueAt, run.leasedUntil) ? Effect.void : send(run, row)).pipe(
          Effect.ensuring(Effect.zipRight(Effect.sync(() => run.inHand.delete(row.id)), somethingIsDue.open)),
          Effect.withSpan("NotificationOutbox.process", { captureStackTrace: false })
        )

    const send = (run: Run, row: Row) =>
      // One whose attempts never came to an end may be what ends its node.
      (row.attempts > maxAttempts ? Effect.succeedNone : Effect.asSome(attempt(row))).pipe(
        Effect.catchAllCause((cause) =>
          Effect.as(
            Effect.logWarning(
              `NotificationOutbox could not process a notification (${reasonOf(cause)}): it will be tried again`
            ),
            Option.none<Attempt>()
          )
        ),
        Effect.flatMap((outcome) => settle(run, row, outcome)),
        Effect.catchAllCause((cause) =>
          Effect.logError(
            `NotificationOutbox could not store what became of a notification (${reasonOf(cause)}): ` +
              "it will be tried again after its lease"
          )
        )
      )

    const drain = Effect.suspend(() => {
      const run: Run = { claim: crypto.randomUUID(), inHand: new Set(), leasedUntil: 0 }
      const renewal = Effect.delay(Effect.ignoreLogged(renew(run)), leaseMillis / 3)
      return Stream.paginateChunkEffect(undefined, () => claimSome(run)).pipe(
        Stream.mapEffect((row) => process(run, row), { concurrency, unordered: true }),
        Stream.runCount,
        Effect.raceFirst(Effect.forever(renewal)),
        Effect.onError(() => Effect.ignore(release(run))),
        Sql.endWithinASecond
      )
    })

    const outbox = NotificationOutbox.of({
      enqueue: (owner, notification, options = {}) =>
        Effect.gen(function*() {
          if (!isOwner(owner)) {
            return yield* invalid("owner must be well-formed text without NUL, of at most 1,024 bytes in UTF-8")
          }
          const message = yield* toMessage(notification, { ...options, ttl: options.ttl ?? webPush.ttl })
          const now = yield* Clock.currentTimeMillis
          const id = crypto.randomUUID()
          const row = {
            id,
            owner,
            message,
            failures: null,
            reached: null,
            attempts: 0,
            due_at: now,
            claim: null,
            created_at: now,
            died_at: null
          }
          yield* write(sql`INSERT INTO notification_outbox ${sql.insert(row)}`)
          yield* somethingIsDue.open
          return id
        }).pipe(Effect.withSpan("NotificationOutbox.enqueue", { captureStackTrace: false })),
      drain,
      deadLetters: Stream.paginateChunkEffect({ at: 0, id: "" }, ({ at, id }) =>
        read(sql`
          SELECT * FROM notification_outbox
          WHERE died_at IS NOT NULL AND (died_at > ${at} OR (died_at = ${at} AND id > ${id}))
          ORDER BY died_at, id LIMIT 100
        `).pipe(
          Effect.flatMap(toDeadRows),
          Effect.map((rows) => [
            Chunk.unsafeFromArray(Arr.map(rows, ({ attempts, createdAt, failures, id, owner }): DeadLetter => ({
              id,
              owner,
              attempts,
              createdAt,
              failures: failures ?? []
            }))),
            Option.map(Arr.last(rows), ({ diedAt, id }) => ({ at: diedAt ?? 0, id }))
          ])
        )),
      retry: (id) =>
        Effect.gen(function*() {
          const [row] = yield* toDeadRows(
            yield* read(sql`SELECT * FROM notification_outbox WHERE id = ${id} AND died_at IS NOT NULL`)
          )
          if (row === undefined) return false
          const failures = row.failures?.map((failure): Pending => ({ ...failure, isFinal: false, attempts: 0 }))
          const revived = yield* write(sql`
            UPDATE notification_outbox SET
              died_at = NULL,
              attempts = 0,
              failures = ${failures === undefined ? null : JSON.stringify(failures)},
              due_at = ${yield* Clock.currentTimeMillis}
            WHERE id = ${id} AND died_at IS NOT NULL RETURNING id
          `)
          yield* somethingIsDue.open
          return revived.length > 0
        }),
      discard: (id) =>
        Effect.map(
          write(sql`DELETE FROM notification_outbox WHERE id = ${id} AND died_at IS NOT NULL RETURNING id`),
          Arr.isNonEmptyReadonlyArray
        )
    })
    return { outbox, somethingIsDue }
  })

/**
 * An outbox in the database of the `SqlClient`, drained all the time. Any number of nodes may have one on the same database.
 *
 * @example
 * ```ts
 * import { LibsqlClient } from "@effect/sql-libsql"
 * import { Effect, Layer } from "effect"
 * import * as Notifier from "effect-realtime/Notifier"
 * import { SqlNotificationOutbox, SqlSubscriptionStore } from "effect-realtime/sql"
 *
 * const OutboxLive = SqlNotificationOutbox.layer().pipe(
 *   Layer.provide(Notifier.layer),
 *   Layer.provide(SqlSubscriptionStore.layer()),
 *   Layer.provide(LibsqlClient.layer({ url: "file:app.db" }))
 * )
 *
 * const orderPaid = (user: string) =>
 *   Effect.flatMap(SqlNotificationOutbox.NotificationOutbox, (outbox) =>
 *     outbox.enqueue(user, { event: { event: "paid" }, push: "Your order was paid." }, { delay: "2 seconds" }))
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options = {}
): Layer.Layer<
  NotificationOutbox,
  SqlError | MigrationError,
  SqlClient.SqlClient | Notifier | SubscriptionStore | WebPush.WebPush
> =>
  Layer.scoped(
    NotificationOutbox,
    Effect.gen(function*() {
      const { outbox, somethingIsDue } = yield* makeWithWakeUp(options)
      yield* outbox.drain.pipe(
        Effect.catchAllCause((cause) => Effect.logError("NotificationOutbox cannot be drained: it tries again", cause)),
        Effect.zipRight(Effect.timeoutOption(somethingIsDue.await, options.pollInterval ?? "1 second")),
        Effect.forever,
        Effect.forkScoped
      )
      return outbox
    })
  )
