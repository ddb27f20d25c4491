import { createServer } from "node:http"

import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpServer, OpenApi } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { EventStream } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

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
