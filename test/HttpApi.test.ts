import { createServer } from "node:http"

import {
  FetchHttpClient,
  HttpApi,
  HttpApiBuilder,
  HttpApiClient,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpServer,
  OpenApi
} from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Chunk, Deferred, Effect, Exit, Layer, Option, Schedule, Schema, Stream } from "effect"
import { EventBroker, EventLog, EventStream, ServerSentEvent, Topic } from "effect-realtime"
import { EventSourceClient } from "effect-realtime/browser"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

import { collectGarbage } from "./support/garbage.js"
import * as ScriptedServer from "./support/scriptedServer.js"

const Orders = HttpApi.make("shop").add(
  HttpApiGroup.make("orders").add(
    HttpApiEndpoint.get("events", "/orders/:id/events")
      .setPath(Schema.Struct({ id: Schema.NumberFromString }))
      .addSuccess(EventStream.Body)
  )
)

const OrdersLive = HttpApiBuilder.group(
  Orders,
  "orders",
  (handlers) =>
    handlers.handle(
      "events",
      ({ path }) =>
        EventStream.respond((stream) =>
          Effect.forEach(
            ["paid", "shipped"],
            (event) => EventStream.publish(stream, { event, data: { order: path.id } })
          )
        )
    )
)

const Live = HttpApiBuilder.serve().pipe(
  Layer.provide(HttpApiBuilder.api(Orders)),
  Layer.provide(OrdersLive),
  Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
)

describe("an HttpApi endpoint whose success is an EventStream.Body", () => {
  it.effect("streams the response of its handler", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(Live)
      const address = yield* Effect.provide(HttpServer.addressFormattedWith(Effect.succeed), context)
      const source = yield* TestEventSource.make(`${address}/orders/7/events`)
      assert.strictEqual(source.headers["content-type"], "text/event-stream")
      assert.deepStrictEqual(yield* TestEventSource.collect(source), [
        { event: "paid", data: "{\"order\":7}", id: "" },
        { event: "shipped", data: "{\"order\":7}", id: "" }
      ])
      assert.strictEqual(yield* TestEventSource.end(source), "clean")
    }).pipe(LeakCheck.run))

  it("has the content type text/event-stream in the OpenAPI document", () => {
    const success = OpenApi.fromApi(Orders).paths["/orders/{id}/events"]?.get?.responses["200"]
    assert.deepStrictEqual(Object.keys(success?.content ?? {}), ["text/event-stream"])
  })
})

const Paid = Topic.make("orders/:id", { paid: Schema.Struct({ amount: Schema.Number, at: Schema.Date }) })

const Shop = HttpApi.make("shop").add(
  HttpApiGroup.make("orders").add(
    HttpApiEndpoint.get("events", "/:id/events")
      .setPath(Schema.Struct({ id: Schema.String }))
      .addSuccess(Topic.body(Paid))
  ).add(
    HttpApiEndpoint.get("any", "/any").addSuccess(EventStream.Body)
  ).add(
    HttpApiEndpoint.post("search", "/:id/items/:item?")
      .setPath(Schema.Struct({ id: Schema.NumberFromString, item: Schema.optional(Schema.String) }))
      .setUrlParams(Schema.Struct({ since: Schema.Date, tag: Schema.Array(Schema.String) }))
      .setPayload(Schema.Struct({ at: Schema.Date }))
      .addSuccess(Topic.body(Paid))
  ).prefix("/orders")
).prefix("/api")

/** Serves endless streams of both kinds, and completes `left` when a client has left. */
const serveShop = (left: Deferred.Deferred<void>) =>
  Effect.gen(function*() {
    const endless = EventStream.respond((stream) =>
      Topic.event(Paid, "paid", { amount: 5, at: new Date(0) }).pipe(
        Effect.flatMap((event) => EventStream.publish(stream, event)),
        Effect.zipRight(Effect.never),
        Effect.onInterrupt(() => Deferred.succeed(left, undefined))
      )
    )
    const Live = HttpApiBuilder.serve().pipe(
      Layer.provide(HttpApiBuilder.api(Shop)),
      Layer.provide(
        HttpApiBuilder.group(Shop, "orders", (h) =>
          h.handle("events", () =>
            endless).handle("any", () => endless).handle("search", () => endless))
      ),
      Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
    )
    const context = yield* Layer.build(Live)
    return yield* Effect.provide(HttpServer.addressFormattedWith(Effect.succeed), context)
  })

describe("a client derived from an HttpApi", () => {
  for (const name of ["events", "any"] as const) {
    it.scopedLive(`returns when the response begins: ${name}`, () =>
      Effect.gen(function*() {
        const left = yield* Deferred.make<void>()
        const baseUrl = yield* serveShop(left)
        const { orders } = yield* HttpApiClient.make(Shop, { baseUrl })
        const value = yield* name === "events" ? orders.events({ path: { id: "42" } }) : orders.any()
        assert.isUndefined(value)
        yield* Effect.sync(collectGarbage).pipe(
          Effect.repeat({ schedule: Schedule.spaced("10 millis"), until: () => Deferred.isDone(left) })
        )
      }).pipe(Effect.provide(FetchHttpClient.layer)))
  }

  it.scopedLive("returns the response too, whose reader closes the connection", () =>
    Effect.gen(function*() {
      const left = yield* Deferred.make<void>()
      const { orders } = yield* HttpApiClient.make(Shop, { baseUrl: yield* serveShop(left) })
      const [, response] = yield* orders.events({ path: { id: "42" }, withResponse: true })
      const frames = yield* response.stream.pipe(
        ServerSentEvent.decode(),
        Stream.filter(({ data }) => data !== undefined),
        Stream.mapEffect((frame) => Topic.decode(Paid, frame)),
        Stream.take(1),
        Stream.runCollect
      )
      assert.deepStrictEqual(Chunk.toReadonlyArray(frames), [{ event: "paid", data: { amount: 5, at: new Date(0) } }])
      yield* Deferred.await(left)
    }).pipe(Effect.provide(FetchHttpClient.layer)))
})

describe("an endpoint that declares a topic", () => {
  it.scopedLive("is read by `fromApi`", () =>
    Effect.gen(function*() {
      const left = yield* Deferred.make<void>()
      const baseUrl = `${yield* serveShop(left)}/`
      const events = yield* EventSourceClient.fromApi(Shop, "orders", "events", { path: { id: "4/2" }, baseUrl }).pipe(
        Stream.take(2),
        Stream.runCollect
      )
      assert.deepStrictEqual(Chunk.toReadonlyArray(events), [
        { event: "open", data: undefined, id: "" },
        { event: "paid", data: { amount: 5, at: new Date(0) }, id: "" }
      ])
      yield* Deferred.await(left)
    }))

  it.scopedLive("is served by a broker, beside a feed of several topics", () =>
    Effect.gen(function*() {
      const News = Topic.make("news", { paid: Schema.String })
      const Live = HttpApi.make("live").add(
        HttpApiGroup.make("orders").add(
          HttpApiEndpoint.get("events", "/orders/:id/events")
            .setPath(Schema.Struct({ id: Schema.String }))
            .addSuccess(Topic.body(Paid))
        ).add(HttpApiEndpoint.get("feed", "/feed").addSuccess(EventStream.Body))
      )
      const Group = HttpApiBuilder.group(Live, "orders", (h) =>
        h.handle("events", ({ path }) =>
          EventBroker.respond(Topic.channel(Paid, path)))
          .handle("feed", () =>
            EventBroker.respond([Topic.pattern(Paid), Topic.channel(News, {})])))
      const context = yield* Layer.build(
        HttpApiBuilder.serve().pipe(
          Layer.provide(HttpApiBuilder.api(Live)),
          Layer.provide(Group),
          Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })),
          Layer.provideMerge(EventBroker.layer),
          Layer.provide(EventLog.layerMemory)
        )
      )
      const baseUrl = yield* Effect.provide(HttpServer.addressFormattedWith(Effect.succeed), context)
      const paid = { amount: 5, at: new Date(0) }
      const publish = EventBroker.publish(Topic.channel(Paid, { id: "4/2" }), "paid", paid).pipe(
        Effect.zipRight(EventBroker.publish(Topic.channel(News, {}), "paid", "by the state")),
        Effect.provide(context)
      )
      const order = yield* EventSourceClient.fromApi(Live, "orders", "events", { path: { id: "4/2" }, baseUrl }).pipe(
        Stream.tap(({ event }) =>
          event === "open" ? publish : Effect.void
        ),
        Stream.take(2),
        Stream.runCollect
      )
      assert.deepInclude(Chunk.toReadonlyArray(order)[1], { event: "paid", data: paid })
      const feed = yield* EventSourceClient.stream([Paid, News], `${baseUrl}/feed`).pipe(
        Stream.tap(({ event }) => event === "open" ? publish : Effect.void),
        Stream.take(3),
        Stream.runCollect
      )
      const [, first, second] = Chunk.toReadonlyArray(feed)
      const channel = "orders/4%2F2"
      assert.deepInclude(first, { topic: "orders/:id", channel, params: { id: "4/2" }, event: "paid", data: paid })
      assert.deepInclude(second, { topic: "news", channel: "news", params: {}, event: "paid", data: "by the state" })
    }))

  it.scopedLive("encodes its request by its schemas", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(204)])
      const request = { urlParams: { since: new Date(0), tag: ["a", "b&"] }, payload: { at: new Date(1) } }
      for (const item of ["100 %", undefined]) {
        yield* Stream.runDrain(EventSourceClient.fromApi(Shop, "orders", "search", {
          ...request,
          path: { id: 7, item },
          baseUrl: new URL(server.url).origin,
          headers: Effect.succeed({ authorization: "Bearer 1" })
        }))
      }
      const query = "since=1970-01-01T00%3A00%3A00.000Z&tag=a&tag=b%26"
      assert.deepStrictEqual(server.requests.map(({ method, url }) => [method, url]), [
        ["POST", `/api/orders/7/items/100%20%25?${query}`],
        ["POST", `/api/orders/7/items?${query}`]
      ])
      assert.strictEqual(server.requests[0]?.headers["content-type"], "application/json")
      assert.strictEqual(server.requests[0]?.headers.authorization, "Bearer 1")
      assert.strictEqual(
        yield* Effect.promise(async () => server.requests[0]?.body),
        "{\"at\":\"1970-01-01T00:00:00.001Z\"}"
      )
      const exit = yield* Effect.exit(Stream.runDrain(EventSourceClient.fromApi(Shop, "orders", "search", {
        ...request,
        path: { id: 7, item: "1" },
        urlParams: { since: new Date(Number.NaN), tag: [] }
      })))
      assert.isTrue(
        Exit.isFailure(exit) && Cause.isIllegalArgumentException(Option.getOrUndefined(Cause.dieOption(exit.cause)))
      )
    }))

  it.effect("is named, if the API does not have it", () =>
    Effect.gen(function*() {
      const faults = [
        // @ts-expect-error a caller without types may do this
        yield* Effect.exit(Stream.runDrain(EventSourceClient.fromApi(Shop, "order", "events"))),
        // @ts-expect-error a caller without types may do this
        yield* Effect.exit(Stream.runDrain(EventSourceClient.fromApi(Shop, "orders", "event")))
      ].map((exit) => Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "")
      assert.include(faults[0], "EventSourceClient: the API has no group \"order\"")
      assert.include(faults[1], "EventSourceClient: the group \"orders\" has no endpoint \"event\"")
    }))

  it("has the schemas of its events in the OpenAPI document", () => {
    const success = OpenApi.fromApi(Shop).paths["/api/orders/{id}/events"]?.get?.responses["200"]
    assert.deepStrictEqual<unknown>(success?.content, {
      "text/event-stream": {
        schema: {
          type: "object",
          required: ["event", "data"],
          properties: {
            event: { type: "string", enum: ["paid"] },
            data: {
              type: "string",
              contentMediaType: "application/json",
              contentSchema: {
                type: "object",
                required: ["amount", "at"],
                properties: { amount: { type: "number" }, at: { $ref: "#/components/schemas/Date" } },
                additionalProperties: false
              }
            },
            id: { type: "string" }
          },
          additionalProperties: false
        }
      }
    })
  })
})
