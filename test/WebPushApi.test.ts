import type { HttpApp } from "@effect/platform"
import {
  FetchHttpClient,
  HttpApi,
  HttpApiBuilder,
  HttpApiClient,
  HttpApiEndpoint,
  HttpApiError,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSecurity,
  HttpClient,
  HttpClientRequest,
  HttpRouter,
  HttpServerRequest,
  OpenApi
} from "@effect/platform"
import { NodeContext, NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Array as Arr, Effect, Layer, Logger, Option, Redacted, Schema, TestClock } from "effect"
import { SubscriptionStore, VapidKeys, WebPush, WebPushApi } from "effect-realtime"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"

import { serveNode } from "./support/servers.js"
import { newSubscription } from "./support/subscriptions.js"

class Authentication extends HttpApiMiddleware.Tag<Authentication>()("Authentication", {
  provides: WebPushApi.Owner,
  failure: HttpApiError.Unauthorized,
  security: { session: HttpApiSecurity.apiKey({ in: "cookie", key: "user" }) }
}) {}

class Api extends HttpApi.make("app").add(WebPushApi.group(Authentication).prefix("/push")) {}

type App = HttpApp.Default<unknown, SubscriptionStore.SubscriptionStore | WebPush.WebPush | Scope.Scope>

const AuthenticationLive = Layer.succeed(Authentication, {
  session: (user) =>
    Redacted.value(user) === "" ? new HttpApiError.Unauthorized() : Effect.succeed(Redacted.value(user))
})

const httpAppOf = <R>(api: Layer.Layer<HttpApi.Api, never, R>) =>
  HttpApiBuilder.httpApp.pipe(
    Effect.flatten,
    Effect.provide([api, HttpApiBuilder.Router.Live, HttpApiBuilder.Middleware.layer, NodeHttpServer.layerContext]),
    Effect.provide(NodeContext.layer)
  )

const withHttpApi: App = httpAppOf(
  HttpApiBuilder.api(Api).pipe(
    Layer.provide(WebPushApi.layerHttpApi(Api)),
    Layer.provide(AuthenticationLive)
  )
)

const withRouter: App = HttpRouter.empty.pipe(
  HttpRouter.mount(
    "/push",
    WebPushApi.router(
      Effect.map(HttpServerRequest.HttpServerRequest, ({ cookies }) => Option.fromNullable(cookies.user))
    )
  )
)

/** A store that is unavailable for one owner. */
const StoreLive = Layer.effect(
  SubscriptionStore.SubscriptionStore,
  Effect.map(SubscriptionStore.makeMemory(), (store) => {
    const away = new SubscriptionStore.SubscriptionStoreError({ reason: "Unavailable", detail: "away" })
    return SubscriptionStore.SubscriptionStore.of({
      ...store,
      upsert: (owner, ...rest) => owner === "broken" ? away : store.upsert(owner, ...rest),
      remove: (owner, endpoint) => owner === "broken" ? away : store.remove(owner, endpoint)
    })
  })
)

const Live = Layer.mergeAll(
  StoreLive,
  Logger.remove(Logger.defaultLogger),
  Layer.unwrapEffect(
    Effect.map(
      Effect.all([VapidKeys.generate, VapidKeys.generate]),
      (vapid) => TestPushService.layerWebPushWith({ vapid })
    )
  )
)

const toJson = Schema.encodeSync(WebPushSubscription)

const suite = (name: string, app: App) => {
  /** Serves the app, and passes its client to the test. */
  const run = <A, E>(
    body: (
      send: (
        path: string,
        options?: { readonly user?: string; readonly body?: BodyInit; readonly contentType?: string }
      ) => Effect.Effect<{ readonly status: number; readonly body: string; readonly headers: Headers }>,
      post: (
        path: string,
        body: unknown,
        user?: string
      ) => Effect.Effect<{ readonly status: number; readonly body: string }>
    ) => Effect.Effect<A, E, SubscriptionStore.SubscriptionStore | WebPush.WebPush>
  ) =>
    Effect.gen(function*() {
      const context = yield* Effect.context<SubscriptionStore.SubscriptionStore | WebPush.WebPush>()
      const url = yield* serveNode(Effect.provide(app, context))
      const send: Parameters<typeof body>[0] = (path, { body, contentType = "application/json", user } = {}) =>
        Effect.promise(async () => {
          const response = await fetch(`${url}/push${path}`, {
            method: body === undefined ? "GET" : "POST",
            headers: {
              "user-agent": "TestBrowser/1.0",
              ...(body === undefined ? undefined : { "content-type": contentType }),
              ...(user === undefined ? undefined : { cookie: `user=${user}` })
            },
            ...(body === undefined ? undefined : { body, duplex: "half" })
          })
          return { status: response.status, body: await response.text(), headers: response.headers }
        })
      return yield* body(send, (path, body, user = "anna") => send(path, { user, body: JSON.stringify(body) }))
    }).pipe(Effect.scoped, Effect.provide(Live))

  const stored = (owner: string) =>
    Effect.map(SubscriptionStore.forOwner(owner), (devices) => devices.map(({ endpoint }) => endpoint))

  describe(`WebPushApi: ${name}`, () => {
    it.live("returns its public key without an owner", () =>
      run((send) =>
        Effect.gen(function*() {
          const { body, headers, status } = yield* send("/vapid-public-key")
          const { publicKey } = yield* WebPush.WebPush
          assert.strictEqual(status, 200)
          assert.deepStrictEqual(JSON.parse(body), { publicKey })
          assert.include(headers.get("cache-control"), "max-age")
        })
      ))

    it.live("stores the subscription of a browser", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const subscription = newSubscription({ expiresAt: 1_900_000_000_000 })
          const answer = yield* post("/subscribe", { ...toJson(subscription), unknown: true })
          assert.strictEqual(answer.status, 201)
          assert.deepStrictEqual(JSON.parse(answer.body), { endpointId: subscription.endpointId })
          assert.strictEqual((yield* post("/subscribe", toJson(subscription))).status, 201)
          const [device, ...others] = yield* SubscriptionStore.forOwner("anna")
          assert.deepStrictEqual(others, [])
          assert.strictEqual(device?.endpoint, subscription.endpoint)
          assert.deepStrictEqual(device?.keys, subscription.keys)
          assert.strictEqual(device?.expiresAt, 1_900_000_000_000)
          assert.strictEqual(device?.userAgent, "TestBrowser/1.0")
          assert.strictEqual(device?.applicationServerKey, (yield* WebPush.WebPush).publicKey)
        })
      ))

    it.live("stores the locale of the page, and preserves it when the browser renews the subscription", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const [before, after] = [newSubscription(), newSubscription()]
          const locale = Effect.map(
            SubscriptionStore.forOwner("anna"),
            (devices) => devices.map(({ locale }) => locale)
          )
          assert.strictEqual((yield* post("/subscribe", { ...toJson(before), locale: "pt-br" })).status, 201)
          assert.deepStrictEqual(yield* locale, ["pt-BR"])
          yield* post("/resubscribe", { oldEndpoint: before.endpoint, subscription: toJson(after) })
          assert.deepStrictEqual(yield* locale, ["pt-BR"])
          const subscription = { ...toJson(after), locale: "de" }
          yield* post("/resubscribe", { oldEndpoint: before.endpoint, subscription })
          assert.deepStrictEqual(yield* locale, ["de"])
        })
      ))

    it.live("replaces the old subscription by the new one", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const [before, after, foreign] = [newSubscription(), newSubscription(), newSubscription()]
          yield* post("/subscribe", toJson(before))
          yield* post("/subscribe", toJson(foreign), "ben")
          const answer = yield* post("/resubscribe", { oldEndpoint: before.endpoint, subscription: toJson(after) })
          assert.strictEqual(answer.status, 201)
          assert.deepStrictEqual(yield* stored("anna"), [after.endpoint])
          yield* post("/resubscribe", { oldEndpoint: foreign.endpoint, subscription: toJson(after) })
          assert.deepStrictEqual(yield* stored("ben"), [foreign.endpoint])
          // A browser that does not report the replaced subscription.
          const another = newSubscription()
          assert.strictEqual((yield* post("/resubscribe", { subscription: toJson(another) })).status, 201)
          assert.sameMembers(yield* stored("anna"), [after.endpoint, another.endpoint])
        })
      ))

    it.live("unsubscribes a device for its owner only, and repeatedly", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const subscription = newSubscription()
          const { endpoint } = subscription
          yield* post("/subscribe", toJson(subscription))
          const foreign = yield* post("/unsubscribe", { endpoint }, "mallory")
          assert.deepStrictEqual(yield* stored("anna"), [endpoint])
          const own = yield* post("/unsubscribe", { endpoint })
          assert.deepStrictEqual(yield* stored("anna"), [])
          const again = yield* post("/unsubscribe", toJson(subscription))
          // The response does not distinguish an endpoint of another owner from an unknown one.
          for (const { body, status } of [foreign, own, again]) assert.deepStrictEqual([status, body], [200, "{}"])
        })
      ))

    it.live("answers 401 without an owner, and stores nothing", () =>
      run((send) =>
        Effect.gen(function*() {
          const subscription = toJson(newSubscription())
          const bodies = {
            "/subscribe": subscription,
            "/resubscribe": { oldEndpoint: "https://a.example/", subscription },
            "/unsubscribe": { endpoint: subscription.endpoint },
            "/subscribe?": "not even a body"
          }
          for (const [path, body] of Object.entries(bodies)) {
            assert.strictEqual((yield* send(path, { body: JSON.stringify(body) })).status, 401, path)
          }
          assert.strictEqual((yield* send("/subscribe", { body: "x".repeat(100_000) })).status, 401)
        })
      ))

    it.live("answers 400 with the path of each error, and without the values", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const good = toJson(newSubscription())
          const faults: ReadonlyArray<readonly [path: string, body: unknown, at: string]> = [
            ["/subscribe", { ...good, endpoint: "http://SECRET.example/" }, "endpoint"],
            ["/subscribe", { ...good, endpoint: undefined }, "endpoint"],
            ["/subscribe", { ...good, keys: { ...good.keys, auth: "SECRET" } }, "keys.auth"],
            ["/subscribe", { ...good, keys: { auth: good.keys.auth } }, "keys.p256dh"],
            ["/subscribe", { ...good, keys: "SECRET" }, "keys"],
            ["/subscribe", { ...good, expirationTime: "SECRET" }, "expirationTime"],
            ["/subscribe", { ...good, locale: "SE_CRET" }, "locale"],
            ["/subscribe", { ...good, locale: 7 }, "locale"],
            ["/resubscribe", { subscription: { ...good, locale: "SECRET-" } }, "subscription.locale"],
            ["/subscribe", "SECRET", ""],
            ["/subscribe", [good], ""],
            ["/subscribe", null, ""],
            ["/resubscribe", { oldEndpoint: ["SECRET"], subscription: good }, "oldEndpoint"],
            [
              "/resubscribe",
              { oldEndpoint: "", subscription: { ...good, endpoint: "SECRET" } },
              "subscription.endpoint"
            ],
            ["/unsubscribe", { endpoint: { SECRET: 1 } }, "endpoint"],
            ["/unsubscribe", "SECRET", ""]
          ]
          for (const [path, body, at] of faults) {
            const answer = yield* post(path, body)
            assert.strictEqual(answer.status, 400, JSON.stringify(body))
            const { _tag, issues } = JSON.parse(answer.body)
            assert.strictEqual(_tag, "HttpApiDecodeError")
            assert.include(issues.map(({ path }: { path: ReadonlyArray<string> }) => path.join(".")), at)
            assert.notMatch(answer.body, /SE_?CRET/)
          }
          assert.deepStrictEqual(yield* stored("anna"), [])
        })
      ))

    it.live("answers 400 to an endpoint that is not allowed, and stores nothing", () =>
      run((_, post) =>
        Effect.gen(function*() {
          for (
            const endpoint of ["https://evil.example/push", "https://127.0.0.1/", "https://fcm.googleapis.com:22/x"]
          ) {
            const subscription = toJson(newSubscription({ endpoint }))
            const subscribed = yield* post("/subscribe", subscription)
            const resubscribed = yield* post("/resubscribe", { oldEndpoint: "", subscription })
            assert.deepStrictEqual([subscribed.status, resubscribed.status], [400, 400], endpoint)
            assert.deepStrictEqual(JSON.parse(subscribed.body).issues[0].path, ["endpoint"])
            assert.deepStrictEqual(JSON.parse(resubscribed.body).issues[0].path, ["subscription", "endpoint"])
          }
          assert.deepStrictEqual(yield* stored("anna"), [])
        })
      ))

    it.live("refuses a device of another owner with other keys, and moves it with the same keys", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const subscription = newSubscription()
          yield* post("/subscribe", toJson(subscription))
          const stolen = toJson(newSubscription({ endpoint: subscription.endpoint }))
          assert.strictEqual((yield* post("/subscribe", stolen, "mallory")).status, 409)
          assert.deepStrictEqual(yield* stored("anna"), [subscription.endpoint])
          assert.strictEqual((yield* post("/subscribe", toJson(subscription), "ben")).status, 201)
          assert.deepStrictEqual([yield* stored("anna"), yield* stored("ben")], [[], [subscription.endpoint]])
        })
      ))

    it.live("refuses a body that is too long, is not JSON, or has another content type", () =>
      run((send) =>
        Effect.gen(function*() {
          const user = "anna"
          const subscription = JSON.stringify(toJson(newSubscription()))
          const long = subscription.padEnd(16 * 1024 + 1)
          const chunked = new Blob([long]).stream()
          assert.strictEqual((yield* send("/subscribe", { user, body: long })).status, 413)
          assert.strictEqual((yield* send("/subscribe", { user, body: chunked })).status, 413)
          assert.strictEqual((yield* send("/subscribe", { user, body: subscription.slice(1) })).status, 400)
          assert.strictEqual((yield* send("/subscribe", { user, body: "" })).status, 400)
          for (const contentType of ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"]) {
            assert.strictEqual((yield* send("/subscribe", { user, body: subscription, contentType })).status, 415)
          }
          assert.deepStrictEqual(yield* stored("anna"), [])
          const contentType = "application/json; charset=utf-8"
          const longest = subscription.padEnd(16 * 1024)
          assert.strictEqual((yield* send("/subscribe", { user, body: longest, contentType })).status, 201)
        })
      ))

    it.live("stores the key of the device, or else the key of the device that it replaces", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const [current = "", old] = (yield* WebPush.WebPush).publicKeys
          assert.isDefined(old)
          const keyOf = (endpoint: string) =>
            Effect.map(
              SubscriptionStore.forOwner("anna"),
              (devices) => devices.find((device) => device.endpoint === endpoint)?.applicationServerKey
            )
          const [before, silent, speaking, unknown] = Arr.makeBy(4, () => newSubscription())
          assert(before !== undefined && silent !== undefined && speaking !== undefined && unknown !== undefined)
          yield* post("/subscribe", { ...toJson(before), applicationServerKey: old })
          assert.strictEqual(yield* keyOf(before.endpoint), old)
          yield* post("/resubscribe", { oldEndpoint: before.endpoint, subscription: toJson(silent) })
          assert.strictEqual(yield* keyOf(silent.endpoint), old)
          // The page now has the current key, and posts the same device without its key.
          yield* post("/subscribe", toJson(silent))
          assert.strictEqual(yield* keyOf(silent.endpoint), old)
          const subscription = { ...toJson(speaking), applicationServerKey: current }
          yield* post("/resubscribe", { oldEndpoint: silent.endpoint, subscription })
          assert.strictEqual(yield* keyOf(speaking.endpoint), current)
          yield* post("/resubscribe", { oldEndpoint: "https://a.example/", subscription: toJson(unknown) })
          assert.strictEqual(yield* keyOf(unknown.endpoint), current)
        })
      ))

    it.live("answers 410 with its own key to a device with an unknown key", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const { publicKey } = yield* WebPush.WebPush
          const foreign = (yield* VapidKeys.generate).publicKey
          const subscription = { ...toJson(newSubscription()), applicationServerKey: foreign }
          const forgotten = newSubscription()
          // A row from the time before the key was retired.
          yield* SubscriptionStore.upsert("anna", forgotten, { applicationServerKey: foreign })
          for (
            const [path, body] of [
              ["/subscribe", subscription],
              ["/resubscribe", { subscription }],
              ["/subscribe", toJson(forgotten)],
              ["/resubscribe", { oldEndpoint: forgotten.endpoint, subscription: toJson(newSubscription()) }]
            ] as const
          ) {
            const answer = yield* post(path, body)
            assert.strictEqual(answer.status, 410)
            assert.deepStrictEqual(JSON.parse(answer.body), {
              _tag: "RenewalRequired",
              reason: "KeyMismatch",
              publicKey
            })
          }
          assert.deepStrictEqual(yield* stored("anna"), [forgotten.endpoint])
        })
      ))

    it.live("answers 410 to a device that a push service reports as gone, until it subscribes again", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const { publicKey } = yield* WebPush.WebPush
          const subscription = newSubscription()
          yield* post("/subscribe", toJson(subscription))
          yield* SubscriptionStore.prune([subscription])
          for (const [path, user] of [["/subscribe", "anna"], ["/subscribe", "ben"]] as const) {
            const answer = yield* post(path, toJson(subscription), user)
            assert.strictEqual(answer.status, 410)
            assert.deepStrictEqual(JSON.parse(answer.body), { _tag: "RenewalRequired", reason: "Gone", publicKey })
          }
          const again = yield* post("/resubscribe", { subscription: toJson(subscription) })
          assert.strictEqual(again.status, 410)
          const renewed = { oldEndpoint: subscription.endpoint, subscription: toJson(newSubscription()) }
          assert.strictEqual((yield* post("/resubscribe", renewed)).status, 201)
        })
      ))

    it.live("removes a device whose user has withdrawn the permission", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const [own, foreign] = [newSubscription(), newSubscription()]
          yield* post("/subscribe", toJson(own))
          yield* post("/subscribe", toJson(foreign), "ben")
          for (const { endpoint } of [own, foreign]) {
            const answer = yield* post("/resubscribe", { oldEndpoint: endpoint, subscription: null })
            assert.deepStrictEqual([answer.status, answer.body], [200, "{}"])
          }
          assert.strictEqual((yield* post("/resubscribe", { subscription: null })).status, 200)
          assert.deepStrictEqual([yield* stored("anna"), yield* stored("ben")], [[], [foreign.endpoint]])
        })
      ))

    it.live("answers 400 to text that some stores cannot store unchanged", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const subscription = toJson(newSubscription())
          for (const text of ["\ud800", "a\0b"]) {
            assert.strictEqual((yield* post("/unsubscribe", { endpoint: text })).status, 400)
            assert.strictEqual((yield* post("/resubscribe", { oldEndpoint: text, subscription })).status, 400)
            assert.strictEqual((yield* post("/resubscribe", { oldEndpoint: text, subscription: null })).status, 400)
          }
          assert.deepStrictEqual(yield* stored("anna"), [])
        })
      ))

    it.live("answers 503 when the store is unavailable", () =>
      run((_, post) =>
        Effect.gen(function*() {
          const subscription = toJson(newSubscription())
          assert.strictEqual((yield* post("/subscribe", subscription, "broken")).status, 503)
          assert.strictEqual((yield* post("/unsubscribe", { endpoint: "" }, "broken")).status, 503)
        })
      ))
  })
}

suite("HttpApi", withHttpApi)
suite("HttpRouter", withRouter)

describe("WebPushApi: the body", () => {
  it.effect("must arrive within 10 seconds, or the answer is 408", () =>
    Effect.gen(function*() {
      const init = {
        method: "POST",
        headers: { "content-type": "application/json", cookie: "user=anna" },
        body: new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode("{")) }),
        duplex: "half"
      }
      const request = HttpServerRequest.fromWeb(new Request("http://127.0.0.1/push/subscribe", init))
      const answer = yield* withRouter.pipe(
        Effect.provideService(HttpServerRequest.HttpServerRequest, request),
        Effect.fork
      )
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* answer).status, 408)
    }).pipe(Effect.scoped, Effect.provide(Live)))
})

class Trace extends HttpApiMiddleware.Tag<Trace>()("Trace") {}

class Orders extends HttpApiGroup.make("orders").add(HttpApiEndpoint.get("list", "/orders").addSuccess(Schema.Void)) {}

class Shop extends HttpApi.make("shop")
  .add(Orders)
  .add(WebPushApi.group(Authentication).middleware(Trace).prefix("/push"))
  .middleware(Trace)
  .prefix("/api")
{}

describe("WebPushApi: layerHttpApi", () => {
  it.scopedLive("implements the group beside others, below the prefixes and middlewares of the application", () =>
    Effect.gen(function*() {
      const context = yield* Effect.context<SubscriptionStore.SubscriptionStore | WebPush.WebPush>()
      const traced: Array<string> = []
      const layer: Layer.Layer<
        HttpApiGroup.ApiGroup<"shop", "webPush">,
        never,
        Authentication | Trace | SubscriptionStore.SubscriptionStore | WebPush.WebPush
      > = WebPushApi.layerHttpApi(Shop)
      const ShopLive = HttpApiBuilder.api(Shop).pipe(
        Layer.provide([layer, HttpApiBuilder.group(Shop, "orders", (h) => h.handle("list", () => Effect.void))]),
        Layer.provide(AuthenticationLive),
        Layer.provide(Layer.succeed(
          Trace,
          Effect.map(HttpServerRequest.HttpServerRequest, ({ url }) => {
            traced.push(url)
          })
        ))
      )
      const baseUrl = yield* serveNode(Effect.provide(httpAppOf(ShopLive), context))
      const client = (cookie: string) =>
        HttpApiClient.make(Shop, {
          baseUrl,
          transformClient: HttpClient.mapRequest(HttpClientRequest.setHeader("cookie", cookie))
        })
      const subscription = newSubscription()
      const { webPush } = yield* client("user=anna")
      assert.deepStrictEqual(yield* webPush.publicKey(), { publicKey: (yield* WebPush.WebPush).publicKey })
      assert.deepStrictEqual(yield* webPush.subscribe({ payload: subscription }), {
        endpointId: subscription.endpointId
      })
      assert.deepStrictEqual((yield* SubscriptionStore.forOwner("anna")).map(({ endpoint }) => endpoint), [
        subscription.endpoint
      ])
      // Once for the group, and once for the API.
      const paths = ["/api/push/vapid-public-key", "/api/push/subscribe"]
      assert.deepStrictEqual(traced, paths.flatMap((path) => [path, path]))
      const stranger = yield* client("user=")
      const error = yield* Effect.flip(stranger.webPush.unsubscribe({ payload: { endpoint: subscription.endpoint } }))
      assert.strictEqual(error._tag, "Unauthorized")
    }).pipe(Effect.provide([Live, FetchHttpClient.layer])))

  it("throws if the API has no such group", () => {
    assert.throws(() => WebPushApi.layerHttpApi(HttpApi.make("shop").add(Orders)), "must have the group")
  })
})

describe("WebPushApi: OpenAPI", () => {
  it("describes the routes, their bodies and each response", () => {
    const { paths } = OpenApi.fromApi(Api)
    const answers = Object.entries(paths).map(([path, { get, post }]) => [
      path,
      Object.keys((get ?? post)?.responses ?? {}),
      (get ?? post)?.security
    ])
    const session = [{ session: [] }]
    const rejected = ["400", "401", "408", "409", "410", "413", "415", "503"]
    assert.deepStrictEqual(answers, [
      ["/push/vapid-public-key", ["200", "400"], []],
      ["/push/subscribe", ["201", ...rejected], session],
      ["/push/resubscribe", ["200", "201", ...rejected], session],
      ["/push/unsubscribe", ["200", ...rejected.filter((status) => status !== "409" && status !== "410")], session]
    ])
  })
})
