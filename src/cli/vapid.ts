import { createRequire } from "node:module"

import * as Command from "@effect/cli/Command"
import * as CliOptions from "@effect/cli/Options"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

import * as VapidKeys from "../VapidKeys.js"

const vapid = Command.make(
  "vapid",
  { json: CliOptions.boolean("json").pipe(CliOptions.withDescription("Print JSON instead of env lines.")) },
  ({ json }) =>
    Effect.flatMap(VapidKeys.generate, (keys) => {
      const pair = { publicKey: keys.publicKey, privateKey: Redacted.value(keys.privateKey) }
      return Console.log(
        json ?
          JSON.stringify(pair, undefined, 2) :
          `VAPID_PUBLIC_KEY=${pair.publicKey}\nVAPID_PRIVATE_KEY=${pair.privateKey}`
      )
    })
).pipe(
  Command.withDescription(
    "Make a VAPID key pair. Store it: a subscription works only with the key that it was made with."
  )
)

const { version } = Schema.decodeUnknownSync(Schema.Struct({ version: Schema.String }))(
  createRequire(import.meta.url)("../../package.json")
)

const run = Command.run(Command.make("effect-realtime").pipe(Command.withSubcommands([vapid])), {
  name: "effect-realtime",
  version
})

NodeRuntime.runMain(
  run(process.argv).pipe(
    // @effect/cli has written the error to stderr. stdout may be an .env file.
    Effect.catchAll(() =>
      Effect.sync(() => {
        process.exitCode = 1
      })
    ),
    Effect.provide(NodeContext.layer)
  )
)
