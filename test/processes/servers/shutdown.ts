import { createServer } from "node:http"

import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Schedule } from "effect"
import { EventStream } from "effect-realtime"

const events = EventStream.respond((stream) =>
  EventStream.publish(stream, { event: "tick", data: "x".repeat(1_000) }).pipe(
    Effect.repeat(Schedule.spaced("1 second"))
  )
)

const flood = EventStream.respond(
  (stream) => Effect.forever(EventStream.publish(stream, { data: "x".repeat(60_000) })),
  {
    strategy: "suspend"
  }
)

const router = HttpRouter.empty.pipe(HttpRouter.get("/", events), HttpRouter.get("/flood", flood))

const api = HttpApi.make("api").add(
  HttpApiGroup.make("events")
    .add(HttpApiEndpoint.get("events", "/").addSuccess(EventStream.Body))
    .add(HttpApiEndpoint.get("flood", "/flood").addSuccess(EventStream.Body))
)
const apiLive = Layer.provide(
  HttpApiBuilder.api(api),
  HttpApiBuilder.group(
    api,
    "events",
    (handlers) => handlers.handle("events", () => events).handle("flood", () => flood)
  )
)

const server = NodeHttpServer.layer(createServer, { port: 0 })

/** The same app, composed in every way that its server may be shut down. */
const compositions = {
  "server provided last": HttpServer.serve(router).pipe(HttpServer.withLogAddress, Layer.provide(server), Layer.launch),
  "server provided first": server.pipe(
    Layer.flatMap((context) =>
      HttpServer.serve(router).pipe(
        HttpServer.withLogAddress,
        Layer.provide(Layer.succeedContext(context))
      )
    ),
    Layer.launch
  ),
  "server around the scope of serving": HttpServer.logAddress.pipe(
    Effect.zipRight(HttpServer.serveEffect(router)),
    Effect.zipRight(Effect.never),
    Effect.scoped,
    Effect.provide(server)
  ),
  "server within the scope of serving": HttpServer.logAddress.pipe(
    Effect.zipRight(HttpServer.serveEffect(router)),
    Effect.zipRight(Effect.never),
    Effect.provide(server),
    Effect.scoped
  ),
  "HttpApi": HttpApiBuilder.serve().pipe(
    HttpServer.withLogAddress,
    Layer.provide(apiLive),
    Layer.provide(server),
    Layer.launch
  )
}

const isComposition = (name: string): name is keyof typeof compositions => name in compositions

const name = process.argv[2] ?? ""
if (isComposition(name)) NodeRuntime.runMain(compositions[name])
