/** A node of `outbox.ts`: drains the outbox of DATABASE_URL until it is killed. */
import { NodeRuntime } from "@effect/platform-node"
import { Layer } from "effect"
import { EventBroker, EventLog, Notifier } from "effect-realtime"
import { SqlNotificationOutbox, SqlSubscriptionStore } from "effect-realtime/sql"

import { SqlLive, WebPushLive } from "./pushWorker.js"

const WorkerLive = SqlNotificationOutbox.layerWith({ concurrency: 16, lease: "3 seconds", pollInterval: "100 millis" })
  .pipe(
    Layer.provide(Notifier.layer),
    Layer.provide(SqlSubscriptionStore.layer),
    Layer.provide(EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))),
    Layer.provide(WebPushLive),
    Layer.provide(SqlLive)
  )

NodeRuntime.runMain(Layer.launch(WorkerLive))
