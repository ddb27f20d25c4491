import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

import type { EventLogError } from "../../EventLog.js"
import * as EventStream from "../../EventStream.js"
import { backoff } from "../../internal/backoff.js"
import { annotateWith } from "../../internal/logging.js"
import * as ServerSentEvent from "../../ServerSentEvent.js"
import * as Topic from "../../Topic.js"
import type { Channel } from "./hub.js"
import { type Start, untilAvailable } from "./replay.js"

interface Options {
  readonly lastEventId?: string | undefined
  readonly from?: Start<never>["from"]
}

type Subscribe = (
  channels: ReadonlyArray<Channel>,
  options: Options & EventStream.Options & { readonly strategy: "disconnect"; readonly attribution: "on" }
) => Effect.Effect<Opened, EventLogError, Scope.Scope>

/** The result of the admission of a client. `Ended`: all channels have ended, and the client has received the rest. */
export type Opened =
  | { readonly _tag: "Open"; readonly stream: EventStream.EventStream }
  | { readonly _tag: "Ended" }
  | { readonly _tag: "Refused" }

/** A message of a topic, a message of a plain channel, or a notice. */
type Message =
  | {
    readonly topic: string
    readonly params: Readonly<Record<string, string>>
    readonly channel: string
    readonly event: string
    readonly data: unknown
    readonly id: string
  }
  | {
    readonly topic?: undefined
    readonly channel: string
    readonly event: string
    readonly data: string
    readonly id: string
  }
  | Notice

type Notice =
  & { readonly topic?: undefined; readonly channel?: undefined; readonly id: string }
  & (
    | { readonly event: "resync"; readonly data: { readonly reason: string } }
    | { readonly event: "error"; readonly data: Topic.InvalidTopicEvent }
  )

/**
 * Makes the stream of the messages of some channels. It is a subscription like that of a client, which resumes when it
 * was disconnected because the consumer is slow. So it uses the same replay, and the same bounds.
 */
export const make = (
  subscribe: Subscribe,
  channels: ReadonlyArray<Channel>,
  options: Options,
  isOpen: () => boolean
): Stream.Stream<Message, EventLogError> =>
  Stream.unwrap(Effect.map(Schedule.driver(untilAdmitted), (pause) => {
    const topics = Array.from(
      new Set(channels.flatMap((channel) => typeof channel === "string" ? [] : [channel.topic]))
    )
    let { lastEventId } = options
    let hasBegun = false
    let hasEnded = false
    let hasProgress = false
    let hasWarned = false

    const warn = Effect.suspend(() => {
      if (hasWarned || !isOpen()) return Effect.void
      hasWarned = true
      return logWarning(
        "EventBroker refused a stream of this process, as the patterns of a node have 512 combinations of wildcard " +
          "positions at most: trying again"
      )
    })

    const frames = Stream.unwrapScoped(
      Effect.suspend(() =>
        subscribe(channels, {
          attribution: "on",
          strategy: "disconnect",
          retry: "off",
          writeTimeout: Duration.infinity,
          from: options.from,
          lastEventId
        })
      ).pipe(
        Effect.retry({ while: (error) => hasBegun && error.isRetryable && isOpen(), schedule: untilAvailable }),
        Effect.map((opened) => {
          hasBegun = true
          hasEnded = opened._tag === "Ended"
          return opened._tag === "Open"
            ? ServerSentEvent.decode(EventStream.toStream(opened.stream), { maxSize: Number.POSITIVE_INFINITY })
            : opened._tag === "Refused"
            ? Stream.execute(warn)
            : Stream.empty
        })
      )
    ).pipe(Stream.catchAll((error) => error._tag === "EventLogError" ? Stream.fail(error) : Stream.die(error)))

    /** The end of a subscription: of the channels, of the broker, or because the consumer is slow. */
    const next = Stream.suspend((): Stream.Stream<never, Option.Option<EventLogError>> => {
      if (hasEnded || !isOpen()) return Stream.fail(Option.none())
      const continued = hasProgress ? pause.reset : Effect.ignore(pause.next(undefined))
      hasProgress = false
      return Stream.execute(continued)
    })

    return frames.pipe(
      Stream.tap(({ event, id }) =>
        Effect.sync(() => {
          hasProgress = true
          lastEventId = id ?? lastEventId
          hasEnded = event === "end"
        })
      ),
      Stream.filterMapEffect(({ data, event = "message" }) =>
        typeof data !== "string" || event === "end"
          ? Option.none()
          : Option.some(toMessage(topics, event, data, lastEventId ?? ""))
      ),
      Stream.mapError(Option.some),
      Stream.concat(next),
      Stream.forever,
      Stream.catchAll(Option.match({ onNone: () => Stream.empty, onSome: (error) => Stream.fail(error) }))
    )
  }))

/** Makes the message of an event, whose first line of data is its channel. */
const toMessage = (
  topics: ReadonlyArray<Topic.Topic.Any>,
  event: string,
  text: string,
  id: string
): Effect.Effect<Message> => {
  if (event === "resync") return Effect.map(decodeReset(text), (data) => ({ event, data, id }))
  const lineFeed = text.indexOf("\n")
  const channel = text.slice(0, lineFeed)
  const data = text.slice(lineFeed + 1)
  const origins = topics.flatMap((topic) =>
    Option.match(Topic.params(topic, channel), { onNone: () => [], onSome: (params) => [{ topic, params }] })
  )
  const [origin = origins[0]] = origins.filter(({ topic }) => Object.hasOwn(topic.events, event))
  if (origin === undefined) return Effect.succeed({ channel, event, data, id })
  const { params, topic } = origin
  return Topic.decode(topic, { event, data }).pipe(
    Effect.map((message): Message => ({ ...message, topic: topic.path, params, channel, id })),
    Effect.catchAll((error) => Effect.succeed<Message>({ event: "error", data: error, id }))
  )
}

const decodeReset = (text: string) =>
  Effect.orDie(Schema.decode(Schema.parseJson(Schema.Struct({ reason: Schema.String })))(text))

const logWarning = (message: string) => annotateWith("EventBroker")(Effect.logWarning(message))

/** The delays between attempts to open a stream that the broker has refused. */
const untilAdmitted = backoff("1 second", "30 seconds")
