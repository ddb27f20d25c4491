/**
 * Notifications that survive the process: they are accepted into the database, in the transaction of whatever they tell of if there is
 * one, and sent by any node, at least once.
 *
 * @since 0.1.0
 */
import type { MigrationError } from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import { deliver } from "../internal/deliver.js"
import * as Sql from "../internal/sql.js"
import type { Notification, NotifyOptions } from "../Notifier.js"
import { Notifier } from "../Notifier.js"
import * as ServerSentEvent from "../ServerSentEvent.js"
import { SubscriptionStore } from "../SubscriptionStore.js"
import * as WebPush from "../WebPush.js"
import { isWebPushPayload } from "../WebPushPayload.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** How many notifications are on their way at once. Default 16. */
  readonly concurrency?: number | undefined
  /** How long after the death of a node its notifications are taken over by another. Default 30 seconds. */
  readonly lease?: Duration.DurationInput | undefined
  /** After how many attempts a notification is given up. Default 14, which is about three hours. */
  readonly maxAttempts?: number | undefined
  /** How often a node looks for what other nodes have accepted, or is due again. Default 1 second. */
  readonly pollInterval?: Duration.DurationInput | undefined
}

/**
 * Why a notification did not get to a device: its `endpointId`, and the reason of the `WebPushFailure`. `isFinal` if trying again is of
 * no use.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Failure = Schema.Struct({
  device: Schema.String,
  reason: WebPush.WebPushFailure.fields.reason,
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
 * The outbox did not do what it was asked.
 *
 * - `Unavailable`: the database failed; `detail` is the code of the failure.
 * - `InvalidRow`: the database has a row that is no notification.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotificationOutboxError
  extends Schema.TaggedError<NotificationOutboxError>("effect-realtime/NotificationOutboxError")(
    "NotificationOutboxError",
    { reason: Schema.Literal("Unavailable", "InvalidRow"), detail: Schema.String }
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
     * Accepts a notification and gives its id. Inside a transaction of the `SqlClient` it is accepted if that commits. The id is its push
     * `topic`, unless it has one, so that a repetition takes the place of what is not delivered yet.
     */
    readonly enqueue: (
      owner: string,
      notification: Notification,
      options?: NotifyOptions
    ) => Effect.Effect<string, ServerSentEvent.InvalidServerSentEvent | NotificationOutboxError>
    /** Sends what is due until nothing is, and gives the number of attempts. */
    readonly drain: Effect.Effect<number, NotificationOutboxError>
    /** The notifications that were given up, the oldest first. */
    readonly deadLetters: Stream.Stream<DeadLetter, NotificationOutboxError>
    /** Makes a dead letter due again, for the devices that it did not get to, and says whether there is one with this id. */
    readonly retry: (id: string) => Effect.Effect<boolean, NotificationOutboxError>
    /** Deletes a dead letter, and says whether there is one with this id. */
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
    padding: Schema.optional(Schema.Number)
  })
}))

const Row = Schema.Struct({
  id: Schema.String,
  owner: Schema.String,
  message: Message,
  // None as long as it was not tried: from then on the event is out, and only devices are left.
  failures: Schema.NullOr(Schema.parseJson(Schema.Array(Failure))),
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
  })
}

const decodeRow = Schema.decodeUnknownEither(Row)

const DeadRow = Row.pick("id", "owner", "failures", "attempts", "createdAt", "diedAt")

const decodeDeadRows = Schema.decodeUnknown(Schema.Array(DeadRow))

const textOf = (data: unknown): string | undefined =>
  data === undefined || typeof data === "string" ?
    data
    : data instanceof Uint8Array ?
    new TextDecoder().decode(data)
    : JSON.stringify(data)

const bytesOf = (message: WebPush.Message): Uint8Array =>
  typeof message === "string" ? new TextEncoder().encode(message) : isWebPushPayload(message) ? message.bytes : message

const duration = (input: Duration.DurationInput | undefined) => input === undefined ? undefined : Duration.decode(input)

const transient = new Set<Failure["reason"]>(["RateLimited", "Timeout", "Transport", "Unavailable"])

const failureOf = ({ result, subscription }: WebPush.Outcome): Option.Option<Failure> =>
  Either.isLeft(result) && result.left._tag === "WebPushFailure"
    ? Option.some({
      device: subscription.endpointId,
      reason: result.left.reason,
      isFinal: !transient.has(result.left.reason)
    })
    : Option.none()

const retryAfterOf = (outcomes: ReadonlyArray<WebPush.Outcome>): number =>
  Math.max(
    0,
    ...outcomes.map(({ result }) =>
      Either.isLeft(result) && result.left._tag === "WebPushFailure" && result.left.retryAfter !== undefined
        ? Duration.toMillis(result.left.retryAfter)
        : 0
    )
  )

const longestBackoff = 3_600_000

/** One run of `drain`: the mark on the rows that it claims, the ids of those that it has not settled, and until when they were renewed. */
interface Run {
  readonly claim: string
  readonly inHand: Set<string>
  leasedUntil: number
}

/** What one attempt came to. */
interface Attempt {
  readonly failures: Row["failures"]
  readonly retryAfter: number
}

/**
 * An outbox in the database of the `SqlClient`, that sends only when it is told to `drain`. Creates its table if it is not there.
 * When `drain` is interrupted, what it has not sent yet is left to others at once.
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
    const leaseMillis = Duration.toMillis(lease)
    yield* Sql.migrate("notification_outbox_migrations", migrations)

    const somethingIsDue = yield* Effect.makeLatch(false)
    const query = (statement: { readonly withoutTransform: Effect.Effect<ReadonlyArray<unknown>, SqlError> }) =>
      Effect.mapError(
        Sql.run(sql, statement.withoutTransform),
        (error) => new NotificationOutboxError({ reason: "Unavailable", detail: Sql.failureCode(error) })
      )

    // What a schema says of a row quotes it.
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
          SELECT id FROM notification_outbox WHERE died_at IS NULL AND due_at <= ${now}
          ORDER BY due_at LIMIT ${concurrency}
        `
        const isDue = sql.onDialectOrElse({
          pg: () => sql`id = ANY(ARRAY(${due} FOR UPDATE SKIP LOCKED))`,
          // There is one writer at a time.
          orElse: () => sql`id IN (${due})`
        })
        const rows = yield* query(sql`
          UPDATE notification_outbox SET claim = ${claim}, due_at = ${now + leaseMillis}, attempts = attempts + 1
          WHERE ${isDue} RETURNING *
        `)
        const [unreadable, claimed] = Arr.partitionMap(rows, (row) => Either.mapLeft(decodeRow(row), () => row))
        if (unreadable.length > 0) {
          yield* Effect.logError(`${unreadable.length} rows of notification_outbox are no notifications`)
          const ids = Arr.map(unreadable, (row) => Predicate.hasProperty(row, "id") ? row.id : null)
          yield* query(
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
          query(sql`
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
        query(sql`
          UPDATE notification_outbox SET claim = NULL, due_at = ${now}, attempts = attempts - 1 WHERE claim = ${claim}
        `))

    const attempt = ({ failures, message: { event, options, push }, owner }: Row): Effect.Effect<Attempt, unknown> =>
      Effect.gen(function*() {
        if (failures === null) {
          // If the store is away, it is found out before the event is told to anyone, who would be told again each time.
          yield* store.forOwner(owner)
          const report = yield* notifier.notify(owner, { event, push }, options)
          // Nobody was told anything yet.
          if (Either.isLeft(report.event) && report.outcomes.length === 0) return yield* Effect.fail(report.event.left)
          return {
            failures: Arr.filterMap(report.outcomes, failureOf),
            retryAfter: retryAfterOf(report.outcomes)
          }
        }
        const [due, final] = Arr.partition(failures, ({ isFinal }) => isFinal)
        const ids = new Set(due.map(({ device }) => device))
        const devices = Arr.filter(yield* store.forOwner(owner), ({ endpointId }) => ids.has(endpointId))
        const { outcomes } = yield* deliver(webPush, store, devices, push, options)
        return { failures: [...final, ...Arr.filterMap(outcomes, failureOf)], retryAfter: retryAfterOf(outcomes) }
      })

    const settle = ({ claim }: Run, { attempts, id }: Row, { failures, retryAfter }: Attempt) =>
      Effect.gen(function*() {
        const now = yield* Clock.currentTimeMillis
        if (failures !== null && failures.length === 0) {
          return yield* query(sql`DELETE FROM notification_outbox WHERE id = ${id} AND claim = ${claim}`)
        }
        const goesOn = attempts < maxAttempts && (failures === null || failures.some(({ isFinal }) => !isFinal))
        const jitter = 0.5 + (yield* Random.next)
        const backoff = Math.max(retryAfter, Math.min(longestBackoff, 1000 * 2 ** attempts) * jitter)
        return yield* query(sql`
          UPDATE notification_outbox SET
            claim = NULL,
            failures = ${failures === null ? null : JSON.stringify(failures)},
            due_at = ${goesOn ? now + backoff : now},
            died_at = ${goesOn ? null : now}
          WHERE id = ${id} AND claim = ${claim}
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
      (row.attempts > maxAttempts ? Effect.succeed({ failures: row.failures, retryAfter: 0 }) : attempt(row)).pipe(
        Effect.catchAllCause((cause) =>
          Effect.as(Effect.logWarning("A notification will be tried again", cause), {
            failures: row.failures,
            retryAfter: 0
          })
        ),
        Effect.flatMap((outcome) => settle(run, row, outcome)),
        // Its lease runs out, and it is tried again.
        Effect.catchAll((error) => Effect.logError("What became of a notification could not be kept", error))
      )

    const drain = Effect.suspend(() => {
      const run: Run = { claim: crypto.randomUUID(), inHand: new Set(), leasedUntil: 0 }
      const renewal = Effect.delay(Effect.ignoreLogged(renew(run)), leaseMillis / 3)
      return Stream.paginateChunkEffect(undefined, () => claimSome(run)).pipe(
        Stream.mapEffect((row) => process(run, row), { concurrency, unordered: true }),
        Stream.runCount,
        Effect.raceFirst(Effect.forever(renewal)),
        Effect.onError(() => Effect.ignore(release(run)))
      )
    })

    const outbox = NotificationOutbox.of({
      enqueue: (owner, { event, push }, { delay, timeout, ttl, ...options } = {}) =>
        Effect.gen(function*() {
          yield* ServerSentEvent.encodeString(event)
          if (event.id !== undefined) {
            return yield* new ServerSentEvent.InvalidServerSentEvent({ field: "id", reason: "Assigned" })
          }
          const now = yield* DateTime.now
          const id = crypto.randomUUID()
          const row = Schema.encodeSync(Row)({
            id,
            owner,
            message: {
              event: { ...event, data: textOf(event.data) },
              push: bytesOf(push),
              options: {
                ...options,
                topic: options.topic ?? id,
                delay: duration(delay),
                timeout: duration(timeout),
                ttl: duration(ttl)
              }
            },
            failures: null,
            attempts: 0,
            dueAt: now.epochMillis,
            claim: null,
            createdAt: now,
            diedAt: null
          })
          yield* query(sql`INSERT INTO notification_outbox ${sql.insert(row)}`)
          yield* somethingIsDue.open
          return id
        }).pipe(Effect.withSpan("NotificationOutbox.enqueue", { captureStackTrace: false })),
      drain,
      deadLetters: Stream.paginateChunkEffect({ at: 0, id: "" }, ({ at, id }) =>
        query(sql`
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
            yield* query(sql`SELECT * FROM notification_outbox WHERE id = ${id} AND died_at IS NOT NULL`)
          )
          if (row === undefined) return false
          const failures = row.failures?.map((failure) => ({ ...failure, isFinal: false }))
          const revived = yield* query(sql`
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
          query(sql`DELETE FROM notification_outbox WHERE id = ${id} AND died_at IS NOT NULL RETURNING id`),
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
        Effect.catchAllCause((cause) => Effect.logError("The outbox cannot be drained", cause)),
        Effect.zipRight(Effect.timeoutOption(somethingIsDue.await, options.pollInterval ?? "1 second")),
        Effect.forever,
        Effect.forkScoped
      )
      return outbox
    })
  )
