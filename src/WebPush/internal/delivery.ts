/**
 * The delivery of one message to one subscription: checks, token, encryption, request, response and counter.
 */
import type * as Headers from "@effect/platform/Headers"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as MetricLabel from "effect/MetricLabel"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"

import { readText } from "../../internal/body.js"
import * as Metrics from "../../Metrics.js"
import type * as VapidKeys from "../../VapidKeys.js"
import type { WebPushCrypto } from "../../WebPushCrypto.js"
import { WebPushFailure, WebPushGone } from "../../WebPushError.js"
import { maxBytes } from "../../WebPushPayload.js"
import type { WebPushSubscription } from "../../WebPushSubscription.js"
import type { Limit } from "./deadline.js"
import type * as EndpointPolicy from "./endpoint.js"
import * as PushResponse from "./response.js"
import * as VapidToken from "./vapidToken.js"

/** The largest part of a response body that is read, in bytes. */
export const maxResponseBytes = 8192

/** A message with the options of its delivery, the same for all its subscriptions. */
export interface Prepared {
  readonly bytes: Uint8Array
  readonly padding: number
  readonly headers: Readonly<Record<string, string>>
}

interface Answer {
  readonly status: number
  readonly headers: Headers.Headers
  /** `undefined` if it is too long for a response that accepts the message. */
  readonly body: string | undefined
}

const read = (
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<Answer, HttpClientError.ResponseError> => {
  // Both are computed at each access.
  const { headers, status } = response
  return status === 204 || headers["content-length"] === "0"
    ? Effect.succeed({ status, headers, body: "" })
    : readText(response.stream, maxResponseBytes).pipe(
      Effect.map(({ isWhole, text }) => isWhole || status >= 300 ? text : undefined),
      Effect.catchIf((error) => error.reason === "EmptyBody", () => Effect.succeed("")),
      Effect.map((body) => ({ status, headers, body }))
    )
}

const errorCode = (error: unknown): string | undefined => {
  if (!Predicate.isRecord(error)) return undefined
  return Predicate.isString(error.code) && /^[A-Z][A-Z0-9_]{1,63}$/.test(error.code)
    ? error.code
    : errorCode(error.cause)
}

// A socket names the system call that failed: these come before anything is sent.
const isConnecting = (error: unknown): boolean =>
  Predicate.isRecord(error) &&
  (Predicate.isString(error.syscall)
    ? /^(connect|getaddrinfo|query\w*)$/.test(error.syscall)
    : isConnecting(error.cause))

const maxTemplates = 1024

/** The request without its URL and body, once for each message and token. */
const makeTemplates = () => {
  const known = new WeakMap<Prepared["headers"], Map<string, HttpClientRequest.HttpClientRequest>>()
  return ({ headers }: Prepared, { vendor }: EndpointPolicy.Endpoint, authorization: string) => {
    const templates = known.get(headers) ?? new Map<string, HttpClientRequest.HttpClientRequest>()
    const template = templates.get(authorization)
    if (template !== undefined) return template
    const made = HttpClientRequest.post("", {
      headers: {
        ...headers,
        // WNS accepts a TTL of 0 only with a header that says that nothing is to be stored.
        ...(vendor === "wns" && headers.ttl === "0" ? { "x-wns-cache-policy": "no-cache" } : undefined),
        authorization
      }
    })
    // Subscribers choose the origin where a host is allowed by its suffix.
    if (templates.size >= maxTemplates) templates.clear()
    known.set(headers, templates.set(authorization, made))
    return made
  }
}

/** The outcome of one message. */
export type Result = Either.Either<{ readonly status: number }, WebPushGone | WebPushFailure>

const outcomeOf = (result: Result): string =>
  Either.isRight(result) ? "Accepted" : result.left._tag === "WebPushGone" ? "Gone" : result.left.reason

/**
 * Counts the messages of a service and an outcome. The labels are the same array at each use, by which the metric finds
 * its counter: `Metric.tagged` costs as much as a fiber.
 */
const makeCount = () => {
  type Labels = ReadonlyArray<MetricLabel.MetricLabel>
  const known = new WeakMap<Labels, Map<string, Labels>>()
  return (endpoint: EndpointPolicy.Endpoint | undefined, result: Result, common: Labels): void => {
    const service = endpoint?.vendor ?? "other"
    const outcome = outcomeOf(result)
    const name = `${service} ${outcome}`
    const ofCommon = known.get(common) ?? new Map<string, Labels>()
    const labels = ofCommon.get(name) ??
      [...common, MetricLabel.make("service", service), MetricLabel.make("outcome", outcome)]
    known.set(common, ofCommon.set(name, labels))
    Metrics.pushMessages.unsafeUpdate(1, labels)
  }
}

/** The delivery of one message to one subscription. */
export type Deliver = (
  subscription: WebPushSubscription,
  message: Prepared,
  limit: Limit<WebPushFailure>
) => Effect.Effect<Result>

/** Builds the delivery of one message to one subscription: checks, token, encryption, request and response. */
export const make = Effect.fnUntraced(function*<Transmission>({ crypto, pairs, policy, subject, transmission: tag }: {
  readonly crypto: WebPushCrypto.Service
  readonly policy: (endpoint: string) => EndpointPolicy.Endpoint | undefined
  readonly pairs: Arr.NonEmptyReadonlyArray<VapidKeys.VapidKeys>
  readonly subject: string
  readonly transmission: Context.Tag<Transmission, { sent: number | undefined }>
}) {
  const client = yield* HttpClient.HttpClient
  const { publicKey } = pairs[0]
  const authorizations = new Map(
    yield* Effect.forEach(pairs, (pair) =>
      Effect.map(
        VapidToken.makeAuthorization(crypto, pair, subject),
        (authorize) => [pair.publicKey, authorize] as const
      ))
  )
  const template = makeTemplates()

  // No generator, and few effects: this runs once for each message of a crowd.
  const deliver: Deliver = (subscription, message, limit) =>
    Effect.withFiberRuntime((fiber) => {
      const failure = (
        reason: WebPushFailure["reason"],
        facts?: Partial<Pick<WebPushFailure, "status" | "retryAfter" | "detail" | "neverSent">>
      ) => new WebPushFailure({ reason, endpointId: subscription.endpointId, ...facts })
      const fail = (...args: Parameters<typeof failure>) => Effect.succeed(Either.left(failure(...args)))

      if (message.bytes.length > maxBytes) return fail("PayloadTooLarge")
      const endpoint = policy(subscription.endpoint)
      if (endpoint === undefined) return fail("Blocked")
      const authorize = authorizations.get(subscription.applicationServerKey ?? publicKey)
      if (authorize === undefined) return fail("KeyMismatch")

      const transmission = Context.unsafeGet(fiber.currentContext, tag)
      const isNeverSent = () => transmission.sent === 0 || undefined
      let endLimit = () => {}

      const interpret = ({ body, headers, status }: Answer, now: number): Result => {
        if (body === undefined) return Either.left(failure("Transport", { detail: "RESPONSE_TOO_LARGE" }))
        const meaning = PushResponse.meaning({ vendor: endpoint.vendor, status, headers, body }, now)
        switch (meaning._tag) {
          case "Accepted":
            return Either.right({ status })
          case "Gone":
            return Either.left(
              new WebPushGone({ endpointId: subscription.endpointId, status: meaning.status })
            )
          case "Failed":
            return Either.left(
              failure(meaning.reason, { status, retryAfter: meaning.retryAfter, detail: meaning.detail })
            )
        }
      }

      const send = (authorization: string, body: Uint8Array) => {
        endLimit = limit.begin(fiber, () => failure("Timeout", { neverSent: isNeverSent() }))
        const request = HttpClientRequest.setUrl(template(message, endpoint, authorization), subscription.endpoint)
        return Effect.flatMap(client.execute(HttpClientRequest.setBody(request, HttpBody.uint8Array(body))), read)
      }

      const clock = Context.get(fiber.currentDefaultServices, Clock.Clock)
      const sent = Effect.flatMap(
        authorize(endpoint.origin, clock.unsafeCurrentTimeMillis()),
        (authorization) =>
          // Before the limit begins, which does not include the encryption of other messages.
          Effect.flatMap(
            crypto.encrypt(message.bytes, subscription.keys, message.padding),
            (body) => send(authorization, body)
          )
      )
      return Effect.matchCauseEffect(sent, {
        onSuccess: (answer) => {
          endLimit()
          return Effect.succeed(interpret(answer, clock.unsafeCurrentTimeMillis()))
        },
        onFailure: (cause) => {
          endLimit()
          // A defect of the client ends neither the other messages nor the span, since it may quote the endpoint.
          if (Option.isSome(Cause.dieOption(cause))) return fail("Transport", { detail: "DEFECT" })
          return Either.match(Cause.failureOrCause(cause), {
            onRight: Effect.failCause,
            onLeft: (error) => {
              if (error._tag === "WebPushCryptoError") return fail(error.reason)
              const detail = errorCode(error.cause)
              const neverSent = isNeverSent() ?? (isConnecting(error.cause) || undefined)
              return fail(detail === "ERR_BLOCKED_ADDRESS" ? "Blocked" : "Transport", { detail, neverSent })
            }
          })
        }
      })
    })

  return {
    count: makeCount(),
    deliver,
    /** Adds the services that each message has for itself. */
    provide: (context: Context.Context<never>): Context.Context<never> => Context.add(context, tag, { sent: undefined })
  }
})
