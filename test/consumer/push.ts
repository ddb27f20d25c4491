/** Web Push: to public services, and to one of a test. */
import { FetchHttpClient, HttpApiClient, HttpClient, HttpClientRequest } from "@effect/platform"
import { Config, ConfigProvider, Console, Effect, Layer, Redacted } from "effect"
import {
  SubscriptionStore,
  VapidKeys,
  WebPush,
  type WebPushCrypto,
  WebPushPayload,
  WebPushSubscription
} from "effect-realtime"
import { NodeWebPush, NodeWebPushCrypto } from "effect-realtime/node"
import { TestPushService } from "effect-realtime/testing"
import { WebPushLibrary } from "effect-realtime/web-push"

import { Api } from "./topics.js"

export const WebPushLive = NodeWebPush.layerConfig({
  vapid: VapidKeys.config({ privateKey: Config.redacted("VAPID_PRIVATE_KEY") }),
  subject: Config.string("VAPID_SUBJECT"),
  ttl: Config.succeed("1 day")
})

export const notifyPaid = (subscription: WebPushSubscription.WebPushSubscription, orderId: string) =>
  WebPushPayload.make({ title: "Paid", body: `Order ${orderId}`, data: { url: `/orders/${orderId}` } }).pipe(
    Effect.flatMap((payload) => WebPush.send(subscription, payload)),
    Effect.as("sent"),
    Effect.catchTags({
      WebPushGone: () => Effect.succeed("gone"),
      WebPushFailure: ({ isRetryable, reason }) => Effect.succeed(`${reason}, ${isRetryable ? "retry" : "final"}`)
    })
  )

/** Shows the result for a device that exists, and for one that does not. */
export const showPush = Effect.gen(function*() {
  const service = yield* TestPushService.TestPushService
  const [phone, lost] = yield* Effect.all([service.subscribe(), service.subscribe({ vendor: "mozilla" })])
  yield* service.answer({ status: 410 }, lost)
  const results = [yield* notifyPaid(phone, "42"), yield* notifyPaid(lost, "42")]
  const [message] = yield* service.received
  const payload: unknown = JSON.parse(message?.text ?? "")
  yield* Console.log(`push: ${results.join(", ")}, ${JSON.stringify(payload)}`)
})

/** Subscribes by the routes, as a page does with the cookie of its user, and shows the result for the devices. */
export const showRoutes = (baseUrl: string, session: string) =>
  Effect.gen(function*() {
    const { webPush } = yield* HttpApiClient.make(Api, {
      baseUrl,
      transformClient: HttpClient.mapRequest(HttpClientRequest.setHeader("cookie", `session=${session}`))
    })
    const { publicKey } = yield* webPush.publicKey()
    const { subscribe } = yield* TestPushService.TestPushService
    yield* webPush.subscribe({ payload: yield* subscribe({ applicationServerKey: publicKey }) })
    const devices = yield* SubscriptionStore.forOwner("ana")
    return yield* Effect.forEach(devices, (device) => notifyPaid(device, "43"))
  }).pipe(
    Effect.catchTag("Unauthorized", () => Effect.succeed(["unauthorized"])),
    Effect.flatMap((results) => Console.log(`routes: ${results.join(", ")}`)),
    Effect.provide(FetchHttpClient.layer)
  )

/** Shows the result for a device to which another engine encrypts. */
const showEngine = (name: string, crypto: Layer.Layer<WebPushCrypto.WebPushCrypto>) =>
  Effect.gen(function*() {
    const service = yield* TestPushService.TestPushService
    const result = yield* notifyPaid(yield* service.subscribe(), "43")
    const [message] = yield* service.received
    yield* Console.log(`push by ${name}: ${result}, ${String(message?.text.includes("Order 43"))}`)
  }).pipe(
    Effect.provide(
      Layer.unwrapEffect(
        Effect.map(VapidKeys.generate, (vapid) => WebPush.layerWith({ vapid, subject: "mailto:ops@example.com" }))
      ).pipe(Layer.provide(crypto), Layer.provideMerge(TestPushService.layer))
    )
  )

export const showEngines = Effect.zipRight(
  showEngine("web-push", WebPushLibrary.layer),
  showEngine("a worker thread", NodeWebPushCrypto.layerWorkers({ workers: 1 }))
)

/** Shows the result for a device at an address that is not a push service, by the transport of production. */
export const showBlocked = Effect.gen(function*() {
  const { privateKey } = yield* VapidKeys.generate
  const service = yield* TestPushService.make()
  const { expiresAt, keys } = yield* service.subscribe()
  const device = new WebPushSubscription.WebPushSubscription({ endpoint: "https://127.0.0.1/", expiresAt, keys })
  const config = ConfigProvider.fromMap(
    new Map([["VAPID_PRIVATE_KEY", Redacted.value(privateKey)], ["VAPID_SUBJECT", "mailto:ops@example.com"]])
  )
  const result = yield* notifyPaid(device, "42").pipe(
    Effect.provide(WebPushLive),
    Effect.withConfigProvider(config)
  )
  yield* Console.log(`push: ${result}`)
})
