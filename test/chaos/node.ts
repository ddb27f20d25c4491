import * as Http from "node:http"

import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Logger, LogLevel, Redacted, Schedule } from "effect"
import { EventBroker, Topic } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"
import { SqlEventLog } from "effect-realtime/sql"

import type { LogOptions } from "./engine.js"

// A node of the cluster, as a process. Arguments: its port, and the options of its log.
const [port = "0", json = ""] = process.argv.slice(2)
const options: LogOptions = JSON.parse(json)
const capacity = 100

const log = () => {
  switch (options.engine) {
    case "Redis":
      return RedisEventLog.layer({ url: options.url, capacity, timeout: options.timeout })
    case "Sentinel":
      return RedisEventLog.layer({
        sentinel: { name: options.name, urls: options.urls },
        capacity,
        timeout: options.timeout
      })
    case "PostgreSQL":
      return Layer.provide(
        SqlEventLog.layerWith({ capacity }),
        PgClient.layer({
          url: Redacted.make(options.url),
          connectTimeout: "2 seconds",
          // The pool closes a connection whose server has vanished when a statement on it times out after this time.
          connectionTTL: "5 seconds"
        })
      )
  }
}

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
  Layer.provide(log()),
  Layer.launch,
  // A retry provides the error to the next attempt, whose error would refer to it by its stack, and so on.
  Effect.mapError(() => undefined),
  // A node that starts while the server is away starts again, as under a process manager.
  Effect.retry(Schedule.spaced("50 millis")),
  Logger.withMinimumLogLevel(process.env["CHAOS_LOGS"] === undefined ? LogLevel.None : LogLevel.Warning),
  NodeRuntime.runMain
)
