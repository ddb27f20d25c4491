/** The push sender and the database of a process that a test starts, by its environment variables. */
import { HttpClient, HttpClientRequest } from "@effect/platform"
import { PgClient } from "@effect/sql-pg"
import { Config, Effect, Layer, Redacted } from "effect"
import { VapidKeys, WebPush } from "effect-realtime"
import { NodeWebPushCrypto, PushHttpClient } from "effect-realtime/node"

import * as Sqlite from "../support/sqlite.js"

/** A client that sends each request to the push service of the parent process. */
const PushClientLive = Layer.scoped(
  HttpClient.HttpClient,
  Effect.gen(function*() {
    const port = yield* Config.string("PUSH_PORT")
    const client = yield* PushHttpClient.make({
      ca: yield* Config.string("PUSH_CERTIFICATE"),
      allowedAddresses: ["127.0.0.1"],
      lookup: (_hostname, _options, callback) => callback(null, [{ address: "127.0.0.1", family: 4 }])
    })
    return HttpClient.mapRequest(client, (request) => {
      const url = new URL(request.url)
      url.port = port
      return HttpClientRequest.setUrl(request, url.href)
    })
  })
)

export const WebPushLive = WebPush.layerConfig({
  vapid: VapidKeys.config({ privateKey: Config.redacted("VAPID_PRIVATE_KEY") }),
  subject: Config.string("VAPID_SUBJECT")
}).pipe(Layer.provide([PushClientLive, NodeWebPushCrypto.layer]))

export const SqlLive = Layer.unwrapEffect(
  Effect.map(
    Config.string("DATABASE_URL"),
    (url) =>
      url.startsWith("file:") ? Sqlite.layerOf(url) : PgClient.layer({ url: Redacted.make(url), maxConnections: 10 })
  )
)
