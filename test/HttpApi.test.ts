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
import { Chunk, Deferred, Effect, Layer, Schedule, Schema, Stream } from "effect"
import { EventStream, ServerSentEvent, Topic } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

import { collectGarbage } from "./support/garbage.js"

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
        HttpApiBuilder.group(Shop, "orders", (h) => h.handle("events", () => endless).handle("any", () => endless))
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
