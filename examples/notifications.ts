/**
 * Web Push from a server: a notification to one device, and a message to all devices. Run with
 *
 *     npx tsx examples/notifications.ts
 *
 * It sends to a push service on this machine. For the public ones, make a key pair with `npx effect-realtime vapid`,
 * set VAPID_PRIVATE_KEY, and provide this layer, with NodeWebPush from "effect-realtime/node":
 *
 *     NodeWebPush.layerConfig({
 *       vapid: VapidKeys.config({ privateKey: Config.redacted("VAPID_PRIVATE_KEY") }),
 *       subject: Config.succeed("mailto:ops@example.com")
 *     })
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Ref } from "effect"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import * as WebPush from "effect-realtime/WebPush"
import * as WebPushPayload from "effect-realtime/WebPushPayload"
import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"

class Subscriptions extends Context.Tag("Subscriptions")<Subscriptions, {
  readonly all: Effect.Effect<ReadonlyArray<WebPushSubscription>>
  readonly deleteByEndpoints: (endpoints: ReadonlyArray<string>) => Effect.Effect<void>
}>() {}

const notifyOrderPaid = (subscription: WebPushSubscription, orderId: string) =>
  Effect.gen(function*() {
    const payload = yield* WebPushPayload.make({
      title: "Pagamento confirmado",
      body: `Pedido ${orderId} aprovado.`,
      icon: "/static/icons/order.png",
      data: { orderId, url: `/orders/${orderId}` }
    })
    yield* WebPush.send(subscription, payload).pipe(Effect.retry(WebPush.retryPolicy))
  }).pipe(
    Effect.catchTag("WebPushGone", () =>
      Effect.flatMap(Subscriptions, ({ deleteByEndpoints }) => deleteByEndpoints([subscription.endpoint])))
  )

const broadcast = (message: WebPush.Message) =>
  Effect.gen(function*() {
    const { all, deleteByEndpoints } = yield* Subscriptions
    const report = yield* WebPush.sendMany(yield* all, message)
    yield* deleteByEndpoints(report.gone)
  })

const program = Effect.gen(function*() {
  const service = yield* TestPushService.TestPushService
  const [phone, laptop, lost] = yield* Effect.all([service.subscribe(), service.subscribe(), service.subscribe()])
  yield* service.answer({ status: 410 }, lost)
  const stored = yield* Ref.make<ReadonlyArray<WebPushSubscription>>([phone, laptop, lost])

  yield* notifyOrderPaid(phone, "7").pipe(
    Effect.zipRight(broadcast("Voltamos às 9h.")),
    Effect.provideService(Subscriptions, {
      all: Ref.get(stored),
      deleteByEndpoints: (endpoints) =>
        Ref.update(stored, (all) => all.filter(({ endpoint }) => !endpoints.includes(endpoint)))
    })
  )

  for (const { subscription, text } of yield* service.received) yield* Console.log(`${subscription.endpointId} ${text}`)
  yield* Console.log(`${(yield* Ref.get(stored)).length} subscriptions remain`)
})

NodeRuntime.runMain(Effect.provide(program, TestPushService.layerWebPushWith({ ttl: "1 minute" })))
