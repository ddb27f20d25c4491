import * as Http from "node:http"

import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Logger, LogLevel, Schedule } from "effect"
import { EventBroker, Topic } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"

// A node of the cluster, as a process. Arguments: its port, the URL of Redis, the timeout of the log in milliseconds.
const [port = "0", url = "", timeout = "500"] = process.argv.slice(2)

const Schedules = Topic.make(":schedule/:channel", {})

const toChannel = (name: string) =>
  name.endsWith("/*") ? Topic.pattern(Schedules, { schedule: name.slice(0, -2) }) : name

const parameters = Effect.map(
  HttpServerRequest.HttpServerRequest,
  (request) => new URL(request.url, "http://localhost").searchParams
)

const router = HttpRouter.empty.pipe(
  HttpRouter.get("/ready", HttpServerResponse.empty()),
  HttpRouter.get(
    "/events",
    Effect.flatMap(parameters, (query) =>
      EventBroker.respond(query.getAll("channel").map(toChannel), {
        retry: "50 millis",
        heartbeat: "300 millis",
        owner: query.get("key") ?? "nobody"
      }))
  ),
  HttpRouter.get(
    "/subscribers",
    Effect.flatMap(parameters, (query) => EventBroker.subscriberCount(query.get("channel") ?? "")).pipe(
      Effect.map((count) => HttpServerResponse.text(String(count))),
      Effect.catchAll(() => HttpServerResponse.empty({ status: 503 }))
    )
  ),
  HttpRouter.post(
    "/publish",
    Effect.flatMap(
      parameters,
      (query) => EventBroker.publish(query.get("channel") ?? "", { data: query.get("data") ?? "" })
    ).pipe(
      Effect.map((id) => HttpServerResponse.text(id)),
      Effect.catchAll((error) => HttpServerResponse.text(error.reason, { status: 503 }))
    )
  )
)

// The server listens last, since an earlier request would never be answered.
HttpServer.serve(router).pipe(
  Layer.provide(NodeHttpServer.layer(Http.createServer, { port: Number(port), host: "127.0.0.1" })),
  Layer.provide(EventBroker.layer),
  Layer.provide(RedisEventLog.layer({ url, capacity: 100, timeout: Number(timeout) })),
  Layer.launch,
  // A node that starts while Redis is away starts again, as under a process manager.
  Effect.retry(Schedule.spaced("50 millis")),
  Logger.withMinimumLogLevel(LogLevel.None),
  NodeRuntime.runMain
)
