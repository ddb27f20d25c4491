/** The routes, with a page of documentation at /docs. */
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiError,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSchema,
  HttpApiSecurity,
  HttpApiSwagger
} from "@effect/platform"
import { Effect, Layer, Redacted, Schema } from "effect"
import { EventBroker, EventStream, Notifier, WebPushApi } from "effect-realtime"

import { Shop } from "./shop.js"
import * as Stats from "./stats.js"
import { NewOrder, Order } from "./topics.js"
import * as Trouble from "./trouble.js"

/** A cookie identifies the customer. The page sets it. */
class Authentication extends HttpApiMiddleware.Tag<Authentication>()("Authentication", {
  provides: WebPushApi.Owner,
  failure: HttpApiError.Unauthorized,
  security: { customer: HttpApiSecurity.apiKey({ in: "cookie", key: "customer" }) }
}) {}

const Orders = HttpApiGroup.make("orders")
  .add(HttpApiEndpoint.get("events", "/events").addSuccess(EventStream.Body))
  .add(HttpApiEndpoint.get("latest", "/orders").addSuccess(Schema.Array(Order)))
  .add(HttpApiEndpoint.post("place", "/orders").setPayload(NewOrder).addSuccess(Order, { status: 201 }))
  .addError(HttpApiError.ServiceUnavailable)
  .middleware(Authentication)

const Counter = HttpApiGroup.make("behind the counter")
  .add(HttpApiEndpoint.get("stats", "/stats").addSuccess(EventStream.Body))
  .add(HttpApiEndpoint.get("feed", "/trouble/feed").addSuccess(EventStream.Body))
  .add(HttpApiEndpoint.post("slow", "/trouble/slow").addSuccess(HttpApiSchema.Accepted))
  .add(HttpApiEndpoint.post("burst", "/trouble/burst").addSuccess(HttpApiSchema.Accepted))
  .add(HttpApiEndpoint.post("drop", "/trouble/drop").addSuccess(HttpApiSchema.Accepted).middleware(Authentication))
  .addError(HttpApiError.ServiceUnavailable)

class Api extends HttpApi.make("cafe").add(Orders).add(Counter).add(WebPushApi.group(Authentication).prefix("/push")) {}

const unavailable = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.catchAll(effect, (error) => Effect.zipRight(Effect.logError(error), new HttpApiError.ServiceUnavailable()))

const OrdersLive = HttpApiBuilder.group(Api, "orders", (handlers) =>
  handlers
    .handle("events", () =>
      Effect.flatMap(WebPushApi.Owner, (customer) =>
        EventBroker.respond(["orders", "burst", ...Notifier.channels(customer)], { owner: customer })).pipe(
          unavailable
        ))
    .handle("latest", () =>
      Effect.flatMap(Shop, ({ latest }) =>
        latest).pipe(unavailable))
    .handle("place", ({ payload }) =>
      Effect.gen(function*() {
        const { place } = yield* Shop
        return yield* place(yield* WebPushApi.Owner, payload)
      }).pipe(unavailable)))

const CounterLive = HttpApiBuilder.group(
  Api,
  "behind the counter",
  (handlers) =>
    Effect.map(Trouble.makeSlowClient, ({ connect }) =>
      handlers
        .handle("stats", () => Stats.respond)
        .handle("feed", () => unavailable(Trouble.feed))
        .handle("slow", () => connect)
        .handle("burst", () => unavailable(Trouble.burst))
        .handle("drop", () => unavailable(Effect.flatMap(WebPushApi.Owner, Trouble.drop))))
)

const AuthenticationLive = Layer.succeed(Authentication, {
  customer: (cookie) =>
    Redacted.value(cookie) === "" ? new HttpApiError.Unauthorized() : Effect.succeed(Redacted.value(cookie))
})

export const ApiLive = HttpApiSwagger.layer().pipe(
  Layer.provideMerge(HttpApiBuilder.api(Api)),
  Layer.provide([OrdersLive, CounterLive, WebPushApi.layerHttpApi(Api)]),
  Layer.provide(AuthenticationLive)
)
