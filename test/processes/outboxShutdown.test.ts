import { assert, describe, layer } from "@effect/vitest"
import { Context, Deferred, Duration, Effect, Exit, Layer, Scope, Stream } from "effect"
import { NotificationOutbox, Notifier, SubscriptionStore, WebPush } from "effect-realtime"
import { SqlNotificationOutbox } from "effect-realtime/sql"

import * as Postgres from "../support/postgres.js"

describe.skipIf(Postgres.isMissing)("SqlNotificationOutbox", () => {
  layer(Postgres.Postgres.layer, { excludeTestServices: true, timeout: "60 seconds" })("PostgreSQL", (it) => {
    const unused = Effect.dieMessage("is not used")

    /** Returns the time that an outbox takes to close, in milliseconds, while PostgreSQL is frozen. */
    const close = (notifications: number) =>
      Effect.scoped(Effect.gen(function*() {
        const postgres = yield* Postgres.Postgres
        const sending = yield* Deferred.make<void>()
        const client = yield* Layer.build(Postgres.layerClient)
        const scope = yield* Scope.make()
        const OutboxLive = SqlNotificationOutbox.layerWith({ pollInterval: "10 millis" }).pipe(
          Layer.provide(Layer.mergeAll(
            Layer.succeedContext(client),
            SubscriptionStore.layerMemory,
            Layer.succeed(Notifier.Notifier, {
              notify: () => Effect.zipRight(Deferred.succeed(sending, undefined), Effect.never),
              notifyMany: () => Stream.empty,
              push: () => unused,
              acknowledge: () => unused
            }),
            Layer.succeed(WebPush.WebPush, {
              publicKey: "",
              publicKeys: [],
              isAllowed: () => true,
              send: () => unused,
              sendMany: () => unused,
              broadcast: () => Stream.empty
            })
          ))
        )
        const outbox = Context.get(
          yield* Layer.buildWithScope(OutboxLive, scope),
          NotificationOutbox.NotificationOutbox
        )
        for (let i = 0; i < notifications; i++) {
          yield* outbox.enqueue("anna", { event: {}, push: "" })
          yield* Deferred.await(sending)
        }
        yield* postgres.frozen
        // The outbox has begun to claim by then.
        yield* Effect.sleep("200 millis")
        const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
        return Duration.toMillis(duration)
      }))

    it.effect("closes within 3 seconds while PostgreSQL is frozen and a notification is being sent", () =>
      Effect.gen(function*() {
        assert.isBelow(yield* close(1), 3000)
      }))

    it.effect("closes within 3 seconds while PostgreSQL is frozen and no notification is due", () =>
      Effect.gen(function*() {
        assert.isBelow(yield* close(0), 3000)
      }))
  })
})
