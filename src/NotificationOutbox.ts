/**
 * Notifications that survive the process. A storage accepts them, as part of the caller's transaction if it has
 * transactions, and any node sends them, at least once. `SqlNotificationOutbox` of `effect-realtime/sql` is such a
 * storage.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

import { decode as decodeDuration } from "./internal/duration.js"
import { annotateWith, reasonOf } from "./internal/logging.js"
import { ruleOfPadding } from "./internal/padding.js"
import * as Attempt from "./NotificationOutbox/internal/attempt.js"
import * as Entry from "./NotificationOutbox/internal/entry.js"
import { findLost } from "./NotificationOutbox/internal/json.js"
import * as Message from "./NotificationOutbox/internal/message.js"
import type { NotifyContent, NotifyOptions } from "./Notifier.js"
import { Notifier } from "./Notifier.js"
import type { InvalidServerSentEvent } from "./ServerSentEvent.js"
import type { Device } from "./SubscriptionStore.js"
import { isOwner, SubscriptionStore } from "./SubscriptionStore.js"
import type { Message as PushMessage, MessageFor } from "./WebPush.js"
import { isMessage, WebPush } from "./WebPush.js"

/**
 * A function that makes the push of each device when it is sent, with the Schema of its data. The outbox stores the
 * name and the data: the node that sends the notification makes its push.
 *
 * @since 0.1.0
 * @category templates
 */
export interface Template<in A, out R = never> {
  readonly name: string
  /** Returns the push with this data, for `enqueue`. */
  readonly make: (data: A) => TemplatePush
  /** Fails if data in JSON does not conform to the Schema. */
  readonly check: (json: string) => Effect.Effect<void, NotificationOutboxError>
  /** Makes the message of a device from the data in JSON. Dies if the data does not conform to the Schema. */
  readonly render: (json: string, device: Device) => Effect.Effect<PushMessage, never, R>
}

/**
 * A push that a template makes. Its data is JSON, or the error with which `enqueue` refuses it.
 *
 * @since 0.1.0
 * @category templates
 */
export interface TemplatePush {
  readonly _tag: "TemplatePush"
  readonly template: string
  readonly data: Either.Either<string, NotificationOutboxError>
}

/**
 * Options of an outbox.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<out R = never> {
  /** Number of notifications that are sent at once, one or more. 16 by default. */
  readonly concurrency?: number | undefined
  /**
   * Time from the death of a node until another one takes over its notifications, in milliseconds or as a Duration.
   * 30 seconds by default.
   */
  readonly lease?: Duration.DurationInput | undefined
  /** Number of attempts for a device, one or more. 14 by default, which take about three hours. */
  readonly maxAttempts?: number | undefined
  /**
   * Time between two searches for notifications that other nodes have accepted or that are due again, in milliseconds
   * or as a Duration. 1 second by default.
   */
  readonly pollInterval?: Duration.DurationInput | undefined
  /** Templates of the notifications that the outbox accepts and sends, each with another name. None by default. */
  readonly templates?: ReadonlyArray<Template<never, R>> | undefined
}

/**
 * Reason why a notification did not reach a device: its `endpointId`, and the reason of the `WebPushFailure` or one of
 * two more. `isFinal` is true if no further attempt can succeed.
 *
 * - `Expired`: the notification was not sent, or not again, because its `ttl` had passed since it was enqueued.
 * - `Removed`: the owner has removed the device, and has no new one that may replace it.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Failure = Entry.Failure

/**
 * Type of the schema `Failure`.
 *
 * @since 0.1.0
 * @category models
 */
export type Failure = typeof Failure.Type

/**
 * A notification that the outbox no longer tries to send.
 *
 * @since 0.1.0
 * @category models
 */
export interface DeadLetter {
  readonly id: string
  readonly owner: string
  readonly attempts: number
  readonly createdAt: DateTime.Utc
  /** Devices that the notification did not reach. Empty if no device was tried. */
  readonly failures: ReadonlyArray<Failure>
}

/**
 * A request that the outbox has not carried out.
 *
 * - `InvalidNotification`: the notification or an option could never be sent. `detail` names the field and the rule.
 *   The notification is not stored.
 * - `Unavailable`: the storage failed. `detail` is the code of the failure.
 * - `InvalidRow`: the storage has an entry that is not a notification.
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

  /**
   * Returns `true` if the same request may succeed later: the storage was unavailable.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return this.reason === "Unavailable"
  }
}

/**
 * The outbox as a service.
 *
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
   * Operations of an outbox.
   *
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    /**
     * Accepts a notification and returns its id. Inside a transaction of the `SqlClient` it is accepted if the
     * transaction commits, and a failure of the database is not retried.
     *
     * The `ttl`, by default that of the `WebPush` layer, starts here: the push service gets the time that is left.
     * After the `ttl` the notification becomes a dead letter. With a `ttl` of zero it is sent within 10 seconds or not
     * at all. Without a `topic` in the options, the second and later attempts use the id as the push `topic`, so that a
     * repetition replaces an earlier message that is not delivered yet.
     *
     * The push may be of one of the `templates`, which makes a message for each device. A device for which the template
     * throws or dies gets no push: it is in a dead letter, as `Rejected`. One whose template does not end within the
     * `timeout` of the options is tried again, as `Unavailable`.
     */
    readonly enqueue: (
      owner: string,
      notification: NotifyContent<PushMessage | TemplatePush>,
      options?: NotifyOptions
    ) => Effect.Effect<string, InvalidServerSentEvent | NotificationOutboxError>
    /** Sends the notifications that are due until none is, and returns the number of attempts. */
    readonly drain: Effect.Effect<number, NotificationOutboxError>
    /** Dead letters, the oldest one first. */
    readonly deadLetters: Stream.Stream<DeadLetter, NotificationOutboxError>
    /**
     * Makes a dead letter due again, for the devices that it did not reach or those that replace them. Returns `false`
     * if no dead letter has this id. Its `ttl` still counts from `enqueue`.
     */
    readonly retry: (id: string) => Effect.Effect<boolean, NotificationOutboxError>
    /** Deletes a dead letter. Returns `false` if no dead letter has this id. */
    readonly discard: (id: string) => Effect.Effect<boolean, NotificationOutboxError>
  }
}

/**
 * An entry of the storage. Times are in milliseconds since 1970. `message`, `failures` and `reached` are JSON that only
 * the outbox reads.
 *
 * @since 0.1.0
 * @category storage
 */
export interface StoredEntry {
  readonly id: string
  readonly owner: string
  readonly message: string
  /** Devices that the notification has not reached. `null` before the first attempt. */
  readonly failures: string | null
  /** Devices that need no further attempt. */
  readonly reached: string | null
  readonly attempts: number
  /** Time from which the entry may be claimed. */
  readonly dueAt: number
  readonly createdAt: number
}

/**
 * An entry that is a dead letter.
 *
 * @since 0.1.0
 * @category storage
 */
export interface StoredDeadLetter extends Pick<StoredEntry, "id" | "owner" | "failures" | "attempts" | "createdAt"> {
  readonly diedAt: number
}

/**
 * The result of an attempt, as the storage records it: the entry is deleted, is due again, or becomes a dead letter.
 *
 * @since 0.1.0
 * @category storage
 */
export type Settlement =
  | { readonly _tag: "Sent" }
  | ({ readonly _tag: "Due" } & Pick<StoredEntry, "failures" | "reached" | "attempts" | "dueAt">)
  | ({ readonly _tag: "Dead" } & Pick<StoredEntry, "failures" | "reached"> & Pick<StoredDeadLetter, "diedAt">)

/**
 * The storage of an outbox. Any number of nodes may use one storage at the same time. Each operation is atomic, and
 * fails with the reason `Unavailable`.
 *
 * @since 0.1.0
 * @category storage
 */
export interface Storage {
  /** Stores a new entry, in the transaction of the caller if there is one. */
  readonly insert: (entry: StoredEntry) => Effect.Effect<void, NotificationOutboxError>
  /**
   * Claims at most `limit` entries that are due at `now`, and returns them. A claim marks an entry with `claim`, sets
   * its `dueAt` to `until` and adds one to its `attempts`. Of several nodes that claim at once, one gets the entry. An
   * entry whose `dueAt` is after `latest` is due too: its node had a wrong clock. No dead letter is due.
   */
  readonly claim: (options: {
    readonly claim: string
    readonly now: number
    readonly until: number
    readonly latest: number
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<StoredEntry>, NotificationOutboxError>
  /** Sets `dueAt` to `until` for the entries that still have this claim. */
  readonly renew: (
    claim: string,
    ids: ReadonlyArray<string>,
    until: number
  ) => Effect.Effect<void, NotificationOutboxError>
  /** Makes all entries with this claim due at `now`, without the claim, and subtracts one from their `attempts`. */
  readonly release: (claim: string, now: number) => Effect.Effect<void, NotificationOutboxError>
  /** Records the result of an attempt and deletes the claim, if the entry still has this claim. */
  readonly settle: (
    claim: string,
    id: string,
    settlement: Settlement
  ) => Effect.Effect<void, NotificationOutboxError>
  /** Returns at most `limit` dead letters that come after `after` in the order of `diedAt` and `id`. */
  readonly deadLetters: (
    after: Pick<StoredDeadLetter, "diedAt" | "id">,
    limit: number
  ) => Effect.Effect<ReadonlyArray<StoredDeadLetter>, NotificationOutboxError>
  /** Returns the dead letter with this id. */
  readonly deadLetter: (id: string) => Effect.Effect<Option.Option<StoredDeadLetter>, NotificationOutboxError>
  /**
   * Makes a dead letter due at `dueAt`, with these `failures` and no attempts. Returns `false` if no dead letter has
   * this id.
   */
  readonly retry: (
    id: string,
    failures: StoredEntry["failures"],
    dueAt: number
  ) => Effect.Effect<boolean, NotificationOutboxError>
  /** Deletes a dead letter. Returns `false` if no dead letter has this id. */
  readonly discard: (id: string) => Effect.Effect<boolean, NotificationOutboxError>
}

/**
 * Makes a template: a name that no other template of the outbox has, the Schema of its data, and the function from the
 * data and a device to the message, which may be an Effect that cannot fail. `enqueue` refuses data that is not the
 * same after JSON: the Schema must encode it to texts, booleans, finite numbers, arrays and plain objects.
 *
 * @since 0.1.0
 * @category templates
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import * as NotificationOutbox from "effect-realtime/NotificationOutbox"
 * import { SqlNotificationOutbox } from "effect-realtime/sql"
 *
 * const OrderPaid = NotificationOutbox.template(
 *   "order-paid",
 *   Schema.Struct({ order: Schema.Number }),
 *   ({ order }, { locale = "en" }) => locale.startsWith("pt") ? `Pedido ${order} pago.` : `Order ${order} was paid.`
 * )
 *
 * const OutboxLive = SqlNotificationOutbox.layerWith({ templates: [OrderPaid] })
 *
 * const orderPaid = (user: string, order: number) =>
 *   NotificationOutbox.enqueue(user, { event: { event: "paid" }, push: OrderPaid.make({ order }) })
 * ```
 */
export const template = <A, I, R = never>(
  name: string,
  schema: Schema.Schema<A, I>,
  render: (data: A, device: Device) => PushMessage | Effect.Effect<PushMessage, never, R>
): Template<A, R> => {
  const encode = Schema.encodeEither(schema)
  const decode = Schema.decode(Schema.parseJson(schema))
  // Without the value: an error shows no data.
  const refused = (error: ParseResult.ParseError) => {
    const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
    const field = Arr.join(Arr.map(["data", ...issue?.path ?? []], String), ".")
    return invalid(`push must have data that conforms to the Schema of its template, in ${field}`)
  }
  return {
    name,
    make: (data) => ({
      _tag: "TemplatePush",
      template: name,
      data: Either.gen(function*() {
        const encoded = yield* Either.mapLeft(encode(data), refused)
        const json = yield* Either.mapLeft(encodeJson(encoded), refused)
        const lost = findLost("data", encoded)
        return lost === undefined
          ? json
          : yield* Either.left(invalid(`push must have data that JSON preserves, unlike ${lost}`))
      })
    }),
    check: (text) => Effect.mapError(Effect.asVoid(decode(text)), refused),
    render: (text, device) =>
      decode(text).pipe(
        // The error of a schema quotes the data, and is dropped.
        Effect.orDieWith(() => new Error("the data does not conform to the Schema of its template")),
        Effect.flatMap((data) => {
          const message = render(data, device)
          return Effect.isEffect(message) ? message : Effect.succeed(message)
        })
      )
  }
}

const encodeJson = Schema.encodeEither(Schema.parseJson(Schema.Unknown))

const decodeEntry = Schema.decodeUnknownEither(Entry.Entry)

const decodeDeadLetter = Schema.decodeUnknown(Entry.DeadEntry)

// The error of a schema quotes the entry, and is dropped.
const toDeadLetter = (entry: StoredDeadLetter) =>
  Effect.mapError(
    decodeDeadLetter(entry),
    () => new NotificationOutboxError({ reason: "InvalidRow", detail: "a dead letter of the storage is not readable" })
  )

const invalid = (detail: string) => new NotificationOutboxError({ reason: "InvalidNotification", detail })

const toJson = (value: unknown): string | null => value === null ? null : JSON.stringify(value)

const wholeNumber = (name: string, value: number): Effect.Effect<void> =>
  Number.isSafeInteger(value) && value >= 1 ? Effect.void : refuseOption(`${name} must be a whole number, one or more`)

const positive = (name: string, value: Duration.DurationInput): Effect.Effect<number> => {
  const millis = Option.match(decodeDuration(value), { onNone: () => 0, onSome: Duration.toMillis })
  return millis > 0 && Number.isFinite(millis)
    ? Effect.succeed(millis)
    : refuseOption(`${name} must be a duration, longer than zero and finite`)
}

const refuseOption = (rule: string): Effect.Effect<never> =>
  Effect.die(new Cause.IllegalArgumentException(`NotificationOutbox: ${rule}`))

/**
 * Limits the interruption of an effect to one second. A storage that has not answered by then ends in the background,
 * with the finalizers of the effect.
 */
const endWithinASecond = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      Effect.forkDaemon(restore(self)),
      (fiber) =>
        Effect.onInterrupt(restore(Fiber.join(fiber)), () =>
          Fiber.interrupt(fiber).pipe(Effect.disconnect, Effect.interruptible, Effect.timeoutOption("1 second")))
    )
  )

/** Returns the settlement of an attempt. `None` stands for an attempt that failed as a whole. */
const toSettlement = Effect.fnUntraced(function*(
  entry: Entry.Entry,
  outcome: Option.Option<Attempt.Attempt>,
  maxAttempts: number
): Effect.fn.Return<Settlement> {
  if (Option.isSome(outcome) && outcome.value.failures.length === 0 && !outcome.value.isExpired) {
    return { _tag: "Sent" }
  }
  const now = yield* Clock.currentTimeMillis
  const { failures, reached } = Option.getOrElse(outcome, () => entry)
  const state = { failures: toJson(failures), reached: toJson(reached) }
  const pending = Arr.filter(failures ?? [], (failure) => Attempt.isPending(failure, maxAttempts))
  if (Option.isNone(outcome) ? entry.attempts >= maxAttempts : pending.length === 0) {
    return { _tag: "Dead", ...state, diedAt: now }
  }
  const next = Option.isNone(outcome)
    ? { attempts: entry.attempts, dueAt: now + Attempt.backoff(entry.attempts, yield* Attempt.jitter) }
    : {
      attempts: Math.max(...pending.map(({ attempts = 0 }) => attempts)),
      dueAt: Math.min(...pending.map(({ dueAt = now }) => dueAt))
    }
  const expiry = Entry.expiryOf(entry)
  return {
    _tag: "Due",
    ...state,
    attempts: next.attempts,
    dueAt: expiry > now ? Math.min(next.dueAt, expiry) : next.dueAt
  }
})

/** One run of `drain`: its mark on the entries that it claims, the ids of those not settled yet, and their lease. */
interface Run {
  readonly claim: string
  readonly unsettled: Set<string>
  leasedUntil: number
}

/**
 * Makes an outbox that sends only while `drain` runs. An interruption of `drain` releases the unsent notifications at
 * once, and takes one second at most if the storage does not answer. Dies with `IllegalArgumentException` if an option
 * is out of its range.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as NotificationOutbox from "effect-realtime/NotificationOutbox"
 *
 * // Another engine than SQL. A job drains the outbox.
 * const job = (storage: NotificationOutbox.Storage) =>
 *   Effect.flatMap(NotificationOutbox.make(Effect.succeed(storage), { concurrency: 4 }), (outbox) => outbox.drain)
 * ```
 */
export const make = <E, R, R2 = never>(
  storage: Effect.Effect<Storage, E, R>,
  options: Options<R2> = {}
): Effect.Effect<NotificationOutbox.Service, E, R | R2 | Notifier | SubscriptionStore | WebPush> =>
  Effect.map(makeWithSignal(storage, options), ({ outbox }) => outbox)

const makeWithSignal = Effect.fnUntraced(function*<E, R, R2>(
  makeStorage: Effect.Effect<Storage, E, R>,
  { concurrency = 16, lease = "30 seconds", maxAttempts = 14, pollInterval = "1 second", templates = [] }: Options<R2>
) {
  const context = yield* Effect.context<R2>()
  const notifier = yield* Notifier
  const store = yield* SubscriptionStore
  const webPush = yield* WebPush
  yield* wholeNumber("concurrency", concurrency)
  yield* wholeNumber("maxAttempts", maxAttempts)
  yield* positive("pollInterval", pollInterval)
  const leaseMillis = yield* positive("lease", lease)
  const byName = new Map(Arr.map(templates, (template) => [template.name, template]))
  if (byName.size < templates.length) yield* refuseOption("templates must have different names")
  const storage = yield* makeStorage
  // No node with a right clock makes an entry due later than this.
  const farthest = 2 * Math.max(leaseMillis, Attempt.longestRetryAfter)
  const entryIsDue = yield* Effect.makeLatch(false)

  const claimSome = ({ claim, unsettled }: Run) =>
    Effect.gen(function*() {
      yield* entryIsDue.close
      const now = yield* Clock.currentTimeMillis
      const entries = yield* storage.claim({
        claim,
        now,
        until: now + leaseMillis,
        latest: now + farthest,
        limit: concurrency
      })
      const [unreadable, claimed] = Arr.partitionMap(
        entries,
        (entry) => Either.mapLeft(decodeEntry(entry), () => entry)
      )
      if (unreadable.length > 0) {
        yield* Effect.logError(
          `NotificationOutbox could not read entries of the storage: ${unreadable.length} become dead letters`
        )
        for (const { id } of unreadable) {
          yield* storage.settle(claim, id, { _tag: "Dead", failures: null, reached: null, diedAt: now })
        }
      }
      for (const { id } of claimed) unsettled.add(id)
      // A slow notification does not delay those that are accepted in the meantime.
      if (entries.length === 0 && unsettled.size > 0) yield* Effect.timeoutOption(entryIsDue.await, pollInterval)
      const isDone = entries.length === 0 && unsettled.size === 0
      return [Chunk.unsafeFromArray(claimed), Option.liftPredicate(undefined, () => !isDone)] as const
    }).pipe(Effect.withSpan("NotificationOutbox.claim", { captureStackTrace: false }))

  const renew = Effect.fnUntraced(
    function*(run: Run) {
      if (run.unsettled.size === 0) return
      const until = (yield* Clock.currentTimeMillis) + leaseMillis
      yield* storage.renew(run.claim, [...run.unsettled], until)
      run.leasedUntil = until
    },
    Effect.catchAllCause((cause) =>
      Effect.logWarning(
        `NotificationOutbox could not renew its leases (${
          reasonOf(cause)
        }): other nodes may take over its notifications`
      )
    )
  )

  // The notification did not cause an orderly shutdown: that attempt does not count.
  const release = ({ claim }: Run) => Effect.flatMap(Clock.currentTimeMillis, (now) => storage.release(claim, now))

  const process = (run: Run, entry: Entry.Entry) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      // This node was suspended for longer than the lease, and another one has claimed the entry.
      now >= Math.max(entry.dueAt, run.leasedUntil) ? Effect.void : send(run, entry)).pipe(
        Effect.ensuring(Effect.zipRight(Effect.sync(() => run.unsettled.delete(entry.id)), entryIsDue.open)),
        Effect.withSpan("NotificationOutbox.process", { captureStackTrace: false })
      )

  /** Returns the message for each device, or nothing if no template of this node has the name. */
  const pushOf = ({ message: { push } }: Entry.Entry): MessageFor<Device> | undefined => {
    if (isMessage(push)) return push
    const template = byName.get(push.template)
    return template && ((device) => Effect.provide(template.render(push.data, device), context))
  }

  const attempt = (entry: Entry.Entry) => {
    // An entry whose attempts never ended may have ended its nodes.
    if (entry.attempts > maxAttempts) return Effect.succeedNone
    const push = pushOf(entry)
    return push === undefined
      ? Effect.as(
        // A newer version may run on another node.
        Effect.logWarning("NotificationOutbox does not have the template of a notification: trying it again"),
        Option.none<Attempt.Attempt>()
      )
      : Effect.asSome(Attempt.attempt({ maxAttempts, notifier, push, store }, entry))
  }

  const send = (run: Run, entry: Entry.Entry) =>
    attempt(entry).pipe(
      Effect.catchAllCause((cause) =>
        Effect.as(
          Effect.logWarning(
            `NotificationOutbox could not process a notification (${reasonOf(cause)}): trying it again`
          ),
          Option.none<Attempt.Attempt>()
        )
      ),
      Effect.flatMap((outcome) => toSettlement(entry, outcome, maxAttempts)),
      Effect.flatMap((settlement) => storage.settle(run.claim, entry.id, settlement)),
      Effect.catchAllCause((cause) =>
        Effect.logError(
          `NotificationOutbox could not store the result of an attempt (${reasonOf(cause)}): ` +
            "trying the notification again after its lease"
        )
      )
    )

  const drain = Effect.suspend(() => {
    const run: Run = { claim: crypto.randomUUID(), unsettled: new Set(), leasedUntil: 0 }
    const renewal = Effect.delay(renew(run), leaseMillis / 3)
    return Stream.paginateChunkEffect(undefined, () => claimSome(run)).pipe(
      Stream.mapEffect((entry) => process(run, entry), { concurrency, unordered: true }),
      Stream.runCount,
      Effect.raceFirst(Effect.forever(renewal)),
      Effect.onError(() => Effect.ignore(release(run))),
      annotateWith("NotificationOutbox"),
      endWithinASecond
    )
  })

  const storedPush = (
    push: PushMessage | TemplatePush
  ): Effect.Effect<PushMessage | Message.Templated, NotificationOutboxError> => {
    if (isMessage(push)) return Effect.succeed(push)
    const template = Predicate.isTagged(push, "TemplatePush") && Either.isEither(push.data)
      ? byName.get(push.template)
      : undefined
    return template === undefined
      ? invalid("push must be a text, bytes, a payload, or of a template of this outbox")
      : Effect.flatMap(push.data, (data) => Effect.as(template.check(data), { template: push.template, data }))
  }

  const outbox = NotificationOutbox.of({
    enqueue: (owner, notification, options = {}) =>
      Effect.gen(function*() {
        if (!isOwner(owner)) {
          return yield* invalid("owner must be well-formed text without NUL, of at most 1,024 bytes in UTF-8")
        }
        const rule = ruleOfPadding(webPush, options.padding)
        if (rule !== undefined) return yield* invalid(rule)
        const push = yield* storedPush(notification.push)
        const message = yield* Either.mapLeft(
          Message.encode({ ...notification, push }, { ...options, ttl: options.ttl ?? webPush.ttl }),
          (fault) => typeof fault === "string" ? invalid(fault) : fault
        )
        const now = yield* Clock.currentTimeMillis
        const id = crypto.randomUUID()
        yield* storage.insert({
          id,
          owner,
          message,
          failures: null,
          reached: null,
          attempts: 0,
          dueAt: now,
          createdAt: now
        })
        yield* entryIsDue.open
        return id
      }).pipe(Effect.withSpan("NotificationOutbox.enqueue", { captureStackTrace: false })),
    drain,
    deadLetters: Stream.paginateChunkEffect({ diedAt: 0, id: "" }, (after) =>
      storage.deadLetters(after, 100).pipe(
        Effect.flatMap(Effect.forEach(toDeadLetter)),
        Effect.map((letters) => [
          Chunk.unsafeFromArray(Arr.map(letters, ({ diedAt: _, failures, ...letter }): DeadLetter => ({
            ...letter,
            failures: failures ?? []
          }))),
          Arr.last(letters)
        ])
      )),
    retry: Effect.fnUntraced(function*(id) {
      const found = yield* storage.deadLetter(id)
      if (Option.isNone(found)) return false
      const letter = yield* toDeadLetter(found.value)
      const failures = letter.failures?.map((failure) => ({ ...failure, isFinal: false, attempts: 0 })) ?? null
      const isDue = yield* storage.retry(id, toJson(failures), yield* Clock.currentTimeMillis)
      yield* entryIsDue.open
      return isDue
    }),
    discard: storage.discard
  })
  return { outbox, entryIsDue }
})

/**
 * Provides an outbox over a storage, which is drained all the time. Any number of nodes may use one storage.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as NotificationOutbox from "effect-realtime/NotificationOutbox"
 *
 * const outboxOver = (storage: NotificationOutbox.Storage) =>
 *   NotificationOutbox.layerWith(Effect.succeed(storage), { pollInterval: "5 seconds" })
 * ```
 */
export const layerWith = <E, R, R2 = never>(
  storage: Effect.Effect<Storage, E, R>,
  options: Options<R2> = {}
): Layer.Layer<NotificationOutbox, E, Exclude<R | R2, Scope.Scope> | Notifier | SubscriptionStore | WebPush> =>
  Layer.scoped(
    NotificationOutbox,
    Effect.gen(function*() {
      const { entryIsDue, outbox } = yield* makeWithSignal(storage, options)
      const pollInterval = options.pollInterval ?? "1 second"
      yield* outbox.drain.pipe(
        Effect.catchAllCause((cause) => {
          // The detail of a storage is a code.
          const detail = Option.match(Cause.failureOption(cause), {
            onNone: () => "",
            onSome: ({ detail }) => `, ${detail}`
          })
          return Effect.logError(
            `NotificationOutbox could not drain the storage (${reasonOf(cause)}${detail}): trying again`
          )
        }),
        Effect.zipRight(Effect.timeoutOption(entryIsDue.await, pollInterval)),
        annotateWith("NotificationOutbox"),
        Effect.forever,
        Effect.forkScoped
      )
      return outbox
    })
  )

/**
 * Accepts a notification and returns its id. A node sends it at least once.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import * as NotificationOutbox from "effect-realtime/NotificationOutbox"
 *
 * const orderPaid = (user: string) =>
 *   NotificationOutbox.enqueue(
 *     user,
 *     { event: { event: "paid" }, push: "Your order was paid." },
 *     { delay: "2 seconds", ttl: "1 day" }
 *   )
 * ```
 */
export const enqueue = (
  owner: string,
  notification: NotifyContent<PushMessage | TemplatePush>,
  options?: NotifyOptions
): Effect.Effect<string, InvalidServerSentEvent | NotificationOutboxError, NotificationOutbox> =>
  Effect.flatMap(NotificationOutbox, (outbox) => outbox.enqueue(owner, notification, options))

/**
 * Sends the notifications that are due until none is, and returns the number of attempts. `layerWith` drains its
 * outbox by itself.
 *
 * @since 0.1.0
 * @category accessors
 */
export const drain: Effect.Effect<number, NotificationOutboxError, NotificationOutbox> = Effect.flatMap(
  NotificationOutbox,
  (outbox) => outbox.drain
)

/**
 * Streams the dead letters, the oldest one first.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import * as NotificationOutbox from "effect-realtime/NotificationOutbox"
 *
 * // Tries again each notification that a push service refused for the moment.
 * const retryAll = NotificationOutbox.deadLetters.pipe(
 *   Stream.filter(({ failures }) => failures.some(({ isFinal }) => !isFinal)),
 *   Stream.runForEach(({ id }) => NotificationOutbox.retry(id))
 * )
 * ```
 */
export const deadLetters: Stream.Stream<DeadLetter, NotificationOutboxError, NotificationOutbox> = Stream.unwrap(
  Effect.map(NotificationOutbox, (outbox) => outbox.deadLetters)
)

/**
 * Makes a dead letter due again, for the devices that it did not reach or those that replace them. Returns `false` if
 * no dead letter has this id.
 *
 * @since 0.1.0
 * @category accessors
 */
export const retry = (id: string): Effect.Effect<boolean, NotificationOutboxError, NotificationOutbox> =>
  Effect.flatMap(NotificationOutbox, (outbox) => outbox.retry(id))

/**
 * Deletes a dead letter. Returns `false` if no dead letter has this id.
 *
 * @since 0.1.0
 * @category accessors
 */
export const discard = (id: string): Effect.Effect<boolean, NotificationOutboxError, NotificationOutbox> =>
  Effect.flatMap(NotificationOutbox, (outbox) => outbox.discard(id))
