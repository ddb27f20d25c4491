import { readFile } from "node:fs/promises"

import {
  FetchHttpClient,
  HttpClient,
  HttpClientResponse,
  HttpRouter,
  HttpServerRequest,
  HttpServerResponse
} from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { p256 } from "@noble/curves/nist.js"
import { Deferred, Effect, Layer, Option, Queue } from "effect"
import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"
import * as WebPushApi from "effect-realtime/WebPushApi"
import * as WebPushCrypto from "effect-realtime/WebPushCrypto"
import * as WebPushPayload from "effect-realtime/WebPushPayload"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"
import type { BrowserContext, Page, Worker } from "playwright-core"

import { bundleOf, Chromium, newPage, pages, persistentContext, serve, until } from "../support/browsers.js"
import { decrypt } from "../support/noble.js"

const serverKey = Effect.map(VapidKeys.generate, ({ publicKey }) => publicKey)

const grant = (context: BrowserContext, origin: string) =>
  Effect.promise(() => context.grantPermissions(["notifications"], { origin: new URL(origin).origin }))

/** Sends a payload to a device, and returns the text that another implementation decrypts. */
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
    const push = WebPush.layerWith({ vapid: yield* VapidKeys.generate, subject: "mailto:ops@example.com" }).pipe(
      Layer.provide([Layer.succeed(HttpClient.HttpClient, client), WebPushCrypto.layer])
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
  ) => Event & { waitUntil: (work?: Promise<unknown>) => void }
  var WindowClient: {
    readonly prototype: {
      focus: (this: { readonly url: string }) => Promise<void>
      navigate: () => Promise<never>
      postMessage: () => void
    }
  }
  var clients: { openWindow: (url: string) => Promise<void>; matchAll: () => Promise<never> }
  var pushService: {
    current: PushSubscription | null
    next: Array<string>
    make: (kind: string) => Promise<PushSubscription | null>
  }
  var example: (key: string) => Promise<string>
  var registration: ServiceWorkerRegistration
  /** The work of the worker for the next message. */
  var handled: Promise<unknown>
}

/** Fails after 20 seconds with the name of the step, before the timeout of the test. */
const within = <A>(step: string, evaluate: () => Promise<A>) =>
  Effect.promise(evaluate).pipe(
    Effect.timeoutFail({ duration: "20 seconds", onTimeout: () => new Error(`Waited 20 seconds for ${step}`) }),
    Effect.orDie
  )

/** Registers the service worker. `deliver` sends it a push message, and waits until the message is handled. */
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
    // The listener comes first, since the event is emitted once.
    const started = context.waitForEvent("serviceworker", { timeout: 0 }).catch(() => undefined)
    yield* within("ServiceWorker.enable", () => devTools.send("ServiceWorker.enable"))
    yield* within("the registration", () =>
      page.evaluate((script) => navigator.serviceWorker.register(script).then(() => {}), script))
    const registrationId = yield* within("a version that is activated", () =>
      registered)
    const worker = yield* within("the worker to start", async () => context.serviceWorkers()[0] ?? await started)
    if (worker === undefined) return yield* Effect.dieMessage("The browser has exited")
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

// This must not be polled: Chromium loses a notification that is being shown during the call.
const notifications = (page: Page) =>
  within("the notifications", () =>
    page.evaluate(async () => {
      const registration = await navigator.serviceWorker.ready
      const shown = await registration.getNotifications()
      return shown.map(({ body, data, icon, lang, tag, title }) => ({ title, body, icon, lang, tag, data }))
    }))

/**
 * Clicks the notification, and returns the effects on windows. Only a real click may focus or open a window, so these
 * two calls are replaced. The notification and the list of windows are real.
 */
const click = (worker: Worker, action = "", trouble?: "focus rejects" | "matchAll rejects") =>
  within("the click to be handled", () =>
    worker.evaluate(async ({ action, trouble }) => {
      const { clients, registration } = globalThis
      const [notification] = await registration.getNotifications()
      const effects: Array<string> = []
      WindowClient.prototype.focus = function() {
        if (trouble === "focus rejects") return Promise.reject(new Error("no focus"))
        effects.push(`focused ${this.url}`)
        return Promise.resolve()
      }
      if (trouble === "matchAll rejects") clients.matchAll = () => Promise.reject(new Error("no windows"))
      clients.openWindow = (url) => {
        effects.push(`opened ${url}`)
        return Promise.resolve()
      }
      const event = new NotificationEvent("notificationclick", { notification, action })
      let handled: Promise<unknown> | undefined
      // The browser refuses waitUntil for an event of a script.
      event.waitUntil = (work?: Promise<unknown>) => {
        handled = work
      }
      dispatchEvent(event)
      await handled
      return { effects: effects.join(", ") || "nothing", left: (await registration.getNotifications()).length }
    }, { action, trouble })).pipe(Effect.map(({ effects, left }) => left === 0 ? effects : `left ${left}`))

/** Shows a notification with the data, and waits until it is visible. */
const show = (worker: Worker, data: unknown) =>
  within(
    "the notification to be shown",
    () => worker.evaluate((data) => globalThis.registration.showNotification("shown", { data }), data)
  )

const closeAll = (page: Page) =>
  within("the notifications to close", () =>
    page.evaluate(async () => {
      const registration = await navigator.serviceWorker.ready
      for (const notification of await registration.getNotifications()) notification.close()
    }))

/** Replaces the push service, for which there is no network. `next` selects the defects of the next subscriptions. */
const replacePushService = () => {
  const fromBase64Url = (text: string) =>
    Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0))
  // A point on the curve, since the route decodes it.
  const point = fromBase64Url("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4")
  let made = 0
  const make = async (kind: string | undefined, key?: Uint8Array | string): Promise<PushSubscription | null> => {
    made++
    if (kind === "denied") throw new DOMException("permission denied", "NotAllowedError")
    if (kind === "null") return null
    const bytes = typeof key === "string" ? fromBase64Url(key) : key
    const endpoint = kind === "removed"
      ? "https://permanently-removed.invalid/fcm/send/x"
      : `https://push.example/${made}`
    const options = {
      "no options": {},
      "options undefined": { options: { value: undefined } },
      "key null": { options: { value: { applicationServerKey: null } } },
      "key empty": { options: { value: { applicationServerKey: new ArrayBuffer(0) } } }
    }[kind ?? ""] ?? { options: { value: { applicationServerKey: bytes?.buffer ?? null } } }
    const subscription: PushSubscription = Object.create(null, {
      endpoint: { value: endpoint },
      expirationTime: { value: null },
      ...options,
      getKey: {
        value: (name: string) => {
          if (kind === "getKey throws") throw new TypeError("no keys")
          return kind === "no keys" ? null : name === "auth" ? new ArrayBuffer(16) : point.buffer
        }
      },
      toJSON: { value: () => ({ endpoint, expirationTime: null, keys: { p256dh: "p", auth: "a" } }) },
      unsubscribe: {
        value: () => {
          globalThis.pushService.current = null
          return Promise.resolve(true)
        }
      }
    })
    globalThis.pushService.current = subscription
    return subscription
  }
  globalThis.pushService = { current: null, next: [], make }
  PushManager.prototype.getSubscription = () => Promise.resolve(globalThis.pushService.current)
  Reflect.set(
    PushManager.prototype,
    "subscribe",
    (options: { readonly applicationServerKey: Uint8Array | string }) =>
      make(globalThis.pushService.next.shift(), options.applicationServerKey)
  )
}

const shop = {
  title: "Payment confirmed",
  body: "Order 7 was approved. Não é só ASCII: 订单 😀",
  icon: "/static/icons/order.png",
  tag: "order-7",
  data: { orderId: "7", url: "/orders/7" }
}

describe.skipIf(Chromium.isMissing)("Web Push in Chromium", () => {
  it.scopedLive("returns a message for the user", () =>
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
      // Without the network there is no push service.
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

  it.scopedLive("returns the reason for which there is no subscription, and a message for the user", () =>
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

  it.scopedLive("returns the current subscription, and replaces it when the key has changed", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(pages)
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      // The page itself replaces the push service, for which there is no network.
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

  it.scopedLive("shows the decrypted notification, and opens its URL", () =>
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
    }))

  it.scopedLive("shows the text of a message that is no notification, and adds a title to an object", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(pages)
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      const { deliver } = yield* register(page, "/service-worker.js")
      const host = new URL(url).host
      const cases: ReadonlyArray<readonly [data: string, title: string, body: string, tag: string]> = [
        ["Order 7 was paid.", host, "Order 7 was paid.", ""],
        ["42", host, "42", ""],
        ["null", host, "null", ""],
        ["[1,2]", host, "[1,2]", ""],
        ["\"in quotes\"", host, "in quotes", ""],
        ["{\"body\":", host, "{\"body\":", ""],
        ["", host, "", ""],
        [JSON.stringify({ body: "no title", tag: "t" }), host, "no title", "t"],
        [JSON.stringify({ title: null, body: "null" }), host, "null", ""],
        [JSON.stringify({ orderId: 7 }), host, "", ""],
        [JSON.stringify({ notification: { title: "inner", body: "of others" } }), "inner", "of others", ""],
        [JSON.stringify({ web_push: 8030, notification: { body: "declared" } }), host, "declared", ""],
        [JSON.stringify({ web_push: 8030 }), host, "", ""],
        [JSON.stringify({ title: "actions", body: "odd", actions: "none" }), "actions", "odd", ""],
        [JSON.stringify({ title: "actions", body: "null", actions: [null] }), "actions", "null", ""],
        [JSON.stringify({ title: "refused", body: "kept", renotify: true }), "refused", "kept", ""]
      ]
      for (const [data, ...shown] of cases) {
        yield* deliver(data)
        const [notification, ...others] = yield* notifications(page)
        assert.deepStrictEqual([notification?.title, notification?.body, notification?.tag], shown, data)
        assert.deepStrictEqual(others, [])
        yield* closeAll(page)
      }
    }))

  it.scopedLive("shows the notification first, even if other steps hang or throw", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(pages)
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      yield* Effect.promise(() => page.bringToFront())
      const { deliver, worker } = yield* register(page, "/service-worker.js?tellPages=true")
      const badged = JSON.stringify({ web_push: 8030, app_badge: 3, notification: { title: "badged", navigate: url } })
      const troubles: ReadonlyArray<() => void> = [
        () => void Object.assign(navigator, { setAppBadge: () => new Promise(() => {}) }),
        () =>
          void Object.assign(navigator, {
            setAppBadge: () => {
              throw new Error("no badge")
            }
          }),
        () => void Object.assign(navigator, { setAppBadge: () => Promise.reject(new Error("no badge")) }),
        () =>
          void (WindowClient.prototype.postMessage = () => {
            throw new Error("no message")
          }),
        () => void (clients.matchAll = () => Promise.reject(new Error("no windows"))),
        () => void (clients.matchAll = () => new Promise(() => {})),
        () =>
          void (clients.matchAll = () => {
            throw new Error("no windows")
          }),
        () => void (caches.open = () => new Promise(() => {}))
      ]
      for (const trouble of troubles) {
        yield* within("the trouble", () => worker.evaluate(trouble))
        yield* deliver(badged)
        assert.deepStrictEqual((yield* notifications(page)).map(({ title }) => title), ["badged"], String(trouble))
        yield* closeAll(page)
      }
    }))

  const clicks: Record<string, ReadonlyArray<readonly [to: string, action: string, leads: string | RegExp]>> = {
    "": [
      ["/orders/7", "", "focused /orders/7#comments"],
      ["/orders/7#other", "", "focused /orders/7#comments"],
      ["/orders/7?from=push", "", "focused /orders/7#comments"],
      ["/orders?id=7", "", "focused /orders?id=7"],
      ["/orders?id=8", "", "focused /orders?id=7"],
      ["/pay", "", "opened /pay"],
      ["/orders/7", "dismiss", "nothing"],
      ["https://elsewhere.example/orders/7", "", "opened https://elsewhere.example/orders/7"]
    ],
    "?match=exact": [
      ["/orders/7", "", "opened /orders/7"],
      ["/orders/7#comments", "", "focused /orders/7#comments"],
      ["/orders?id=8", "", "opened /orders?id=8"]
    ],
    "?match=origin": [
      ["/orders?id=7", "", "focused /orders?id=7"],
      ["https://elsewhere.example/", "", "opened https://elsewhere.example/"],
      ["/pay", "", /^focused /]
    ]
  }

  for (const [query, cases] of Object.entries(clicks)) {
    it.scopedLive(`focuses the window that matches, or opens one: ${query}`, () =>
      Effect.gen(function*() {
        const context = yield* persistentContext
        const empty = HttpServerResponse.html("<!doctype html>")
        const url = yield* serve(
          pages.pipe(HttpRouter.get("/orders/7", empty), HttpRouter.get("/orders", empty))
        )
        const page = yield* newPage(context, url)
        yield* grant(context, url)
        const { worker } = yield* register(page, `/service-worker.js${query}`)
        yield* newPage(context, `${url}/orders/7#comments`)
        yield* newPage(context, `${url}/orders?id=7`)
        for (const [to, action, leads] of cases) {
          yield* show(worker, { url: to })
          const led = (yield* click(worker, action)).replace(url, "")
          if (typeof leads === "string") assert.strictEqual(led, leads, to)
          else assert.match(led, leads)
        }
        for (const trouble of ["focus rejects", "matchAll rejects"] as const) {
          yield* show(worker, { url: "/orders/7" })
          assert.strictEqual(yield* click(worker, "", trouble), `opened ${url}/orders/7`)
        }
      }))
  }

  it.scopedLive("opens a window if no open one can navigate to the URL", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const empty = HttpServerResponse.html("<!doctype html>")
      const url = yield* serve(pages.pipe(HttpRouter.get("/orders/7", empty), HttpRouter.get("/orders", empty)))
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      // The page was loaded before the worker, which does not control it.
      yield* newPage(context, `${url}/orders/7?tab=1#comments`)
      const { worker } = yield* register(page, "/service-worker.js")
      const clicks = [
        ["/orders/7", "opened /orders/7"],
        ["/orders/7?from=push", "opened /orders/7?from=push"],
        ["/orders/7#other", "opened /orders/7#other"],
        ["/orders/7?tab=1", "focused /orders/7?tab=1#comments"],
        ["/orders/7?tab=1#comments", "focused /orders/7?tab=1#comments"],
        ["/pay", "opened /pay"]
      ] as const
      const leads = function*(cases: ReadonlyArray<readonly [to: string, leads: string]>) {
        for (const [to, leads] of cases) {
          yield* show(worker, { url: to })
          assert.strictEqual((yield* click(worker)).replaceAll(url, ""), leads, to)
        }
      }
      yield* leads(clicks)
      // A window that can navigate is preferred to one that cannot.
      yield* newPage(context, `${url}/orders/7?tab=2`)
      yield* leads([["/orders/7?from=push", "focused /orders/7?tab=2"]])
      // A window that has another worker by now refuses to navigate.
      yield* within("the refusal", () =>
        worker.evaluate(() =>
          void (WindowClient.prototype.navigate = () => Promise.reject(new TypeError("refused")))
        ))
      yield* leads([["/orders/7?from=click", "focused /orders/7?from=push, opened /orders/7?from=click"]])
    }))

  /** A worker that reports to a route, the responses of that route, and the requests that it received. */
  const reporter = Effect.gen(function*() {
    const received = yield* Queue.unbounded<unknown>()
    const answers: Array<HttpServerResponse.HttpServerResponse> = []
    const url = yield* pages.pipe(
      HttpRouter.get("/login", HttpServerResponse.html("<!doctype html>")),
      HttpRouter.post(
        "/push/resubscribe",
        Effect.flatMap(
          HttpServerRequest.HttpServerRequest,
          ({ json }) => Effect.flatMap(json, (body) => Queue.offer(received, body))
        )
          .pipe(
            Effect.map(() => answers.shift() ?? HttpServerResponse.unsafeJson({ endpointId: "" }, { status: 201 }))
          )
      ),
      serve
    )
    const context = yield* persistentContext
    const page = yield* newPage(context, url)
    yield* grant(context, url)
    const { deliver, worker } = yield* register(page, "/service-worker.js?resubscribe=/push/resubscribe")
    const [old, current] = [yield* serverKey, yield* serverKey]
    yield* within("the push service to be replaced", () => worker.evaluate(replacePushService))
    const change = (endpoint: string | undefined, isReplaced = false) =>
      within("the change to be handled", () =>
        worker.evaluate(({ endpoint, isReplaced, key }) => {
          const bytes = Uint8Array.from(
            atob(key.replaceAll("-", "+").replaceAll("_", "/")),
            (char) => char.charCodeAt(0)
          )
          const oldSubscription = endpoint === undefined
            ? null
            : { endpoint, options: { applicationServerKey: bytes.buffer } }
          return new Promise<void>((resolve) =>
            dispatchEvent(
              Object.assign(new Event("pushsubscriptionchange"), {
                oldSubscription,
                newSubscription: isReplaced ? globalThis.pushService.current : null,
                waitUntil: (work: Promise<unknown>) => work.then(() => resolve(), () => resolve())
              })
            )
          )
        }, { endpoint, isReplaced, key: old }))
    const next = within("a report", () => Effect.runPromise(Queue.take(received)))
    const reported = (oldEndpoint: string, n: number, applicationServerKey: string) => ({
      oldEndpoint,
      subscription: {
        endpoint: `https://push.example/${n}`,
        expirationTime: null,
        keys: { p256dh: "p", auth: "a" },
        applicationServerKey
      }
    })
    return { answers, change, current, deliver, next, old, received, reported, worker }
  })

  it.scopedLive("repeats a failed report of a change, and reports the end of the old endpoint when the permission is gone", () =>
    Effect.gen(function*() {
      const { answers, change, current, deliver, next, old, received, reported, worker } = yield* reporter
      const login = HttpServerResponse.empty({ status: 302, headers: { location: "/login" } })
      answers.push(HttpServerResponse.empty({ status: 503 }), HttpServerResponse.empty({ status: 401 }), login)
      yield* change("https://push.example/0")
      const first = reported("https://push.example/0", 1, old)
      assert.deepStrictEqual(yield* next, first)
      // Each message repeats the report, until there is nothing to report.
      for (const repeated of [first, first, first]) {
        yield* deliver("a chance")
        assert.deepStrictEqual(yield* next, repeated)
      }
      yield* deliver("nothing left")
      assert.strictEqual(yield* Queue.size(received), 0)

      // Another change before the report of the first one: the server knows the first endpoint only.
      answers.push(HttpServerResponse.empty({ status: 500 }))
      yield* change("https://push.example/1")
      yield* next
      yield* change("https://push.example/2")
      assert.deepStrictEqual(yield* next, reported("https://push.example/1", 3, old))

      answers.push(
        HttpServerResponse.unsafeJson(
          { _tag: "RenewalRequired", reason: "KeyMismatch", publicKey: current },
          { status: 410 }
        )
      )
      yield* change("https://push.example/3")
      assert.deepStrictEqual(yield* next, reported("https://push.example/3", 4, old))
      assert.deepStrictEqual(yield* next, reported("https://push.example/3", 5, current))

      yield* Effect.promise(() => worker.evaluate(() => void (globalThis.pushService.next = ["removed"])))
      yield* change("https://push.example/5")
      assert.deepStrictEqual(yield* next, reported("https://push.example/5", 7, old))

      yield* Effect.promise(() => worker.evaluate(() => void (globalThis.pushService.next = ["denied"])))
      yield* change("https://push.example/7")
      assert.deepStrictEqual(yield* next, { oldEndpoint: "https://push.example/7", subscription: null })
    }))

  it.scopedLive("does not repeat the report of a refused subscription, and repeats it after a temporary failure", () =>
    Effect.gen(function*() {
      const { answers, change, deliver, next, old, received, reported, worker } = yield* reporter
      const origin = "https://push.example/0"
      let made = 0
      for (const status of [400, 403, 404, 413, 415, 422]) {
        answers.push(HttpServerResponse.empty({ status }))
        yield* change(made === 0 ? origin : `https://push.example/${made}`)
        // The server knows the first endpoint only.
        assert.deepStrictEqual(yield* next, reported(origin, ++made, old))
        yield* deliver("a start")
        yield* change(`https://push.example/${made}`, true)
        yield* change(undefined, true)
        yield* deliver("a start")
        assert.strictEqual(yield* Queue.size(received), 0, String(status))
      }
      // The same holds for a subscription that the server had requested.
      answers.push(HttpServerResponse.empty({ status: 410 }), HttpServerResponse.empty({ status: 410 }))
      yield* change(`https://push.example/${made}`)
      assert.deepStrictEqual(yield* next, reported(origin, ++made, old))
      assert.deepStrictEqual(yield* next, reported(origin, ++made, old))
      yield* deliver("a start")
      assert.strictEqual(yield* Queue.size(received), 0)

      // Chromium itself repeats a request after 408, so the worker's `fetch` replaces the response of the route.
      const answer = (status: number) =>
        worker.evaluate((status) => {
          const { fetch } = globalThis
          globalThis.fetch = async (...request) => {
            globalThis.fetch = fetch
            await fetch(...request)
            if (status === 0) throw new TypeError("offline")
            return new Response(null, { status })
          }
        }, status)
      yield* Effect.promise(() => answer(0))
      yield* change(`https://push.example/${made}`)
      const last = reported(origin, ++made, old)
      assert.deepStrictEqual(yield* next, last)
      for (const status of [401, 408, 425, 429, 500, 502, 503, 504, 201]) {
        yield* Effect.promise(() => answer(status))
        yield* deliver("a start")
        assert.deepStrictEqual(yield* next, last, String(status))
      }
      // The report that the old endpoint has ended.
      answers.push(HttpServerResponse.empty({ status: 400 }))
      yield* Effect.promise(() => worker.evaluate(() => void (globalThis.pushService.next = ["denied"])))
      yield* change(`https://push.example/${made}`)
      assert.deepStrictEqual(yield* next, { oldEndpoint: `https://push.example/${made}`, subscription: null })
      yield* deliver("a start")
      assert.strictEqual(yield* Queue.size(received), 0)
    }))

  it.scopedLive("registers at the documented routes, by the documented example", () =>
    Effect.gen(function*() {
      const pairs = yield* Effect.all([VapidKeys.generate, VapidKeys.generate])
      const [{ publicKey }, { publicKey: retired }] = pairs
      const push = yield* Layer.build(
        WebPush.layerWith({ vapid: pairs[0], subject: "mailto:ops@example.com", hosts: ["push.example"] }).pipe(
          Layer.provide([FetchHttpClient.layer, WebPushCrypto.layer])
        )
      )
      const store = yield* SubscriptionStore.makeMemory()
      const owner = Effect.map(HttpServerRequest.HttpServerRequest, ({ cookies }) => Option.fromNullable(cookies.user))
      const guide = yield* Effect.promise(() => readFile("guides/browser.md", "utf8"))
      const example = Array.from(guide.matchAll(/^```ts\n(.*?)^```$/gms), ([, code]) => code ?? "").find((code) =>
        code.includes("PushClient.register(")
      )
      const script = yield* Effect.promise(() =>
        bundleOf(`
          import { Effect } from "effect"
          ${example}
          globalThis.example = (key) => Effect.runPromise(subscribe(key)).then(() => "registered", String)
        `)
      )
      const url = yield* pages.pipe(
        HttpRouter.mount("/push", WebPushApi.router(owner)),
        HttpRouter.mount(
          "/silent",
          HttpRouter.empty.pipe(HttpRouter.all("*", HttpServerResponse.html("<!doctype html>not the routes")))
        ),
        HttpRouter.get("/example.js", HttpServerResponse.text(script, { contentType: "text/javascript" })),
        Effect.provideService(SubscriptionStore.SubscriptionStore, store),
        Effect.provide(push),
        serve
      )
      const context = yield* persistentContext
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      yield* within("the push service to be replaced", () => page.evaluate(replacePushService))
      yield* within("the example", () => page.addScriptTag({ url: "/example.js", type: "module" }))
      yield* until(page, () => "example" in globalThis)
      const stored = Effect.map(store.forOwner("anna"), (devices) =>
        devices.map(({ applicationServerKey, endpoint }) => [endpoint, applicationServerKey]))
      const result = (route = "/push", key?: string) =>
        within("the registration", () =>
          page.evaluate(
            ({ key, route }) =>
              globalThis.api.register(route, {
                serviceWorker: "/service-worker.js",
                ...(key === undefined ? {} : { applicationServerKey: key })
              }),
            { key, route }
          ))
      const unauthorized = yield* result()
      assert.deepInclude(unauthorized, { reason: "NotRegistered", status: 401 })
      assert("message" in unauthorized)
      assert.match(unauthorized.message, /Sign in/)
      yield* Effect.promise(() =>
        context.addCookies([{ name: "user", value: "anna", url }])
      )

      // The example of the guide repeats the failed request.
      const registered = yield* within("the example", () => page.evaluate((key) => globalThis.example(key), publicKey))
      assert.strictEqual(registered, "registered")
      assert.deepStrictEqual(yield* stored, [["https://push.example/1", publicKey]])
      assert.deepInclude(yield* result("/silent", publicKey), { reason: "NotRegistered", status: 200 })

      // A push service has ended the subscription.
      yield* store.prune(yield* store.forOwner("anna"))
      const renewed = yield* result()
      assert("value" in renewed)
      assert.deepInclude(renewed.value, { endpoint: "https://push.example/2", replaced: "https://push.example/1" })
      assert.match(renewed.value.endpointId, /^push\.example\/[0-9a-f]{12}$/)
      assert.deepStrictEqual(yield* stored, [["https://push.example/2", publicKey]])
      assert.deepInclude(yield* result(), { value: { ...renewed.value, replaced: null } })

      // A page with an old key.
      const rotated = yield* result("/push", retired)
      assert("value" in rotated)
      assert.deepStrictEqual(yield* stored, [[rotated.value.endpoint, publicKey]])

      // The browser has dropped the subscription.
      yield* Effect.promise(() => page.evaluate(() => void (globalThis.pushService.current = null)))
      assert.property(yield* result(), "value")
      assert.strictEqual((yield* stored).length, 1)

      const unregistered = yield* within("the end", () => page.evaluate(() => globalThis.api.unregister("/push")))
      assert.property(unregistered, "value")
      assert.deepStrictEqual(yield* stored, [])

      assert.property(yield* result(), "value")
      yield* Effect.promise(() =>
        page.evaluate(() => void Object.defineProperty(Notification, "permission", { value: "denied" }))
      )
      assert.deepInclude(yield* result(), { reason: "PermissionDenied" })
      assert.deepStrictEqual(yield* stored, [])
    }))

  it.scopedLive("supports browsers with missing members, and endpoints that do not exist", () =>
    Effect.gen(function*() {
      const context = yield* persistentContext
      const url = yield* serve(pages)
      const page = yield* newPage(context, url)
      yield* grant(context, url)
      yield* within("the push service to be replaced", () => page.evaluate(replacePushService))
      const applicationServerKey = yield* serverKey
      const subscribe = (...next: ReadonlyArray<string>) =>
        within("the subscription", () =>
          page.evaluate(({ applicationServerKey, next }) => {
            globalThis.pushService.next = [...next]
            return globalThis.api.subscribe({ applicationServerKey, serviceWorker: "/service-worker.js" })
          }, { applicationServerKey, next }))
      let made = 0
      for (const kind of ["no options", "options undefined", "key null", "key empty"]) {
        yield* Effect.promise(() => page.evaluate(() => void (globalThis.pushService.current = null)))
        const results = [yield* subscribe(kind), yield* subscribe()]
        made++
        for (const result of results) {
          assert("value" in result, kind)
          // The same endpoint at each load, and the key that was passed.
          assert.strictEqual(result.value.subscription.endpoint, `https://push.example/${made}`, kind)
          assert.strictEqual(result.value.subscription.applicationServerKey, applicationServerKey, kind)
        }
      }
      for (const kind of ["removed", "null", "no keys", "getKey throws"]) {
        yield* Effect.promise(() => page.evaluate(() => void (globalThis.pushService.current = null)))
        const result = yield* subscribe(kind)
        assert("value" in result, kind)
        assert.match(result.value.subscription.endpoint, /^https:\/\/push\.example\/\d+$/)
      }
      // A subscription of an earlier version of the page.
      yield* Effect.promise(() => page.evaluate(() => globalThis.pushService.make("removed").then(() => {})))
      assert.deepStrictEqual(
        yield* Effect.promise(() => page.evaluate(() => globalThis.api.subscription())),
        { value: null }
      )
      assert.property(yield* subscribe(), "value")
      const never = yield* subscribe("removed", "null", "removed", "no keys", "removed").pipe(
        Effect.zipRight(Effect.promise(() => page.evaluate(() => void (globalThis.pushService.current = null)))),
        Effect.zipRight(subscribe("removed", "null", "removed", "no keys", "removed"))
      )
      assert.deepInclude(never, { reason: "ServiceUnavailable" })
      yield* Effect.promise(() =>
        page.evaluate(() => void Object.defineProperty(PushManager, "supportedContentEncodings", { value: ["aesgcm"] }))
      )
      assert.deepInclude(yield* subscribe(), { reason: "Unsupported" })
    }))

  it.scopedLive("posts the payload to a visible page with the option tellPages", () =>
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
      assert.deepStrictEqual(
        yield* within("the page to receive the message", () => page.evaluate(() => globalThis.message)),
        [
          shop
        ]
      )
      assert.deepStrictEqual(yield* notifications(page), [])
      // The page is still visible, but has no listener.
      yield* deliver(yield* overTheWire(yield* WebPushPayload.make(shop)))
      assert.deepStrictEqual((yield* notifications(page)).map(({ title }) => title), [shop.title])
    }))

  it.scopedLive("shows the title if the browser refuses the options", () =>
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

  it.scopedLive("reports a replaced subscription to the server", () =>
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
        within("the server to receive the report", async () => {
          await worker.evaluate(
            // A change before the end of the last report would be reported together with it.
            (subscriptions) =>
              new Promise<void>((resolve, reject) => {
                const waitUntil = (report: Promise<unknown>) =>
                  void report.then(() => resolve(), reject)
                dispatchEvent(Object.assign(new Event("pushsubscriptionchange"), subscriptions, { waitUntil }))
              }),
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
