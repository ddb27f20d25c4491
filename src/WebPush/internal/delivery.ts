/**
 * The delivery of one message to one subscription: checks, token, encryption, request, response and counter.
 */
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import type * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Predicate from "effect/Predicate"

import { readText } from "../../internal/body.js"
import * as Metrics from "../../Metrics.js"
import type * as VapidKeys from "../../VapidKeys.js"
import type { WebPushCrypto } from "../../WebPushCrypto.js"
import { WebPushFailure, WebPushGone } from "../../WebPushError.js"
import { maxBytes } from "../../WebPushPayload.js"
import type { WebPushSubscription } from "../../WebPushSubscription.js"
import type * as EndpointPolicy from "./endpoint.js"
import * as PushResponse from "./response.js"
import * as VapidToken from "./vapidToken.js"

/** The largest part of a response body that is read, in bytes. */
export const maxResponseBytes = 8192

/** A message with the options of its delivery, the same for all its subscriptions. */
export interface Prepared {
  readonly bytes: Uint8Array
  readonly padding: number
  readonly timeout: Duration.Duration
  readonly headers: Readonly<Record<string, string>>
}

/** Reads the body of a response. Returns `undefined` if it is too long for a response that accepts the message. */
const readBody = (
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<string | undefined, HttpClientError.ResponseError> =>
  response.status === 204 || response.headers["content-length"] === "0"
    ? Effect.succeed("")
    : readText(response.stream, maxResponseBytes).pipe(
      Effect.map(({ isWhole, text }) => isWhole || response.status >= 300 ? text : undefined),
      Effect.catchIf((error) => error.reason === "EmptyBody", () => Effect.succeed(""))
    )

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

/** Returns a function from labels to their counter. There are at most 60, and making one costs more than counting. */
const makeCounters = () => {
  const counters = new Map<string, Metric.Metric.Counter<number>>()
  return (service: EndpointPolicy.Vendor, outcome: string) => {
    const name = `${service} ${outcome}`
    const known = counters.get(name)
    if (known !== undefined) return known
    const counter = Metrics.pushMessages.pipe(Metric.tagged("service", service), Metric.tagged("outcome", outcome))
    counters.set(name, counter)
    return counter
  }
}

/** The delivery of one message to one subscription. */
export type Deliver = (
  subscription: WebPushSubscription,
  message: Prepared
) => Effect.Effect<{ readonly status: number }, WebPushGone | WebPushFailure>

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
  const counterOf = makeCounters()

  const attempt = Effect.fnUntraced(function*(
    subscription: WebPushSubscription,
    message: Prepared,
    endpoint: EndpointPolicy.Endpoint | undefined
  ) {
    const failure = (
      reason: WebPushFailure["reason"],
      facts?: Partial<Pick<WebPushFailure, "status" | "retryAfter" | "detail" | "neverSent">>
    ) => new WebPushFailure({ reason, endpointId: subscription.endpointId, ...facts })

    if (message.bytes.length > maxBytes) return yield* failure("PayloadTooLarge")
    if (endpoint === undefined) return yield* failure("Blocked")
    const authorize = authorizations.get(subscription.applicationServerKey ?? publicKey)
    if (authorize === undefined) return yield* failure("KeyMismatch")

    const authorization = yield* authorize(endpoint.origin)
    // Before the timeout begins, which does not include the encryption of other messages.
    const body = yield* Effect.mapError(
      crypto.encrypt(message.bytes, subscription.keys, message.padding),
      ({ reason }) => failure(reason)
    )
    const transmission: { sent: number | undefined } = { sent: undefined }
    return yield* Effect.gen(function*() {
      const response = yield* client.execute(HttpClientRequest.post(subscription.endpoint, {
        headers: {
          ...message.headers,
          // WNS accepts a TTL of 0 only with a header that says that nothing is to be stored.
          ...(endpoint.vendor === "wns" && message.headers.ttl === "0"
            ? { "x-wns-cache-policy": "no-cache" }
            : undefined),
          authorization
        },
        body: HttpBody.uint8Array(body)
      })).pipe(Effect.provideService(tag, transmission))
      const text = yield* readBody(response)
      if (text === undefined) return yield* failure("Transport", { detail: "RESPONSE_TOO_LARGE" })
      const { headers, status } = response
      const meaning = PushResponse.meaning(
        { vendor: endpoint.vendor, status, headers, body: text },
        yield* Clock.currentTimeMillis
      )
      switch (meaning._tag) {
        case "Accepted":
          return { status }
        case "Gone":
          return yield* new WebPushGone({ endpointId: subscription.endpointId, status: meaning.status })
        case "Failed":
          return yield* failure(meaning.reason, { status, retryAfter: meaning.retryAfter, detail: meaning.detail })
      }
    }).pipe(
      Effect.catchTag("RequestError", "ResponseError", ({ cause }) => {
        const detail = errorCode(cause)
        const neverSent = transmission.sent === 0 || isConnecting(cause) || undefined
        return failure(detail === "ERR_BLOCKED_ADDRESS" ? "Blocked" : "Transport", { detail, neverSent })
      }),
      Effect.timeoutFail({
        duration: message.timeout,
        onTimeout: () => failure("Timeout", { neverSent: transmission.sent === 0 || undefined })
      })
    )
  })

  const deliver: Deliver = (subscription, message) =>
    Effect.suspend(() => {
      const endpoint = policy(subscription.endpoint)
      const service = endpoint?.vendor ?? "other"
      const count = (outcome: string) => Metric.increment(counterOf(service, outcome))
      return attempt(subscription, message, endpoint).pipe(
        // A defect of the client ends neither the other messages nor the span, since it may quote the endpoint.
        Effect.catchAllDefect(() =>
          new WebPushFailure({ reason: "Transport", endpointId: subscription.endpointId, detail: "DEFECT" })
        ),
        Effect.tapBoth({
          onSuccess: () => count("Accepted"),
          onFailure: (error) => count(error._tag === "WebPushGone" ? "Gone" : error.reason)
        }),
        Effect.withSpan("WebPush.send", {
          kind: "client",
          captureStackTrace: false,
          attributes: endpoint === undefined ? { service } : { service, "server.address": endpoint.host }
        })
      )
    })
  return deliver
})
