/** The topics and the API of a shop, which its server and its pages import. */
import {
  HttpApi,
  HttpApiEndpoint,
  HttpApiError,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSecurity
} from "@effect/platform"
import { Schema } from "effect"
import { AccessTicket, EventStream, Topic, WebPushApi } from "effect-realtime"

export const Orders = Topic.make("orders/:orderId", {
  paid: Schema.Struct({ amount: Schema.Number, at: Schema.Date }),
  shipped: Schema.Struct({ carrier: Schema.String })
})

/** An event of `Orders` has the same name. */
export const News = Topic.make("news", { shipped: Schema.String })

export const Inbox = Topic.make("users/:user", { message: Schema.String })

export const Ticks = Topic.make("ticks", { tick: Schema.Struct({ n: Schema.Number }) })

export class Authentication extends HttpApiMiddleware.Tag<Authentication>()("Authentication", {
  provides: WebPushApi.Owner,
  failure: HttpApiError.Unauthorized,
  security: { session: HttpApiSecurity.apiKey({ in: "cookie", key: "session" }) }
}) {}

const Order = Schema.Struct({ orderId: Schema.String })

export const Api = HttpApi.make("shop").add(
  HttpApiGroup.make("orders")
    .add(HttpApiEndpoint.get("events", "/orders/:orderId/events").setPath(Order).addSuccess(Topic.body(Orders)))
    .add(HttpApiEndpoint.post("pay", "/orders/:orderId/pay").setPath(Order).setPayload(Orders.events.paid))
    .add(HttpApiEndpoint.post("ship", "/orders/:orderId/ship").setPath(Order).setPayload(Orders.events.shipped))
    .add(HttpApiEndpoint.post("close", "/orders/:orderId/close").setPath(Order))
    .add(
      HttpApiEndpoint.get("subscribers", "/orders/:orderId/subscribers").setPath(Order).addSuccess(Schema.Number)
    )
).add(
  HttpApiGroup.make("shop")
    .add(HttpApiEndpoint.get("events", "/events").addSuccess(EventStream.Body))
    .add(HttpApiEndpoint.get("ticks", "/ticks").addSuccess(Topic.body(Ticks)))
    .add(HttpApiEndpoint.post("post", "/news").setPayload(Schema.String))
).add(
  HttpApiGroup.make("inbox")
    .add(HttpApiEndpoint.post("ticket", "/inbox/ticket").addSuccess(Schema.String))
    .add(
      HttpApiEndpoint.get("events", "/inbox").setUrlParams(Schema.Struct({ ticket: Schema.String }))
        .addSuccess(Topic.body(Inbox))
    )
    .addError(AccessTicket.Unauthenticated)
).add(WebPushApi.group(Authentication).prefix("/push"))
