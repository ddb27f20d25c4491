/** The demo on a port: `npm start`. */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { NodeWebPushCrypto, PushHttpClient } from "effect-realtime/node"

import { App } from "./app.js"
import { port } from "./port.js"

App.pipe(
  Layer.tap(() => Effect.flatMap(port, (port) => Console.log(`The café is open at http://localhost:${port}`))),
  Layer.provide([NodeWebPushCrypto.layer, PushHttpClient.layer]),
  Layer.launch,
  Effect.catchAll((error) =>
    Console.error(String(error._tag === "ServeError" ? error.cause : error)).pipe(
      Effect.zipRight(Effect.sync(() => process.exitCode = 1))
    )
  ),
  NodeRuntime.runMain
)
