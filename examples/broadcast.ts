/**
 * Chat rooms: http://localhost:3000 shows several users in one page, each with a connection. Stop the server and
 * start it again: they reconnect.
 */
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"

import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect, Layer, Schema } from "effect"
import { EventBroker, EventLog, Topic } from "effect-realtime"

const Message = Schema.Struct({ name: Schema.NonEmptyTrimmedString, text: Schema.NonEmptyTrimmedString })

const Room = Topic.make("rooms/:room", { said: Message })

const router = HttpRouter.empty.pipe(
  HttpRouter.get("/", HttpServerResponse.file(fileURLToPath(new URL("broadcast.html", import.meta.url)))),
  HttpRouter.get(
    "/rooms/:room",
    Effect.flatMap(HttpRouter.params, ({ room = "" }) => EventBroker.respond(Topic.channel(Room, { room })))
  ),
  HttpRouter.post(
    "/rooms/:room",
    Effect.gen(function*() {
      const { room = "" } = yield* HttpRouter.params
      const message = yield* HttpServerRequest.schemaBodyJson(Message)
      yield* EventBroker.publish(Topic.channel(Room, { room }), "said", message)
      return HttpServerResponse.empty()
    })
  )
)

const port = Config.port("PORT").pipe(Config.withDefault(3000))

const Broker = EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))

HttpServer.serve(router).pipe(
  Layer.tap(() => Effect.flatMap(port, (port) => Console.log(`Chat rooms at http://localhost:${port}`))),
  Layer.provide([NodeHttpServer.layerConfig(createServer, { port }), Broker]),
  Layer.launch,
  NodeRuntime.runMain
)
