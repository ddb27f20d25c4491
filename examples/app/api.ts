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
import { EventBroker, EventStream, Notifier, ResumableStream, Topic, WebPushApi } from "effect-realtime"

import * as Kitchen from "./kitchen.js"
import { Shop } from "./shop.js"
import * as Stats from "./stats.js"
import { Answers, Batches, Question } from "./streams.js"
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

/** A page makes the id, which nobody can guess. So it can ask twice, and is alone with its answer. */
const Id = Schema.Struct({ id: Schema.UUID })
const Stopped = Schema.Struct({ stopped: Schema.Boolean })

const InKitchen = HttpApiGroup.make("in the kitchen")
  .add(HttpApiEndpoint.post("ask", "/answers/:id").setPath(Id).setPayload(Question).addSuccess(HttpApiSchema.Accepted))
  .add(HttpApiEndpoint.get("answer", "/answers/:id").setPath(Id).addSuccess(Topic.body(Answers.topic)))
  .add(HttpApiEndpoint.del("stopAnswer", "/answers/:id").setPath(Id).addSuccess(Stopped))
  .add(HttpApiEndpoint.post("bake", "/batches/:id").setPath(Id).addSuccess(HttpApiSchema.Accepted))
  .add(HttpApiEndpoint.get("batch", "/batches/:id").setPath(Id).addSuccess(Topic.body(Batches.topic)))
  .add(HttpApiEndpoint.del("stopBatch", "/batches/:id").setPath(Id).addSuccess(Stopped))
  .add(HttpApiEndpoint.get("batchStatus", "/batches/:id/status").setPath(Id).addSuccess(Batches.status))
  .addError(HttpApiError.ServiceUnavailable)

class Api extends HttpApi.make("cafe").add(Orders).add(InKitchen).add(Counter).add(
  WebPushApi.group(Authentication).prefix("/push")
) {}

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

const stop = (key: Parameters<typeof ResumableStream.stop>[0]) =>
  unavailable(Effect.map(ResumableStream.stop(key), (stopped) => ({ stopped })))

const KitchenLive = HttpApiBuilder.group(Api, "in the kitchen", (handlers) =>
  handlers
    .handle("ask", ({ path, payload }) => unavailable(Kitchen.ask(path.id, payload)).pipe(Effect.asVoid))
    .handle("answer", ({ path }) => ResumableStream.respond(Kitchen.answer(path.id)))
    .handle("stopAnswer", ({ path }) => stop(Kitchen.answer(path.id)))
    .handle("bake", ({ path }) => unavailable(Kitchen.bake(path.id)).pipe(Effect.asVoid))
    .handle("batch", ({ path }) => ResumableStream.respond(Kitchen.batch(path.id)))
    .handle("stopBatch", ({ path }) => stop(Kitchen.batch(path.id)))
    .handle("batchStatus", ({ path }) => unavailable(ResumableStream.respondStatus(Kitchen.batch(path.id)))))

const AuthenticationLive = Layer.succeed(Authentication, {
  customer: (cookie) =>
    Redacted.value(cookie) === "" ? new HttpApiError.Unauthorized() : Effect.succeed(Redacted.value(cookie))
})

export const ApiLive = HttpApiSwagger.layer().pipe(
  Layer.provideMerge(HttpApiBuilder.api(Api)),
  Layer.provide([OrdersLive, KitchenLive, CounterLive, WebPushApi.layerHttpApi(Api)]),
  Layer.provide(AuthenticationLive)
)
