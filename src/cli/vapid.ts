import { createPrivateKey } from "node:crypto"
import { createRequire } from "node:module"

import * as Command from "@effect/cli/Command"
import * as CliOptions from "@effect/cli/Options"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

import * as P256 from "../internal/p256.js"
import * as VapidKeys from "../VapidKeys.js"

const toPem = (keys: VapidKeys.VapidKeys): string =>
  createPrivateKey({ format: "jwk", key: P256.toJwk(keys.publicKey, Redacted.value(keys.privateKey)) })
    .export({ format: "pem", type: "pkcs8" }).toString().trimEnd()

const toJson = (keys: VapidKeys.VapidKeys): string =>
  JSON.stringify({ publicKey: keys.publicKey, privateKey: Redacted.value(keys.privateKey) }, undefined, 2)

const toEnv = (keys: VapidKeys.VapidKeys): string =>
  `VAPID_PUBLIC_KEY=${keys.publicKey}\nVAPID_PRIVATE_KEY=${Redacted.value(keys.privateKey)}`

const vapid = Command.make(
  "vapid",
  {
    json: CliOptions.boolean("json").pipe(CliOptions.withDescription("Print JSON instead of env lines.")),
    pem: CliOptions.boolean("pem").pipe(
      CliOptions.withDescription("Print the private key only, as PEM (PKCS#8). The public key is derived from it.")
    )
  },
  ({ json, pem }) =>
    Effect.flatMap(VapidKeys.generate, (keys) => Console.log((pem ? toPem : json ? toJson : toEnv)(keys)))
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
