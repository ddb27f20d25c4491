/** The server of the shop. */
import { createServer } from "node:http"

import { HttpApiBuilder, HttpApiError } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Deferred, Effect, Layer, Option, Queue, Redacted, Schedule } from "effect"
import {
  AccessTicket,
  EventBroker,
  EventLog,
  EventStream,
  ServerSentEvent,
  SubscriptionStore,
  Topic,
  WebPushApi
} from "effect-realtime"
import { TestPushService } from "effect-realtime/testing"

import { Api, Authentication, Inbox, News, Orders } from "./topics.js"

const OrdersLive = HttpApiBuilder.group(
  Api,
  "orders",
  (h) =>
    h.handle("events", ({ path }) => EventBroker.respond(Topic.channel(Orders, path)))
      .handle(
        "pay",
        ({ path, payload }) =>
          EventBroker.publish(Topic.channel(Orders, path), "paid", payload).pipe(Effect.orDie, Effect.asVoid)
      )
      .handle(
        "ship",
        ({ path, payload }) =>
          EventBroker.publish(Topic.channel(Orders, path), "shipped", payload, { except: "carrier" }).pipe(
            Effect.orDie,
            Effect.asVoid
          )
      )
      .handle("close", ({ path }) => Effect.orDie(EventBroker.complete(Topic.channel(Orders, path))))
      .handle("subscribers", ({ path }) => Effect.orDie(EventBroker.subscriberCount(Topic.channel(Orders, path))))
)

/** Completed when the producer of ticks was interrupted. */
export class TicksInterrupted extends Context.Tag("TicksInterrupted")<TicksInterrupted, Deferred.Deferred<void>>() {
  static readonly layer = Layer.effect(TicksInterrupted, Deferred.make<void>())
}

/** Knows nothing of the library but the type of its events. */
const tick = (queue: Queue.Enqueue<ServerSentEvent.ServerSentEvent>) =>
  ServerSentEvent.make({ event: "tick", data: { n: 1 } }).pipe(
    Effect.flatMap((event) => Effect.repeat(Queue.offer(queue, event), Schedule.spaced("10 millis")))
  )

const ShopLive = HttpApiBuilder.group(
  Api,
  "shop",
  (h) =>
    h.handle("events", () => EventBroker.respond([Topic.pattern(Orders), Topic.channel(News, {})]))
      .handle("ticks", () =>
        EventStream.respond((stream) =>
          Effect.onInterrupt(
            tick(stream),
            () => Effect.flatMap(TicksInterrupted, (latch) => Deferred.succeed(latch, undefined))
          )
        ))
      .handle(
        "post",
        ({ payload }) =>
          EventBroker.publish(Topic.channel(News, {}), "shipped", payload).pipe(Effect.orDie, Effect.asVoid)
      )
)

const findSession = (session: Redacted.Redacted): Effect.Effect<Option.Option<AccessTicket.Access>> =>
  Effect.succeed(Redacted.value(session) === "session-of-ana" ? Option.some({ owner: "ana" }) : Option.none())

const InboxLive = HttpApiBuilder.group(
  Api,
  "inbox",
  (h) =>
    h.handle(
      "ticket",
      () =>
        AccessTicket.authenticateSession({ cookie: { name: "session", verify: findSession } }).pipe(
          Effect.flatMap((access) => AccessTicket.issue(access, { audience: "inbox" }))
        )
    )
      .handle(
        "events",
        () =>
          Effect.flatMap(AccessTicket.authenticate({ audience: "inbox" }), ({ expiresAt, owner }) =>
            EventBroker.respond(Topic.channel(Inbox, { user: owner }), {
              owner,
              authorize: (channels) =>
                Effect.succeed({ channels, expiresAt })
            }))
      )
)

const AuthenticationLive = Layer.succeed(Authentication, {
  session: (session) =>
    Effect.flatten(findSession(session)).pipe(
      Effect.mapBoth({ onFailure: () => new HttpApiError.Unauthorized(), onSuccess: ({ owner }) => owner })
    )
})

const PushLive = WebPushApi.layerHttpApi(Api).pipe(
  Layer.provide(AuthenticationLive),
  Layer.provideMerge(SubscriptionStore.layerMemory),
  Layer.provideMerge(TestPushService.layerWebPush)
)

export const Server = HttpApiBuilder.serve().pipe(
  Layer.provide(HttpApiBuilder.api(Api)),
  Layer.provide([OrdersLive, ShopLive, InboxLive]),
  Layer.provideMerge(PushLive),
  Layer.provide(AccessTicket.layerWith({ secret: Redacted.make("a secret of 32 bytes or a longer one") })),
  Layer.provideMerge(EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))),
  Layer.provideMerge(TicksInterrupted.layer),
  Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
)
