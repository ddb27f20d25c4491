import { HttpClient, HttpClientResponse, HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { p256 } from "@noble/curves/nist.js"
import { Deferred, Effect, Layer, Queue } from "effect"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"
import * as WebPushPayload from "effect-realtime/WebPushPayload"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"
import type { BrowserContext, Page, Worker } from "playwright-core"

import { decrypt } from "../noble.js"
import { isMissing, newPage, pages, persistentContext, serve } from "../support/chromium.js"

const serverKey = Effect.map(VapidKeys.generate, ({ publicKey }) => publicKey)

const grant = (context: BrowserContext, origin: string) =>
  Effect.promise(() => context.grantPermissions(["notifications"], { origin: new URL(origin).origin }))

/** What the library would have put on the wire for a device, opened by another implementation. */
const overTheWire = (payload: WebPushPayload.WebPushPayload) =>
  Effect.gen(function*() {
    const { publicKey, secretKey } = p256.keygen()
    const auth = crypto.getRandomValues(new Uint8Array(16))
    const uncompressed = p256.Point.fromBytes(publicKey).toBytes(false)
    const body = yield* Deferred.make<Uint8Array>()
    const client = HttpClient.make((request) =>
      Effect.as(
        request.body._tag === "Uint8Array" ? Deferred.succeed(body, request.body.body) : Effect.void,
        HttpClientResponse.fromWeb(request, new Response(null, { status: 201 }))
      )
    )
    const push = WebPush.layer({ vapid: yield* VapidKeys.generate, subject: "mailto:ops@example.com" }).pipe(
      Layer.provide(Layer.succeed(HttpClient.HttpClient, client))
    )
    const device = new WebPushSubscription({
      endpoint: "https://fcm.googleapis.com/fcm/send/device",
      keys: {
        p256dh: Buffer.from(uncompressed).toString("base64url"),
        auth: Buffer.from(auth).toString("base64url")
      }
    })
    yield* Effect.provide(WebPush.send(device, payload), push)
    return new TextDecoder().decode(decrypt(yield* Deferred.await(body), { privateKey: secretKey, auth }))
  })

declare global {
  var ExtendableEvent: { readonly prototype: { waitUntil: (this: unknown, work: Promise<unknown>) => void } }
  var NotificationEvent: new(
    type: string,
    init: { readonly notification: Notification | undefined; readonly action: string }
  ) => Event & { waitUntil: () => void }
  var WindowClient: { readonly prototype: { focus: (this: { readonly url: string }) => Promise<void> } }
  var clients: { openWindow: (url: string) => Promise<void> }
  var registration: ServiceWorkerRegistration
  /** What the worker does with the message that comes next. */
  var handled: Promise<unknown>
}

/** What a browser does not do is told, instead of waited for until the test's own time is over. */
const within = <A>(what: string, evaluate: () => Promise<A>) =>
  Effect.promise(evaluate).pipe(
    Effect.timeoutFail({ duration: "20 seconds", onTimeout: () => new Error(`Waited 20 seconds for ${what}`) }),
    Effect.orDie
  )

/** Registers the service worker, and gives what delivers a message to it and waits until it is handled. */
const register = (page: Page, script: string) =>
  Effect.gen(function*() {
    const context = page.context()
    const devTools = yield* within("the developer tools", () => context.newCDPSession(page))
    const registered = new Promise<string>((resolve) => {
      devTools.on("ServiceWorker.workerVersionUpdated", ({ versions }) => {
        const active = versions.find(({ status }) => status === "activated")
        if (active !== undefined) resolve(active.registrationId)
      })
    })
    // Listened for before there is one, for it is told once.
    const started = context.waitForEvent("serviceworker", { timeout: 0 }).catch(() => undefined)
    yield* within("ServiceWorker.enable", () => devTools.send("ServiceWorker.enable"))
    yield* within("the registration", () =>
      page.evaluate((script) => navigator.serviceWorker.register(script).then(() => {}), script))
    const registrationId = yield* within("a version that is activated", () =>
      registered)
    const worker = yield* within("the worker to start", async () => context.serviceWorkers()[0] ?? await started)
    if (worker === undefined) return yield* Effect.dieMessage("The browser is gone")
    const origin = new URL(page.url()).origin
    return {
      worker,
      deliver: (data: string) =>
        Effect.gen(function*() {
          yield* within("the worker to answer", () =>
            worker.evaluate(() => {
              const { waitUntil } = ExtendableEvent.prototype
              globalThis.handled = new Promise((resolve) => {
                ExtendableEvent.prototype.waitUntil = function(work) {
                  waitUntil.call(this, work)
                  resolve(work)
                }
              })
            }))
          yield* within("the message to be delivered", () =>
            devTools.send("ServiceWorker.deliverPushMessage", { origin, registrationId, data }))
          yield* within("the message to be handled", () =>
            worker.evaluate(() => globalThis.handled.then(() => {})))
        })
    }
  })

// Not to be polled: Chromium forgets a notification that is being shown while it is asked what there is.
const notifications = (page: Page) =>
  within("the notifications", () =>
    page.evaluate(async () => {
      const registration = await navigator.serviceWorker.ready
      const shown = await registration.getNotifications()
      return shown.map(({ body, data, icon, lang, tag, title }) => ({ title, body, icon, lang, tag, data }))
    }))

/**
 * A click on the notification that is shown, and where it leads. Only a person's own click may focus a window or open one, so that
 * alone is played; what is clicked and which windows there are is real.
 */
const click = (worker: Worker, action = "") =>
  within("the click to lead somewhere", () =>
    worker.evaluate(async (action) => {
      const { clients, registration } = globalThis
      const [notification] = await registration.getNotifications()
      const leads = new Promise<string>((resolve) => {
        WindowClient.prototype.focus = function() {
          resolve(`focused ${this.url}`)
          return Promise.resolve()
        }
        clients.openWindow = (url) => Promise.resolve(resolve(`opened ${url}`))
      })
      const event = new NotificationEvent("notificationclick", { notification, action })
      // Refused for an event that the browser has not made.
      event.waitUntil = () => {}
      dispatchEvent(event)
      return { leads: await leads, left: (await registration.getNotifications()).length }
    }, action)).pipe(Effect.map(({ leads, left }) => left === 0 ? leads : `left ${left}`))

/** Shows a notification with this data, and waits until it is. */
const show = (worker: Worker, data: unknown) =>
  within(
    "the notification to be shown",
    () => worker.evaluate((data) => globalThis.registration.showNotification("shown", { data }), data)
  )

const shop = {
  title: "Payment confirmed",
  body: "Order 7 was approved. Não é só ASCII: 订单 😀",
  icon: "/static/icons/order.png",
  tag: "order-7",
  data: { orderId: "7", url: "/orders/7" }
}

describe.skipIf(isMissing)("Web Push in Chromium", () => {
  it.scopedLive("tells what the person can do", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(pages)
      const page = yield* newPage(context, url)
      const applicationServerKey = yield* serverKey
      const subscribe = (options: { readonly applicationServerKey: string; readonly serviceWorker?: string }) =>
        Effect.promise(() => page.evaluate((options) => globalThis.api.subscribe(options), options)).pipe(
          Effect.map((result) => "reason" in result ? result.reason : "subscribed")
        )
      assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.api.support())), {
        value: undefined
      })
      yield* grant(context, url)
      assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.api.permission())), {
        value: "granted"
      })
      assert.strictEqual(yield* subscribe({ applicationServerKey }), "NoServiceWorker")
      assert.strictEqual(yield* subscribe({ applicationServerKey, serviceWorker: "/missing.js" }), "NoServiceWorker")
      const serviceWorker = "/service-worker.js"
      assert.strictEqual(yield* subscribe({ applicationServerKey: "AAAA", serviceWorker }), "InvalidServerKey")
      // There is no push service without the network.
      assert.strictEqual(yield* subscribe({ applicationServerKey, serviceWorker }), "ServiceUnavailable")
      assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.api.unsubscribe())), {
        value: null
      })
      const devTools = yield* Effect.promise(() => context.newCDPSession(page))
      yield* Effect.promise(() =>
        devTools.send("Browser.setPermission", {
          permission: { name: "notifications" },
          setting: "denied",
          origin: new URL(url).origin
        })
      )
      assert.strictEqual(yield* subscribe({ applicationServerKey, serviceWorker }), "PermissionDenied")
    }))

  it.scopedLive("tells why there can be no subscription, and what the person can do about it", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(pages)
      const applicationServerKey = yield* serverKey
      const dismissed = () => {
        Object.defineProperty(Notification, "permission", { value: "default" })
        Notification.requestPermission = () => Promise.resolve("default")
      }
      const refusals: ReadonlyArray<readonly [reason: string, advice: RegExp, browser: () => void]> = [
        ["InsecureContext", /https/, () => Object.defineProperty(globalThis, "isSecureContext", { value: false })],
        ["Unsupported", /current one/, () => Reflect.deleteProperty(globalThis, "PushManager")],
        ["HomeScreenRequired", /home screen/, () => {
          Reflect.deleteProperty(globalThis, "PushManager")
          Object.defineProperty(navigator, "standalone", { value: false })
        }],
        ["PermissionDismissed", /ask again/, dismissed]
      ]
      for (const [reason, advice, browser] of refusals) {
        const page = yield* newPage(context, url)
        const result = yield* within(reason, async () => {
          await page.evaluate(browser)
          return page.evaluate((options) => globalThis.api.subscribe(options), {
            applicationServerKey,
            serviceWorker: "/service-worker.js"
          })
        })
        assert("reason" in result)
        assert.strictEqual(result.reason, reason)
        assert.match(result.message, advice)
      }
    }))

  it.scopedLive("keeps a subscription, and replaces it when the key has changed", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(pages)
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      // The push service, which is somewhere in the network, is played by the page itself.
      yield* Effect.promise(() =>
        page.evaluate(() => {
          let current: PushSubscription | null = null
          let made = 0
          PushManager.prototype.getSubscription = () => Promise.resolve(current)
          PushManager.prototype.subscribe = (options) => {
            const key = options?.applicationServerKey
            const subscription = Object.create(PushSubscription.prototype, {
              endpoint: { value: `https://push.example/${++made}` },
              expirationTime: { value: null },
              options: { value: { applicationServerKey: key instanceof Uint8Array ? key.buffer : null } },
              getKey: { value: (name: string) => new Uint8Array(name === "auth" ? 16 : 65).buffer },
              unsubscribe: {
                value: () => {
                  current = null
                  return Promise.resolve(true)
                }
              }
            })
            current = subscription
            return Promise.resolve(subscription)
          }
        })
      )
      const subscribe = (applicationServerKey: string) =>
        Effect.promise(() =>
          page.evaluate(
            (applicationServerKey) =>
              globalThis.api.subscribe({ applicationServerKey, serviceWorker: "/service-worker.js" }),
            applicationServerKey
          )
        ).pipe(Effect.map((result) => "value" in result ? result.value : result))
      const [first, second] = [yield* serverKey, yield* serverKey]
      const made = (n: number, applicationServerKey: string) => ({
        endpoint: `https://push.example/${n}`,
        expirationTime: null,
        keys: { p256dh: "A".repeat(87), auth: "A".repeat(22) },
        applicationServerKey
      })
      assert.deepStrictEqual(yield* subscribe(first), { subscription: made(1, first), replaced: null })
      assert.deepStrictEqual(yield* subscribe(first), { subscription: made(1, first), replaced: null })
      assert.deepStrictEqual(yield* subscribe(second), {
        subscription: made(2, second),
        replaced: "https://push.example/1"
      })
      assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.api.unsubscribe())), {
        value: "https://push.example/2"
      })
    }))

  it.scopedLive("shows what was encrypted, and leads where it says", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(HttpRouter.get(pages, "/orders/7", HttpServerResponse.html("<!doctype html>")))
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      const { deliver, worker } = yield* register(page, "/service-worker.js")
      yield* deliver(yield* overTheWire(yield* WebPushPayload.make(shop)))
      assert.deepStrictEqual(yield* notifications(page), [{ ...shop, icon: `${url}${shop.icon}`, lang: "" }])
      yield* newPage(context, `${url}/orders/7`)
      assert.strictEqual(yield* click(worker), `focused ${url}/orders/7`)
      const clicks = [
        [{ url: "/orders/8" }, "", `opened ${url}/orders/8`],
        [undefined, "", `focused ${url}/`],
        [{ url: "https://[" }, "", `focused ${url}/`],
        [{ url: "/orders/7", urlByAction: { pay: "/pay" } }, "pay", `opened ${url}/pay`]
      ] as const
      for (const [data, action, leads] of clicks) {
        yield* show(worker, data)
        assert.strictEqual(yield* click(worker, action), leads)
      }
    }))

  it.scopedLive("shows a declarative message, and one that is no notification", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(pages)
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      const { deliver } = yield* register(page, "/service-worker.js")
      const declarative = yield* WebPushPayload.declarative({
        title: "Payment confirmed",
        navigate: `${url}/orders/7`,
        tag: "declarative",
        data: { orderId: "7" },
        actions: [{ action: "pay", title: "Pay", navigate: `${url}/pay` }]
      })
      yield* deliver(yield* overTheWire(declarative))
      assert.deepStrictEqual((yield* notifications(page)).map(({ data, title }) => ({ title, data })), [{
        title: "Payment confirmed",
        data: { orderId: "7", url: `${url}/orders/7`, urlByAction: { pay: `${url}/pay` } }
      }])
      yield* Effect.promise(() =>
        page.evaluate(async () => {
          const registration = await navigator.serviceWorker.ready
          for (const notification of await registration.getNotifications()) notification.close()
        })
      )
      yield* deliver("not JSON")
      assert.deepStrictEqual((yield* notifications(page)).map(({ title }) => title), [new URL(url).host])
    }))

  it.scopedLive("tells a visible page instead, when it is told to", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(pages)
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      const { deliver } = yield* register(page, "/service-worker.js?tellPages=true")
      yield* Effect.promise(() =>
        page.evaluate(() => {
          globalThis.message = globalThis.api.nextMessage()
        })
      )
      yield* Effect.promise(() => page.bringToFront())
      yield* deliver(yield* overTheWire(yield* WebPushPayload.make(shop)))
      assert.deepStrictEqual(yield* within("the page to be told", () => page.evaluate(() => globalThis.message)), [
        shop
      ])
      assert.deepStrictEqual(yield* notifications(page), [])
      // The page is visible still, and listens no more.
      yield* deliver(yield* overTheWire(yield* WebPushPayload.make(shop)))
      assert.deepStrictEqual((yield* notifications(page)).map(({ title }) => title), [shop.title])
    }))

  it.scopedLive("shows the title of what the browser refuses to show", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(pages)
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      const { deliver } = yield* register(page, "/service-worker.js")
      yield* deliver(JSON.stringify({ title: "Refused", renotify: true, data: { url: "/orders/7" } }))
      assert.deepStrictEqual((yield* notifications(page)).map(({ data, title }) => ({ title, data })), [
        { title: "Refused", data: { url: "/orders/7" } }
      ])
    }))

  it.scopedLive("tells the server of the subscription that takes the place of another", () =>
    Effect.gen(function*() {
      const received = yield* Queue.unbounded<unknown>()
      const url = yield* pages.pipe(
        HttpRouter.post(
          "/push/resubscribe",
          Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ json }) =>
            Effect.flatMap(json, (body) => Queue.offer(received, body)))
            .pipe(Effect.as(HttpServerResponse.empty()))
        ),
        serve
      )
      const context = yield* persistentContext
      const page = yield* newPage(context, url)
      const { worker } = yield* register(
        page,
        "/service-worker.js?resubscribe=/push/resubscribe&applicationServerKey=own"
      )
      yield* Effect.promise(() =>
        worker.evaluate(() => {
          PushManager.prototype.subscribe = (options) =>
            Promise.resolve(Object.create(null, {
              toJSON: { value: () => ({ endpoint: "https://push.example/2", key: options?.applicationServerKey }) }
            }))
        })
      )
      const change = (subscriptions: object) =>
        within("the server to be told", async () => {
          await worker.evaluate(
            (subscriptions) =>
              void dispatchEvent(
                Object.assign(new Event("pushsubscriptionchange"), subscriptions, { waitUntil: () => {} })
              ),
            subscriptions
          )
          return Effect.runPromise(Queue.take(received))
        })
      const old = { endpoint: "https://push.example/1", options: { applicationServerKey: "key" } }
      assert.deepStrictEqual(yield* change({ oldSubscription: old, newSubscription: null }), {
        oldEndpoint: "https://push.example/1",
        subscription: { endpoint: "https://push.example/2", key: "key" }
      })
      assert.deepStrictEqual(yield* change({ oldSubscription: null, newSubscription: null }), {
        subscription: { endpoint: "https://push.example/2", key: "own" }
      })
      assert.deepStrictEqual(yield* change({ newSubscription: { endpoint: "https://push.example/3" } }), {
        subscription: { endpoint: "https://push.example/3" }
      })
    }))
})
