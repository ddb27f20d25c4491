/** A node of `campaign.ts`: sends the campaigns of DATABASE_URL until it is killed. */
import { NodeRuntime } from "@effect/platform-node"
import { Layer } from "effect"
import { SqlCampaign, SqlSubscriptionStore } from "effect-realtime/sql"

import { SqlLive, WebPushLive } from "./pushWorker.js"

const WorkerLive = SqlCampaign.layerWith({ lease: "3 seconds", pollInterval: "100 millis" }).pipe(
  Layer.provide(SqlSubscriptionStore.layer),
  Layer.provide(WebPushLive),
  Layer.provide(SqlLive)
)

NodeRuntime.runMain(Layer.launch(WorkerLive))
