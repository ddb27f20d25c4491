/**
 * Broadcasts that survive the process. A campaign sends a message to all devices of the store, or to those that match,
 * batch by batch. A storage has its cursor and its counts: after a crash any node sends the rest, and at most one batch
 * twice. `SqlCampaign` of `effect-realtime/sql` is such a storage.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

import { decode as decodeDuration } from "./internal/duration.js"
import { annotateWith, reasonOf } from "./internal/logging.js"
import { ruleOfPadding } from "./internal/padding.js"
import type { Device, Filter, SubscriptionStoreError } from "./SubscriptionStore.js"
import { checkFilter, Locale, SubscriptionStore } from "./SubscriptionStore.js"
import type { Message, SendOptions } from "./WebPush.js"
import { isMessage, Urgency, WebPush } from "./WebPush.js"
import { maxBytes, toBytes } from "./WebPushPayload.js"

/**
 * The message of a campaign: one for all devices, or one for each locale, by its BCP 47 tag. A device with the locale
 * `pt-BR` gets the message of `pt-BR`, else that of `pt`, else the default.
 *
 * @since 0.1.0
 * @category models
 */
export type CampaignMessage = Message | { readonly default: Message; readonly [locale: string]: Message }

/**
 * The options of a campaign.
 *
 * @since 0.1.0
 * @category models
 */
export interface StartOptions extends SendOptions {
  /** Condition of the devices. All devices by default. */
  readonly matching?: Filter | undefined
  /** Number of devices in a batch, 1 to 10,000. A crash sends one batch twice at most. 500 by default. */
  readonly batch?: number | undefined
}

/**
 * The options of the nodes that run campaigns.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Number of campaigns that this node sends at once, one or more. 4 by default. */
  readonly concurrency?: number | undefined
  /**
   * Time from the death of a node until another one takes over its batch, in milliseconds or as a Duration. 30 seconds
   * by default.
   */
  readonly lease?: Duration.DurationInput | undefined
  /**
   * Time between two searches for campaigns of other nodes, and between two reads of `progress`, in milliseconds or as
   * a Duration. 1 second by default.
   */
  readonly pollInterval?: Duration.DurationInput | undefined
}

/**
 * State of a campaign. `done` and `cancelled` are final.
 *
 * @since 0.1.0
 * @category schemas
 */
export const State = Schema.Literal("running", "paused", "cancelled", "done")

/**
 * Type of the schema `State`.
 *
 * @since 0.1.0
 * @category models
 */
export type State = typeof State.Type

/**
 * State and counts of a campaign after its last complete batch.
 *
 * @since 0.1.0
 * @category models
 */
export interface Status {
  readonly id: string
  readonly state: State
  /** Number of devices whose push service accepted the message. */
  readonly accepted: number
  /** Number of devices that were gone. The store has pruned them. */
  readonly gone: number
  /** Number of devices that the message did not reach for another reason. */
  readonly failed: number
  readonly startedAt: DateTime.Utc
}

/**
 * A request that was not carried out.
 *
 * - `InvalidCampaign`: the message or an option could never be sent. `detail` names the field and the rule.
 * - `NotFound`: no campaign has this id.
 * - `Unavailable`: the storage failed. `detail` is the code of the failure.
 * - `InvalidRow`: the storage has an entry that is not a campaign.
 *
 * @since 0.1.0
 * @category errors
 */
export class CampaignError extends Schema.TaggedError<CampaignError>("effect-realtime/CampaignError")(
  "CampaignError",
  { reason: Schema.Literal("InvalidCampaign", "NotFound", "Unavailable", "InvalidRow"), detail: Schema.String }
) {
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
 * The campaigns as a service.
 *
 * @since 0.1.0
 * @category tags
 */
export class Campaign extends Context.Tag("effect-realtime/Campaign")<Campaign, Campaign.Service>() {}

/**
 * @since 0.1.0
 */
export declare namespace Campaign {
  /**
   * Operations of campaigns.
   *
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    /**
     * Accepts a campaign and returns its id, in the transaction of the caller if there is one. A device that is stored
     * while the campaign runs may get the message or not.
     */
    readonly start: (message: CampaignMessage, options?: StartOptions) => Effect.Effect<string, CampaignError>
    /** Stops a running campaign after its current batch. Returns `false` if it was not running. */
    readonly pause: (id: string) => Effect.Effect<boolean, CampaignError>
    /** Continues a paused campaign. Returns `false` if it was not paused. */
    readonly resume: (id: string) => Effect.Effect<boolean, CampaignError>
    /** Ends a running or paused campaign after its current batch. Returns `false` if it had ended. */
    readonly cancel: (id: string) => Effect.Effect<boolean, CampaignError>
    /** Returns the state and the counts. */
    readonly status: (id: string) => Effect.Effect<Status, CampaignError>
    /** Emits the status, and each one that differs, from whichever node. Ends with the campaign. */
    readonly progress: (id: string) => Stream.Stream<Status, CampaignError>
    /** Sends batches until no campaign is running, and returns their number. A layer does so all the time. */
    readonly run: Effect.Effect<number, CampaignError>
  }
}

/**
 * A campaign in the storage. Times are in milliseconds since 1970. `content` is JSON that only this module reads.
 *
 * @since 0.1.0
 * @category storage
 */
export interface StoredCampaign {
  readonly id: string
  readonly content: string
  readonly state: string
  /** Cursor of the next batch in the store. `null` before the first one. */
  readonly cursor: string | null
  readonly accepted: number
  readonly gone: number
  readonly failed: number
  readonly startedAt: number
}

/**
 * The result of a batch: the next cursor, which is `null` after the last batch, and the numbers to add.
 *
 * @since 0.1.0
 * @category storage
 */
export interface Batch extends Pick<StoredCampaign, "cursor" | "accepted" | "gone" | "failed"> {}

/**
 * The storage of campaigns. Any number of nodes may use one storage at the same time. Each operation is atomic, and
 * fails with the reason `Unavailable`.
 *
 * @since 0.1.0
 * @category storage
 */
export interface Storage {
  /** Stores a running campaign that is due, in the transaction of the caller if there is one. */
  readonly insert: (campaign: StoredCampaign) => Effect.Effect<void, CampaignError>
  /** Returns the campaign with this id. */
  readonly find: (id: string) => Effect.Effect<Option.Option<StoredCampaign>, CampaignError>
  /**
   * Marks the running campaign that has been due for the longest time with `claim`, sets its due time to `until`, and
   * returns it. Of several nodes that claim at once, one gets the campaign.
   */
  readonly claim: (claim: string, now: number, until: number) => Effect.Effect<
    Option.Option<StoredCampaign>,
    CampaignError
  >
  /** Sets the due time to `until` if a campaign has this claim. */
  readonly renew: (claim: string, until: number) => Effect.Effect<void, CampaignError>
  /** Deletes the claim, and sets the due time. */
  readonly release: (claim: string, dueAt: number) => Effect.Effect<void, CampaignError>
  /**
   * Adds the counts of a batch, stores the cursor, deletes the claim and makes the campaign due at `now`, if a campaign
   * has this claim. After the last batch it is `done`, unless it is `cancelled`.
   */
  readonly commit: (claim: string, batch: Batch, now: number) => Effect.Effect<void, CampaignError>
  /** Sets the state to `to` if it is one of `from`. Returns `false` otherwise. */
  readonly transition: (
    id: string,
    from: ReadonlyArray<State>,
    to: State
  ) => Effect.Effect<boolean, CampaignError>
}

const isFilter = (u: unknown): u is Filter => Predicate.isRecord(u)

const Content = Schema.parseJson(Schema.Struct({
  default: Schema.Uint8ArrayFromBase64,
  locales: Schema.Record({ key: Schema.String, value: Schema.Uint8ArrayFromBase64 }),
  matching: Schema.declare(isFilter),
  batch: Schema.Int.pipe(Schema.between(1, 10_000)),
  options: Schema.Struct({
    ttl: Schema.optional(Schema.Duration),
    timeout: Schema.optional(Schema.Duration),
    urgency: Schema.optional(Urgency),
    topic: Schema.optional(Schema.String),
    padding: Schema.optional(Schema.NonNegativeInt)
  })
}))

type Content = typeof Content.Type

const encodeContent = Schema.encodeEither(Content)

const invalid = (detail: string) => new CampaignError({ reason: "InvalidCampaign", detail })

const invalidRow = new CampaignError({ reason: "InvalidRow", detail: "an entry of the storage is not a campaign" })

const notFound = new CampaignError({ reason: "NotFound", detail: "no campaign has this id" })

const bytesOf = (message: Message): Either.Either<Uint8Array, CampaignError> => {
  const bytes = toBytes(message)
  return Predicate.isUint8Array(bytes) && bytes.length <= maxBytes
    ? Either.right(bytes)
    : Either.left(invalid(`message must be a text, bytes or a payload of at most ${maxBytes} bytes`))
}

const durationOf = (name: string, input: Duration.DurationInput | undefined) =>
  input === undefined
    ? Either.right(undefined)
    : Either.fromOption(decodeDuration(input), () => invalid(`${name} must be a duration`))

const decodeLocale = Schema.decodeEither(Locale)

const encode = (
  message: CampaignMessage,
  { batch = 500, matching = {}, padding, timeout, topic, ttl, urgency }: StartOptions
): Either.Either<string, CampaignError> =>
  Either.gen(function*() {
    if (!isMessage(message) && !Predicate.isRecord(message)) {
      return yield* Either.left(invalid("message must be a message, or one for each locale"))
    }
    const { default: byDefault, ...others } = isMessage(message) ? { default: message } : message
    const locales: Record<string, Uint8Array> = {}
    for (const [name, message] of Object.entries<Message>(others)) {
      const locale = yield* Either.mapLeft(
        decodeLocale(name),
        () => invalid("message must have BCP 47 tags as names of its variants")
      )
      locales[locale] = yield* bytesOf(message)
    }
    const limit = yield* durationOf("timeout", timeout)
    if (limit !== undefined && !Duration.greaterThan(limit, Duration.zero)) {
      return yield* Either.left(invalid("timeout must be longer than zero"))
    }
    const content = {
      default: yield* bytesOf(byDefault),
      locales,
      matching,
      batch,
      options: { ttl: yield* durationOf("ttl", ttl), timeout: limit, urgency, topic, padding }
    }
    return yield* Either.mapLeft(encodeContent(content), () => invalid("batch or an option has an invalid value"))
  })

/** Returns the message for a locale: that of the tag, or of the tag without its last parts (RFC 4647, 3.4). */
const lookup = (content: Content, locale: string): Uint8Array =>
  content.locales[locale] ??
    (locale === "" ? content.default : lookup(content, locale.slice(0, Math.max(0, locale.lastIndexOf("-")))))

const toStatus = ({ content: _, cursor: __, ...campaign }: StoredCampaign): Effect.Effect<Status, CampaignError> =>
  Schema.is(State)(campaign.state)
    ? Effect.succeed({ ...campaign, state: campaign.state, startedAt: DateTime.unsafeMake(campaign.startedAt) })
    : invalidRow

const illegal = (rule: string): Effect.Effect<never> =>
  Effect.die(new Cause.IllegalArgumentException(`Campaign: ${rule}`))

const positive = (name: string, input: Duration.DurationInput): Effect.Effect<number> => {
  const millis = Option.match(decodeDuration(input), { onNone: () => 0, onSome: Duration.toMillis })
  return millis > 0 && Number.isFinite(millis)
    ? Effect.succeed(millis)
    : illegal(`${name} must be a duration, longer than zero and finite`)
}

// A batch that was sent is not sent again because the store failed after it.
const tryToStore = (effect: Effect.Effect<unknown, SubscriptionStoreError>): Effect.Effect<void> =>
  Effect.catchAllCause(
    Effect.asVoid(effect),
    (cause) => Effect.logWarning(`Campaign could not store the outcomes of a batch (${reasonOf(cause)}): continuing`)
  )

/** Time until a batch that failed as a whole is tried again, in milliseconds. */
const retryDelay = 5000

/**
 * Makes campaigns that are sent only while `run` runs. Dies with `IllegalArgumentException` if an option is out of its
 * range.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as Campaign from "effect-realtime/Campaign"
 *
 * // Another engine than SQL. A job sends the batches.
 * const job = (storage: Campaign.Storage) =>
 *   Effect.flatMap(Campaign.make(Effect.succeed(storage)), (campaigns) => campaigns.run)
 * ```
 */
export const make = <E, R>(
  storage: Effect.Effect<Storage, E, R>,
  options: Options = {}
): Effect.Effect<Campaign.Service, E, R | SubscriptionStore | WebPush> =>
  Effect.map(makeWithSignal(storage, options), ({ campaigns }) => campaigns)

const makeWithSignal = Effect.fnUntraced(function*<E, R>(
  makeStorage: Effect.Effect<Storage, E, R>,
  { concurrency = 4, lease = "30 seconds", pollInterval = "1 second" }: Options
) {
  const store = yield* SubscriptionStore
  const webPush = yield* WebPush
  if (!Number.isSafeInteger(concurrency) || concurrency < 1) {
    return yield* illegal("concurrency must be a whole number, one or more")
  }
  const leaseMillis = yield* positive("lease", lease)
  const pollMillis = yield* positive("pollInterval", pollInterval)
  const storage = yield* makeStorage
  const isDue = yield* Effect.makeLatch(false)

  const send = Effect.fnUntraced(function*(claim: string, { content, cursor }: StoredCampaign) {
    const campaign = yield* Effect.mapError(Schema.decode(Content)(content), () => invalidRow)
    const { devices, next } = yield* store.page(campaign.matching, Option.fromNullable(cursor), campaign.batch)
    const messageFor = Object.keys(campaign.locales).length > 0
      ? ({ locale = "" }: Device) => lookup(campaign, locale)
      : campaign.default
    const { outcomes } = yield* webPush.sendMany(devices, messageFor, campaign.options)
    const [failed, accepted] = Arr.partition(outcomes, ({ result }) => Either.isRight(result))
    const gone = Arr.filter(failed, ({ result }) => Either.isLeft(result) && result.left._tag === "WebPushGone")
    yield* tryToStore(store.prune(Arr.map(gone, ({ subscription }) => subscription)))
    yield* tryToStore(store.touch(Arr.map(accepted, ({ subscription }) => subscription)))
    const batch = {
      cursor: Option.getOrNull(next),
      accepted: accepted.length,
      gone: gone.length,
      failed: failed.length - gone.length
    }
    // Without its commit the batch is sent again.
    yield* Effect.flatMap(Clock.currentTimeMillis, (now) => storage.commit(claim, batch, now)).pipe(
      Effect.retry(Schedule.upTo(Schedule.spaced("1 second"), leaseMillis))
    )
  })

  const leaseEnd = Effect.map(Clock.currentTimeMillis, (now) => now + leaseMillis)

  const releaseAfter = (claim: string, delay: number) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => storage.release(claim, now + delay)).pipe(
      Effect.ignore,
      Effect.disconnect,
      Effect.interruptible,
      Effect.timeoutOption("1 second")
    )

  /** Sends one batch of the campaign that is due. Returns `false` if none is. */
  const sendBatch = Effect.gen(function*() {
    yield* isDue.close
    const claim = crypto.randomUUID()
    const now = yield* Clock.currentTimeMillis
    const claimed = yield* storage.claim(claim, now, now + leaseMillis)
    if (Option.isNone(claimed)) return false
    const renewal = Effect.flatMap(leaseEnd, (until) => Effect.ignore(storage.renew(claim, until))).pipe(
      Effect.delay(leaseMillis / 3),
      Effect.forever
    )
    yield* send(claim, claimed.value).pipe(
      Effect.raceFirst(renewal),
      Effect.onInterrupt(() => releaseAfter(claim, 0)),
      Effect.catchAllCause((cause) =>
        Effect.zipRight(
          Effect.logError(`Campaign could not send a batch (${reasonOf(cause)}): trying again in 5 seconds`),
          releaseAfter(claim, retryDelay)
        )
      ),
      Effect.withSpan("Campaign.sendBatch", { captureStackTrace: false })
    )
    return true
  })

  const run: Campaign.Service["run"] = Effect.iterate({ batches: 0, isMore: true }, {
    while: ({ isMore }) => isMore,
    body: ({ batches }) => Effect.map(sendBatch, (isMore) => ({ batches: isMore ? batches + 1 : batches, isMore }))
  }).pipe(
    Effect.map(({ batches }) => batches),
    annotateWith("Campaign")
  )

  const status = (id: string) =>
    Effect.flatMap(
      storage.find(id),
      Option.match({ onNone: () => Effect.fail(notFound), onSome: toStatus })
    )

  const campaigns = Campaign.of({
    start: Effect.fnUntraced(function*(message, options = {}) {
      const matching = yield* Effect.mapError(checkFilter(options.matching ?? {}), ({ detail }) => invalid(detail))
      const rule = ruleOfPadding(webPush, options.padding)
      if (rule !== undefined) return yield* invalid(rule)
      const content = yield* encode(message, { ...options, matching })
      const id = crypto.randomUUID()
      yield* storage.insert({
        id,
        content,
        state: "running",
        cursor: null,
        accepted: 0,
        gone: 0,
        failed: 0,
        startedAt: yield* Clock.currentTimeMillis
      })
      yield* isDue.open
      return id
    }),
    pause: (id) => storage.transition(id, ["running"], "paused"),
    resume: (id) => Effect.tap(storage.transition(id, ["paused"], "running"), isDue.open),
    cancel: (id) => storage.transition(id, ["running", "paused"], "cancelled"),
    status,
    progress: (id) =>
      Stream.repeatEffectWithSchedule(status(id), Schedule.spaced(pollMillis)).pipe(
        Stream.changesWith((a, b) =>
          a.state === b.state && a.accepted === b.accepted && a.gone === b.gone && a.failed === b.failed
        ),
        Stream.takeUntil(({ state }) => state === "done" || state === "cancelled")
      ),
    run
  })
  return { campaigns, concurrency, isDue, pollMillis }
})

/**
 * Provides campaigns over a storage, which are sent all the time. Any number of nodes may use one storage: each batch
 * of a campaign is sent by one of them.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as Campaign from "effect-realtime/Campaign"
 *
 * const campaignsOver = (storage: Campaign.Storage) => Campaign.layerWith(Effect.succeed(storage), { concurrency: 1 })
 * ```
 */
export const layerWith = <E, R>(
  storage: Effect.Effect<Storage, E, R>,
  options: Options = {}
): Layer.Layer<Campaign, E, Exclude<R, Scope.Scope> | SubscriptionStore | WebPush> =>
  Layer.scoped(
    Campaign,
    Effect.gen(function*() {
      const { campaigns, concurrency, isDue, pollMillis } = yield* makeWithSignal(storage, options)
      yield* campaigns.run.pipe(
        Effect.catchAllCause((cause) =>
          Effect.logError(`Campaign could not use the storage (${reasonOf(cause)}): trying again`)
        ),
        Effect.zipRight(Effect.timeoutOption(isDue.await, pollMillis)),
        annotateWith("Campaign"),
        Effect.forever,
        Effect.replicateEffect(concurrency, { concurrency: "unbounded", discard: true }),
        Effect.forkScoped
      )
      return campaigns
    })
  )

/**
 * Accepts a campaign and returns its id.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import * as Campaign from "effect-realtime/Campaign"
 *
 * const announce = Campaign.start(
 *   { default: "We are open again.", pt: "Estamos abertos de novo." },
 *   { matching: { attributes: { plan: "pro" } }, ttl: "1 day" }
 * )
 * ```
 */
export const start = (
  message: CampaignMessage,
  options?: StartOptions
): Effect.Effect<string, CampaignError, Campaign> =>
  Effect.flatMap(Campaign, (campaigns) => campaigns.start(message, options))

/**
 * Stops a running campaign after its current batch. Returns `false` if it was not running.
 *
 * @since 0.1.0
 * @category accessors
 */
export const pause = (id: string): Effect.Effect<boolean, CampaignError, Campaign> =>
  Effect.flatMap(Campaign, (campaigns) => campaigns.pause(id))

/**
 * Continues a paused campaign. Returns `false` if it was not paused.
 *
 * @since 0.1.0
 * @category accessors
 */
export const resume = (id: string): Effect.Effect<boolean, CampaignError, Campaign> =>
  Effect.flatMap(Campaign, (campaigns) => campaigns.resume(id))

/**
 * Ends a running or paused campaign after its current batch. Returns `false` if it had ended.
 *
 * @since 0.1.0
 * @category accessors
 */
export const cancel = (id: string): Effect.Effect<boolean, CampaignError, Campaign> =>
  Effect.flatMap(Campaign, (campaigns) => campaigns.cancel(id))

/**
 * Returns the state and the counts of a campaign.
 *
 * @since 0.1.0
 * @category accessors
 */
export const status = (id: string): Effect.Effect<Status, CampaignError, Campaign> =>
  Effect.flatMap(Campaign, (campaigns) => campaigns.status(id))

/**
 * Emits the status of a campaign, and each one that differs, from whichever node. Ends with the campaign.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import * as Campaign from "effect-realtime/Campaign"
 * import * as EventStream from "effect-realtime/EventStream"
 *
 * // A route that shows the progress on a page.
 * const progress = (id: string) =>
 *   EventStream.respondStream(Stream.map(Campaign.progress(id), (status) => ({ data: status })))
 * ```
 */
export const progress = (id: string): Stream.Stream<Status, CampaignError, Campaign> =>
  Stream.unwrap(Effect.map(Campaign, (campaigns) => campaigns.progress(id)))
