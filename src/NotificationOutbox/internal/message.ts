import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

import { decode as decodeDuration } from "../../internal/duration.js"
import type { NotifyContent, NotifyOptions } from "../../Notifier.js"
import * as ServerSentEvent from "../../ServerSentEvent.js"
import type { Message as PushMessage } from "../../WebPush.js"
import { isMessage, Urgency } from "../../WebPush.js"
import * as WebPushPayload from "../../WebPushPayload.js"

/** A template, and the data from which it makes the push of each device, as JSON. */
const Templated = Schema.Struct({ template: Schema.String, data: Schema.String })

export type Templated = typeof Templated.Type

/** A notification and its options, as JSON. */
export const Message = Schema.parseJson(Schema.Struct({
  event: Schema.Struct({
    event: Schema.optional(Schema.String),
    data: Schema.optional(Schema.String),
    retry: Schema.optional(Schema.Number),
    comment: Schema.optional(Schema.String)
  }),
  push: Schema.Union(Schema.Uint8ArrayFromBase64, Templated),
  options: Schema.Struct({
    policy: Schema.optional(Schema.Literal("closed", "always", "unconnected", "unacknowledged")),
    delay: Schema.optional(Schema.Duration),
    exclude: Schema.optional(Schema.Array(Schema.String)),
    ttl: Schema.optional(Schema.Duration),
    urgency: Schema.optional(Urgency),
    topic: Schema.optional(Schema.String),
    timeout: Schema.optional(Schema.Duration),
    padding: Schema.optional(Schema.NonNegativeInt)
  })
}))

const encodeMessage = Schema.encodeEither(Message)

// A byte order mark is data.
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })

const textOf = (data: unknown): string | undefined =>
  data === undefined || typeof data === "string"
    ? data
    : data instanceof Uint8Array
    ? utf8.decode(data)
    : JSON.stringify(data)

const duration = (
  name: string,
  input: Duration.DurationInput | undefined
): Either.Either<Duration.Duration | undefined, string> =>
  input === undefined
    ? Either.right(undefined)
    : Either.fromOption(decodeDuration(input), () => `${name} must be a duration`)

// A push service does not store a message with a ttl of zero, but the outbox needs a moment.
const shortestTtl = 10_000

/** Returns the time for which a notification with this `ttl` may be sent, in milliseconds. */
export const lifetime = (ttl: Duration.Duration): number => Duration.toMillis(ttl) || shortestTtl

/** Encodes a notification for the storage, or returns the rule that it breaks, with the name of the field. */
export const encode = (
  { event, push }: NotifyContent<PushMessage | Templated>,
  { delay, timeout, ttl, ...options }: NotifyOptions
): Either.Either<string, ServerSentEvent.InvalidServerSentEvent | string> =>
  Either.gen(function*() {
    yield* ServerSentEvent.make(event)
    if (event.id !== undefined) {
      return yield* Either.left(new ServerSentEvent.InvalidServerSentEvent({ field: "id", reason: "Assigned" }))
    }
    const stored = isMessage(push) ? WebPushPayload.toBytes(push) : push
    if (Predicate.isUint8Array(stored) && stored.length > WebPushPayload.maxBytes) {
      return yield* Either.left(`push must be at most ${WebPushPayload.maxBytes} bytes long`)
    }
    const wait = yield* duration("delay", delay)
    if (wait !== undefined && !Duration.isFinite(wait)) return yield* Either.left("delay must be finite")
    const limit = yield* duration("timeout", timeout)
    if (limit !== undefined && Duration.toMillis(limit) === 0) {
      return yield* Either.left("timeout must be longer than zero")
    }
    const life = yield* duration("ttl", ttl)
    if (wait !== undefined && life !== undefined && Duration.toMillis(wait) >= lifetime(life)) {
      return yield* Either.left("delay must be shorter than ttl")
    }
    const message = {
      event: { ...event, data: textOf(event.data) },
      push: stored,
      options: { ...options, delay: wait, timeout: limit, ttl: life }
    }
    return yield* Either.mapLeft(encodeMessage(message), (error) => {
      const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
      return `${issue?.path.at(-1)?.toString() ?? "the notification"} has a value that is not allowed`
    })
  })
