/**
 * The routes with which a page subscribes its device, as an `HttpApiGroup` and for an `HttpRouter`:
 *
 * - `GET /vapid-public-key` answers 200 with `{ "publicKey": … }`. It needs no owner.
 * - `POST /subscribe` accepts the output of `PushSubscription.toJSON()`, with `applicationServerKey` if the page
 *   knows it, and with the `locale` of the messages if the page has one (BCP 47). It answers 201.
 * - `POST /resubscribe` accepts `{ "oldEndpoint": …, "subscription": … }`, where `oldEndpoint` is optional, and
 *   answers 201. With a `null` subscription, which has ended without a replacement, it removes the old one and
 *   answers 200.
 * - `POST /unsubscribe` accepts `{ "endpoint": … }` and answers 200, also for an unknown device.
 *
 * A subscription that only the browser can renew is answered 410 with `RenewalRequired`: a push service reported it
 * as gone, or this server does not have its key. The page then unsubscribes, subscribes with the `publicKey` of the
 * response, and posts the new subscription. `PushClient.register` does so.
 *
 * A body must have the content type JSON, which prevents another site from sending it with the cookies of its
 * visitor. It must arrive within 10 seconds.
 *
 * @since 0.1.0
 */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import { Conflict, HttpApiDecodeError, RequestTimeout, ServiceUnavailable } from "@effect/platform/HttpApiError"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import type * as HttpApiMiddleware from "@effect/platform/HttpApiMiddleware"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"

import { readText } from "./internal/body.js"
import { annotateWith } from "./internal/logging.js"
import type { SubscriptionStoreError } from "./SubscriptionStore.js"
import { Locale, SubscriptionStore } from "./SubscriptionStore.js"
import * as WebPush from "./WebPush.js"
import { WebPushSubscription } from "./WebPushSubscription.js"

/**
 * The owner of the devices of a request, which the authentication of the application provides.
 *
 * @since 0.1.0
 * @category tags
 */
export class Owner extends Context.Tag("effect-realtime/WebPushApi/Owner")<Owner, string>() {}

/**
 * The body is longer than 16 KiB.
 *
 * @since 0.1.0
 * @category errors
 */
export class BodyTooLarge extends HttpApiSchema.EmptyError<BodyTooLarge>()({ tag: "BodyTooLarge", status: 413 }) {}

/**
 * The content type of the body is not JSON.
 *
 * @since 0.1.0
 * @category errors
 */
export class UnsupportedMediaType extends HttpApiSchema.EmptyError<UnsupportedMediaType>()({
  tag: "UnsupportedMediaType",
  status: 415
}) {}

/**
 * A subscription that the browser must replace by a new one, with the key of the response:
 *
 * - `Gone`: a push service reported the endpoint as gone.
 * - `KeyMismatch`: it was made with a VAPID key that this server does not have, so that no message to it would be
 *   accepted.
 *
 * @since 0.1.0
 * @category errors
 */
export class RenewalRequired extends Schema.TaggedError<RenewalRequired>("effect-realtime/RenewalRequired")(
  "RenewalRequired",
  { reason: Schema.Literal("Gone", "KeyMismatch"), publicKey: Schema.String },
  HttpApiSchema.annotations({ status: 410 })
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `The browser must make a new subscription (${this.reason})`
  }

  /**
   * Returns `false`: only the browser can make a new subscription.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
}

const PublicKey = Schema.Struct({ publicKey: Schema.String })
const Subscribed = Schema.Struct({ endpointId: Schema.String })

/**
 * The subscription that a page posts, with the language of the messages for the device.
 *
 * @since 0.1.0
 * @category schemas
 */
export class Subscription extends WebPushSubscription.extend<Subscription>("effect-realtime/WebPushApi/Subscription")({
  locale: Schema.optionalWith(Locale, { exact: true })
}) {}

// Not every browser passes the replaced subscription to its service worker.
const Resubscription = Schema.Struct({
  oldEndpoint: Schema.optionalWith(Schema.String, { exact: true }),
  // `null` if the user has withdrawn the permission.
  subscription: Schema.NullOr(Subscription)
})
const Unsubscription = Schema.Struct({ endpoint: Schema.String })
const Unsubscribed = Schema.Struct({})

const publicKeyEndpoint = HttpApiEndpoint.get("publicKey", "/vapid-public-key").addSuccess(PublicKey)

const subscribeEndpoint = HttpApiEndpoint.post("subscribe", "/subscribe")
  .setPayload(Subscription)
  .addSuccess(Subscribed, { status: 201 })
  .addError(HttpApiDecodeError).addError(RequestTimeout).addError(Conflict).addError(RenewalRequired)
  .addError(BodyTooLarge).addError(UnsupportedMediaType).addError(ServiceUnavailable)

const resubscribeEndpoint = HttpApiEndpoint.post("resubscribe", "/resubscribe")
  .setPayload(Resubscription)
  .addSuccess(Subscribed, { status: 201 })
  .addSuccess(Unsubscribed)
  .addError(HttpApiDecodeError).addError(RequestTimeout).addError(Conflict).addError(RenewalRequired)
  .addError(BodyTooLarge).addError(UnsupportedMediaType).addError(ServiceUnavailable)

const unsubscribeEndpoint = HttpApiEndpoint.post("unsubscribe", "/unsubscribe")
  .setPayload(Unsubscription)
  .addSuccess(Unsubscribed)
  .addError(HttpApiDecodeError).addError(RequestTimeout).addError(BodyTooLarge)
  .addError(UnsupportedMediaType).addError(ServiceUnavailable)

/**
 * Makes the group of the routes for an `HttpApi`, with the name `webPush`. The middleware of the application provides
 * the `Owner`, and fails with 401 if there is none. `layerHttpApi` implements the group.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { HttpApi, HttpApiError, HttpApiMiddleware, HttpApiSecurity } from "@effect/platform"
 * import * as WebPushApi from "effect-realtime/WebPushApi"
 *
 * class Authentication extends HttpApiMiddleware.Tag<Authentication>()("Authentication", {
 *   provides: WebPushApi.Owner,
 *   failure: HttpApiError.Unauthorized,
 *   security: { session: HttpApiSecurity.apiKey({ in: "cookie", key: "session" }) }
 * }) {}
 *
 * class Api extends HttpApi.make("app").add(WebPushApi.group(Authentication).prefix("/push")) {}
 * ```
 */
export const group = <I extends HttpApiMiddleware.HttpApiMiddleware.AnyId, S>(authentication: Context.Tag<I, S>) =>
  HttpApiGroup.make("webPush")
    .add(publicKeyEndpoint)
    .add(subscribeEndpoint.middleware(authentication))
    .add(resubscribeEndpoint.middleware(authentication))
    .add(unsubscribeEndpoint.middleware(authentication))

const maxBodyBytes = 16 * 1024
const maxBodyTime = "10 seconds"

// A client reads the response only after it has sent its body. A longer body is cut off.
const maxDiscardedBytes = 1024 * 1024 - maxBodyBytes

const invalidBody = (issues: HttpApiDecodeError["issues"]) =>
  new HttpApiDecodeError({ issues, message: "The body does not conform to the route" })

const issue = (path: ReadonlyArray<string>, message: string): HttpApiDecodeError["issues"][number] => ({
  _tag: "Type",
  path,
  message
})

const readBody = <A, I>(schema: Schema.Schema<A, I>) => {
  const decode = Schema.decodeUnknown(schema, { errors: "all" })
  return Effect.gen(function*() {
    const { headers, stream } = yield* HttpServerRequest.HttpServerRequest
    if (!/^application\/json *(;|$)/i.test(headers["content-type"] ?? "")) return yield* new UnsupportedMediaType()
    if (Number(headers["content-length"] ?? 0) > maxBodyBytes) return yield* new BodyTooLarge()
    const { isWhole, text } = yield* readText(stream, maxBodyBytes, maxDiscardedBytes).pipe(
      Effect.mapError(() => invalidBody([issue([], "must arrive completely")])),
      Effect.timeoutFail({ duration: maxBodyTime, onTimeout: () => new RequestTimeout() })
    )
    if (!isWhole) return yield* new BodyTooLarge()
    const body = yield* Effect.try({
      try: (): unknown => JSON.parse(text),
      catch: () => invalidBody([issue([], "must be JSON")])
    })
    return yield* Effect.catchTag(
      decode(body),
      "ParseError",
      (error) =>
        Effect.flatMap(ParseResult.ArrayFormatter.formatError(error), (issues) =>
          // The default messages quote the value at their end.
          invalidBody(issues.map((issue) => ({ ...issue, message: issue.message.replace(/, actual [^]*$/, "") }))))
    )
  })
}

const refused = (error: SubscriptionStoreError): Effect.Effect<never, HttpApiDecodeError | ServiceUnavailable> =>
  error.reason === "InvalidInput"
    ? invalidBody([issue([], error.detail)])
    : Effect.logError("WebPushApi could not use the subscription store: answering 503", error).pipe(
      annotateWith("WebPushApi"),
      Effect.zipRight(new ServiceUnavailable())
    )

const subscribed = Effect.fnUntraced(
  function*(subscription: Subscription, path: ReadonlyArray<string>, replaces?: string) {
    const { isAllowed, publicKey, publicKeys } = yield* WebPush.WebPush
    if (!isAllowed(subscription.endpoint)) {
      return yield* invalidBody([issue(path, "must belong to a push service that this server may send to")])
    }
    const { headers } = yield* HttpServerRequest.HttpServerRequest
    const owner = yield* Owner
    const store = yield* SubscriptionStore
    return yield* Effect.gen(function*() {
      const devices = yield* store.forOwner(owner)
      const keyOf = (endpoint: string | undefined) =>
        devices.find((device) => device.endpoint === endpoint)?.applicationServerKey
      // A browser that renews a subscription itself does so with the key of the old one.
      const fallback = keyOf(replaces) ?? publicKey
      if (!publicKeys.includes(subscription.applicationServerKey ?? keyOf(subscription.endpoint) ?? fallback)) {
        return yield* new RenewalRequired({ reason: "KeyMismatch", publicKey })
      }
      yield* store.upsert(owner, subscription, {
        replaces,
        locale: subscription.locale,
        userAgent: headers["user-agent"]?.slice(0, 512),
        applicationServerKey: fallback
      })
      return HttpServerResponse.unsafeJson({ endpointId: subscription.endpointId }, { status: 201 })
    }).pipe(Effect.catchTag(
      "SubscriptionStoreError",
      (error): Effect.Effect<never, HttpApiDecodeError | Conflict | RenewalRequired | ServiceUnavailable> => {
        if (error.reason === "EndpointTaken") return new Conflict()
        return error.reason === "Gone" ? new RenewalRequired({ reason: "Gone", publicKey }) : refused(error)
      }
    ))
  }
)

const unsubscribed = Effect.fnUntraced(function*(endpoint: string | undefined) {
  const store = yield* SubscriptionStore
  if (endpoint !== undefined) yield* Effect.catchAll(store.remove(yield* Owner, endpoint), refused)
  return HttpServerResponse.unsafeJson({})
})

const publicKey = Effect.map(
  WebPush.WebPush,
  ({ publicKey }) =>
    HttpServerResponse.unsafeJson({ publicKey }, { headers: { "cache-control": "public, max-age=300" } })
)

const subscribe = Effect.flatMap(
  readBody(Subscription),
  (subscription) => subscribed(subscription, ["endpoint"])
)

const resubscribe = Effect.flatMap(
  readBody(Resubscription),
  ({ oldEndpoint, subscription }) =>
    subscription === null
      ? unsubscribed(oldEndpoint)
      : subscribed(subscription, ["subscription", "endpoint"], oldEndpoint)
)

const unsubscribe = Effect.flatMap(readBody(Unsubscription), ({ endpoint }) => unsubscribed(endpoint))

type Group<I extends HttpApiMiddleware.HttpApiMiddleware.AnyId, E, R> = HttpApiGroup.HttpApiGroup<
  "webPush",
  HttpApiGroup.HttpApiGroup.Endpoints<ReturnType<typeof group<I, unknown>>>,
  E,
  R
>

const isGroup = <
  Groups extends HttpApiGroup.HttpApiGroup.Any,
  I extends HttpApiMiddleware.HttpApiMiddleware.AnyId,
  E,
  R
>(group: Groups | Group<I, E, R> | undefined): group is Group<I, E, R> => group?.identifier === "webPush"

/**
 * Implements the group of an `HttpApi` that `group` has made, with the prefixes, middlewares and annotations that the
 * application has added to it. Throws `IllegalArgumentException` if the `HttpApi` has no such group.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { HttpApi, HttpApiBuilder, HttpApiError, HttpApiMiddleware, HttpApiSecurity } from "@effect/platform"
 * import { Effect, Layer, Redacted } from "effect"
 * import * as WebPushApi from "effect-realtime/WebPushApi"
 *
 * class Authentication extends HttpApiMiddleware.Tag<Authentication>()("Authentication", {
 *   provides: WebPushApi.Owner,
 *   failure: HttpApiError.Unauthorized,
 *   security: { session: HttpApiSecurity.apiKey({ in: "cookie", key: "session" }) }
 * }) {}
 *
 * class Api extends HttpApi.make("app").add(WebPushApi.group(Authentication).prefix("/push")) {}
 *
 * // The text is empty for a request without the cookie.
 * const AuthenticationLive = Layer.succeed(Authentication, {
 *   session: (cookie) =>
 *     Redacted.value(cookie) === "session-of-anna" ? Effect.succeed("anna") : new HttpApiError.Unauthorized()
 * })
 *
 * // Requires a `SubscriptionStore` and `WebPush`.
 * const ApiLive = HttpApiBuilder.api(Api).pipe(
 *   Layer.provide(WebPushApi.layerHttpApi(Api)),
 *   Layer.provide(AuthenticationLive)
 * )
 * ```
 */
export const layerHttpApi = <
  ApiId extends string,
  Groups extends HttpApiGroup.HttpApiGroup.Any,
  I extends HttpApiMiddleware.HttpApiMiddleware.AnyId,
  GroupError,
  GroupR,
  E,
  R
>(api: HttpApi.HttpApi<ApiId, Groups | Group<I, GroupError, GroupR>, E, R>) => {
  const group = api.groups.webPush
  if (!isGroup(group)) {
    throw new Cause.IllegalArgumentException("WebPushApi: the HttpApi must have the group of WebPushApi.group")
  }
  // An API of this group alone: the type of the other groups is unknown here, and they might have endpoints to handle.
  return HttpApiBuilder.group(HttpApi.make(api.identifier).add(group), "webPush", (handlers) =>
    handlers
      .handleRaw("publicKey", () => publicKey)
      .handleRaw("subscribe", () => subscribe)
      .handleRaw("resubscribe", () => resubscribe)
      .handleRaw("unsubscribe", () => unsubscribe))
}

/**
 * Builds the same routes for an `HttpRouter`. `owner` returns the owner of the devices of a request; without an owner
 * the response is 401.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { HttpRouter, HttpServerRequest } from "@effect/platform"
 * import { Effect, Option } from "effect"
 * import * as WebPushApi from "effect-realtime/WebPushApi"
 *
 * const owner = Effect.map(HttpServerRequest.HttpServerRequest, ({ cookies }) => Option.fromNullable(cookies.user))
 *
 * const router = HttpRouter.empty.pipe(HttpRouter.mount("/push", WebPushApi.router(owner)))
 * ```
 */
export const router = <E, R>(
  owner: Effect.Effect<Option.Option<string>, E, R>
): HttpRouter.HttpRouter<
  E,
  HttpRouter.HttpRouter.ExcludeProvided<R> | SubscriptionStore | WebPush.WebPush
> => {
  const authenticated = <E1, R1>(handler: Effect.Effect<HttpServerResponse.HttpServerResponse, E1, R1>) =>
    Effect.flatMap(
      owner,
      Option.match({
        onNone: () => Effect.succeed(HttpServerResponse.empty({ status: 401 })),
        onSome: (owner) => Effect.provideService(handler, Owner, owner)
      })
    )
  return HttpRouter.empty.pipe(
    HttpRouter.get(publicKeyEndpoint.path, publicKey),
    HttpRouter.post(subscribeEndpoint.path, authenticated(answerErrors(subscribe))),
    HttpRouter.post(resubscribeEndpoint.path, authenticated(answerErrors(resubscribe))),
    HttpRouter.post(unsubscribeEndpoint.path, authenticated(answerErrors(unsubscribe)))
  )
}

const answerErrors = <R>(
  handler: Effect.Effect<
    HttpServerResponse.HttpServerResponse,
    | HttpApiDecodeError
    | RequestTimeout
    | Conflict
    | RenewalRequired
    | BodyTooLarge
    | UnsupportedMediaType
    | ServiceUnavailable,
    R
  >
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R> =>
  Effect.catchTags(handler, {
    HttpApiDecodeError: ({ _tag, issues, message }) =>
      Effect.succeed(HttpServerResponse.unsafeJson({ _tag, issues, message }, { status: 400 })),
    RequestTimeout: () => Effect.succeed(HttpServerResponse.empty({ status: 408 })),
    Conflict: () => Effect.succeed(HttpServerResponse.empty({ status: 409 })),
    RenewalRequired: ({ _tag, publicKey, reason }) =>
      Effect.succeed(HttpServerResponse.unsafeJson({ _tag, reason, publicKey }, { status: 410 })),
    BodyTooLarge: () => Effect.succeed(HttpServerResponse.empty({ status: 413 })),
    UnsupportedMediaType: () => Effect.succeed(HttpServerResponse.empty({ status: 415 })),
    ServiceUnavailable: () => Effect.succeed(HttpServerResponse.empty({ status: 503 }))
  })
