import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpRouter,
  HttpServerResponse
} from "@effect/platform"
import { NodeContext, NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Config,
  ConfigProvider,
  DateTime,
  Duration,
  Effect,
  Exit,
  FastCheck as fc,
  Layer,
  Logger,
  Option,
  Redacted,
  TestClock,
  Tracer
} from "effect"
import { AccessTicket, EventBroker, EventLog, WebPushApi } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

import { serveNode, serveWeb } from "./support/servers.js"

const secretOf = (letter: string) => Redacted.make(letter.repeat(32))
const Tickets = AccessTicket.layerWith({ secret: secretOf("a") })
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

const reasonOf = <A, R>(effect: Effect.Effect<A, AccessTicket.Unauthenticated, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

/** A session is found by its id, which begins with the owner. An id that begins with "locked" is refused. */
const findSession: AccessTicket.Verify<"Locked"> = (id) =>
  Effect.gen(function*() {
    const [owner = "", rest] = Redacted.value(id).split("-")
    if (owner === "locked") return yield* Effect.fail("Locked" as const)
    return rest === "session" ? Option.some({ owner }) : Option.none()
  })

const authenticate = AccessTicket.authenticate({
  bearer: findSession,
  cookie: { name: "sid", verify: findSession },
  audience: "/events"
})

describe("AccessTicket", () => {
  it.effect.prop(
    "carries any owner, time and audience through a URL",
    [
      fc.fullUnicodeString(),
      fc.string({ unit: "binary" }),
      fc.option(fc.integer({ min: 1, max: 8.64e15 }), { nil: undefined })
    ],
    ([owner, audience, millis]) =>
      Effect.gen(function*() {
        const expiresAt = millis === undefined ? undefined : DateTime.unsafeMake(millis)
        const ticket = yield* AccessTicket.issue({ owner, expiresAt }, { audience })
        assert.match(ticket, /^[\w.-]+$/)
        const access = yield* AccessTicket.verify(ticket, { audience })
        assert.strictEqual(access.owner, owner)
        assert.deepStrictEqual(access.expiresAt, expiresAt)
        assert.strictEqual(
          yield* reasonOf(AccessTicket.verify(ticket, { audience: `${audience}/` })),
          "WrongSignature"
        )
      }).pipe(Effect.provide(Tickets))
  )

  it.effect("is refused with any character changed, added or removed", () =>
    Effect.gen(function*() {
      const ticket = yield* AccessTicket.issue({ owner: "ada" }, { audience: "/events" })
      const isRefused = (text: string) =>
        Effect.map(reasonOf(AccessTicket.verify(text, { audience: "/events" })), (reason) =>
          assert.include(["Malformed", "WrongSignature"], reason, text))
      for (const [i, character] of Array.from(ticket).entries()) {
        yield* isRefused(ticket.slice(0, i) + ticket.slice(i + 1))
        for (const other of `${alphabet}.= \n`) {
          if (other !== character) {
            yield* isRefused(ticket.slice(0, i) + other + ticket.slice(i + 1))
          }
        }
      }
      for (const text of ["", ".", `${ticket}.`, `${ticket}=`, `${ticket}\n`, ` ${ticket}`, "x".repeat(100_000)]) {
        yield* isRefused(text)
      }
    }).pipe(Effect.provide(Tickets)))

  it.effect("expires after its ttl, and not later than the session", () =>
    Effect.gen(function*() {
      const now = yield* DateTime.now
      const long = yield* AccessTicket.issue({ owner: "ada" })
      const short = yield* AccessTicket.issue({ owner: "ada", expiresAt: DateTime.addDuration(now, "20 seconds") })
      yield* TestClock.adjust("19999 millis")
      assert.strictEqual((yield* AccessTicket.verify(short)).owner, "ada")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* reasonOf(AccessTicket.verify(short)), "Expired")
      yield* TestClock.adjust("39999 millis")
      assert.deepStrictEqual(yield* AccessTicket.verify(long), { owner: "ada" })
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* reasonOf(AccessTicket.verify(long)), "Expired")
    }).pipe(Effect.provide(Tickets)))

  it.effect("is signed with the first secret, and accepted with any", () => {
    const within = (...letters: ReadonlyArray<string>) =>
      Effect.provide(AccessTicket.layerWith({ secret: letters.map(secretOf) }))
    return Effect.gen(function*() {
      const old = yield* AccessTicket.issue({ owner: "ada" }).pipe(within("a"))
      const current = yield* AccessTicket.issue({ owner: "ada" }).pipe(within("b", "a"))
      for (const ticket of [old, current]) {
        assert.strictEqual((yield* AccessTicket.verify(ticket).pipe(within("b", "a"))).owner, "ada")
      }
      assert.strictEqual((yield* AccessTicket.verify(current).pipe(within("b"))).owner, "ada")
      assert.strictEqual(yield* reasonOf(AccessTicket.verify(old).pipe(within("b"))), "WrongSignature")
    })
  })

  it.effect("is configured by the environment", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* AccessTicket.verify(yield* AccessTicket.issue({ owner: "ada" }))).owner, "ada")
    }).pipe(
      Effect.provide(AccessTicket.layerConfig({
        secret: Config.all([Config.redacted("NEW"), Config.redacted("OLD")]),
        ttl: Config.duration("TTL")
      })),
      Effect.withConfigProvider(ConfigProvider.fromMap(
        new Map([["NEW", "n".repeat(32)], ["OLD", "o".repeat(32)], ["TTL", "5 seconds"]])
      ))
    ))

  it.effect("refuses secrets and times that cannot be, when the layer is built", () =>
    Effect.gen(function*() {
      for (
        const [options, rule] of [
          [{ secret: Redacted.make("short") }, /secret must be at least 32 bytes/],
          [{ secret: [] }, /secret must be at least 32 bytes/],
          [Object({ secret: "x".repeat(32) }), /secret must be Redacted/],
          [Object({ secret: secretOf("a"), ttl: "soon" }), /ttl must be/],
          [{ secret: [secretOf("a"), Redacted.make("private")] }, /secret must be at least 32 bytes/],
          [{ secret: secretOf("a"), ttl: 0 }, /ttl must be/],
          [{ secret: secretOf("a"), ttl: Duration.infinity }, /ttl must be/],
          [{ secret: secretOf("a"), ttl: "601 seconds" }, /ttl must be/]
        ] satisfies ReadonlyArray<[AccessTicket.Options, RegExp]>
      ) {
        const exit = yield* Effect.exit(Layer.build(AccessTicket.layerWith(options)))
        const text = Exit.isFailure(exit) ? Cause.pretty(exit.cause) : ""
        assert.match(text, rule)
        assert.include(text, "AccessTicket:")
        assert.notInclude(text, "private")
      }
      assert.isTrue(
        Exit.isSuccess(yield* Effect.exit(Layer.build(AccessTicket.layerWith({ secret: secretOf("ä"), ttl: 600_000 }))))
      )
    }).pipe(Effect.scoped))
})

for (const [name, serve] of [["Node's server", serveNode], ["a web handler", serveWeb]] as const) {
  describe(`AccessTicket over ${name}`, () => {
    const app = HttpRouter.empty.pipe(
      HttpRouter.get("/events", Effect.map(authenticate, ({ owner }) => HttpServerResponse.text(owner))),
      HttpRouter.post(
        "/ticket",
        AccessTicket.authenticateSession({ bearer: findSession }).pipe(
          Effect.flatMap((access) => AccessTicket.issue(access, { audience: "/events" })),
          Effect.map((ticket) => HttpServerResponse.text(ticket))
        )
      ),
      HttpRouter.catchAll((error) =>
        error === "Locked" ? Effect.succeed(HttpServerResponse.empty({ status: 423 })) : Effect.fail(error)
      )
    )

    it.effect("reads the header, then the cookie, then the ticket", () =>
      Effect.gen(function*() {
        const url = yield* serve(Effect.provide(app, yield* Effect.context<AccessTicket.AccessTicket>()))
        const get = (ticket: string | undefined, headers: Record<string, string>) =>
          Effect.promise(async () => {
            const response = await fetch(`${url}/events${ticket === undefined ? "" : `?x=1&ticket=${ticket}`}`, {
              headers
            })
            return response.status === 200 ? response.text() : response.status
          })
        const ticket = yield* AccessTicket.issue({ owner: "t" }, { audience: "/events" })
        const other = yield* AccessTicket.issue({ owner: "t" }, { audience: "/other" })
        const header = { authorization: "bearer  h-session" }
        const cookie = { cookie: "a=b; sid=c-session" }
        assert.strictEqual(yield* get(ticket, { ...header, ...cookie }), "h")
        assert.strictEqual(yield* get(ticket, cookie), "c")
        assert.strictEqual(yield* get(ticket, {}), "t")
        // A credential that names no owner.
        assert.strictEqual(yield* get(ticket, { ...cookie, authorization: "Bearer wrong" }), "c")
        assert.strictEqual(yield* get(ticket, { authorization: "Bearer wrong", cookie: "sid=wrong" }), "t")
        assert.strictEqual(yield* get(ticket, { authorization: "Basic h-session" }), "t")
        // A verification that fails refuses the request.
        assert.strictEqual(yield* get(ticket, { ...cookie, authorization: "Bearer locked-" }), 423)
        for (const wrong of [undefined, "", "h-session", other, `${ticket}x`]) {
          assert.strictEqual(yield* get(wrong, {}), 401)
          assert.strictEqual(yield* get(wrong, { authorization: `Bearer ${ticket}`, cookie: `sid=${ticket}` }), 401)
        }
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* get(ticket, {}), 401)
      }).pipe(Effect.provide(Tickets), LeakCheck.run))

    it.effect("a ticket is issued to a session only, not to a ticket", () =>
      Effect.gen(function*() {
        const url = yield* serve(Effect.provide(app, yield* Effect.context<AccessTicket.AccessTicket>()))
        const post = (query: string, headers: Record<string, string>) =>
          Effect.promise(async () => {
            const response = await fetch(`${url}/ticket${query}`, { method: "POST", headers })
            return {
              text: await response.text(),
              status: response.status,
              asks: response.headers.get("www-authenticate")
            }
          })
        const { text: ticket } = yield* post("", { authorization: "Bearer ada-session" })
        assert.deepStrictEqual(yield* AccessTicket.verify(ticket, { audience: "/events" }), { owner: "ada" })
        const refused = { text: "", status: 401, asks: "Bearer" }
        assert.deepStrictEqual(yield* post(`?ticket=${ticket}`, {}), refused)
        assert.deepStrictEqual(yield* post("", { authorization: `Bearer ${ticket}` }), refused)
      }).pipe(Effect.provide(Tickets), LeakCheck.run))

    it.effect("a ticket is checked again, if its session may have ended", () =>
      Effect.gen(function*() {
        const sessions = new Map([["s1", "ada"]])
        const app = AccessTicket.authenticate({
          ticket: ({ owner }) =>
            Effect.sync(() => Option.map(Option.fromNullable(sessions.get(owner)), (owner) => ({ owner })))
        }).pipe(
          Effect.map(({ owner }) => HttpServerResponse.text(owner)),
          Effect.catchTag("Unauthenticated", ({ reason }) => HttpServerResponse.text(reason, { status: 401 }))
        )
        const url = yield* serve(Effect.provide(app, yield* Effect.context<AccessTicket.AccessTicket>()))
        const ticket = yield* AccessTicket.issue({ owner: "s1" })
        const get = Effect.promise(async () => (await fetch(`${url}/?ticket=${ticket}`)).text())
        assert.strictEqual(yield* get, "ada")
        sessions.clear()
        assert.strictEqual(yield* get, "Revoked")
      }).pipe(Effect.provide(Tickets), LeakCheck.run))

    it.effect("a stream outlives its ticket, and ends with the session", () =>
      Effect.gen(function*() {
        const app = Effect.flatMap(AccessTicket.authenticate({}), ({ expiresAt }) =>
          EventBroker.respond("news", {
            authorize: (channels) => Effect.succeed({ channels, expiresAt })
          }))
        const context = yield* Effect.context<AccessTicket.AccessTicket | EventBroker.EventBroker>()
        const url = yield* serve(Effect.provide(app, context))
        const expiresAt = DateTime.addDuration(yield* DateTime.now, "5 minutes")
        const ticket = yield* AccessTicket.issue({ owner: "ada", expiresAt })
        const source = yield* TestEventSource.make(`${url}/?ticket=${ticket}`)
        yield* TestClock.adjust("4 minutes")
        yield* EventBroker.publish("news", { data: "still here" })
        assert.strictEqual((yield* TestEventSource.next(source)).data, "still here")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* TestEventSource.end(source), "clean")
      }).pipe(
        Effect.provide([Tickets, EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))]),
        LeakCheck.run
      ))
  })
}

it.effect("a ticket and a secret are in no span, log or error", () =>
  Effect.gen(function*() {
    const seen: Array<unknown> = []
    const spans: Array<Tracer.Span> = []
    const own = yield* Effect.tracer
    const tracer = Tracer.make({
      ...own,
      span: (...args) => {
        const span = own.span(...args)
        spans.push(span)
        return span
      }
    })
    const app = authenticate.pipe(
      Effect.withSpan("inner"),
      Effect.tapErrorCause((cause) => {
        seen.push(cause.toJSON(), Cause.pretty(cause))
        return Effect.logError("refused", cause)
      }),
      Effect.as(HttpServerResponse.empty()),
      Effect.provide(yield* Effect.context<AccessTicket.AccessTicket>())
    )
    const ticket = yield* AccessTicket.issue({ owner: "ada" }, { audience: "/events" })
    const wrong = ticket.replace(/\.(.)/, (_, first) => first === "x" ? ".y" : ".x")
    const logger = Logger.make((line) => seen.push(Logger.jsonLogger.log(line)))
    const url = yield* serveNode(app).pipe(
      Effect.withTracer(tracer),
      Effect.provide(Logger.replace(Logger.defaultLogger, logger))
    )
    for (const text of [ticket, wrong, `${wrong}%20`]) {
      yield* Effect.promise(() => fetch(`${url}/events?a=1&ticket=${text}&b=2`))
    }
    const served = spans.filter(({ attributes }) => attributes.has("url.query"))
    assert.strictEqual(served.length, 3)
    for (const { attributes } of served) {
      assert.strictEqual(attributes.get("url.query"), "a=1&ticket=REDACTED&b=2")
      assert.strictEqual(attributes.get("url.full"), `${url}/events?a=1&ticket=REDACTED&b=2`)
    }
    const text = JSON.stringify([seen, spans.map(({ attributes }) => [...attributes])])
    assert.include(text, "WrongSignature")
    assert.notInclude(text, ticket.slice(0, 20))
    assert.notInclude(text, ticket.slice(-20, -2))
    assert.notInclude(text, "a".repeat(32))
  }).pipe(Effect.provide(Tickets), LeakCheck.run))

it.effect("is the middleware of an HttpApi, and provides the owner of devices", () =>
  Effect.gen(function*() {
    class Authentication extends HttpApiMiddleware.Tag<Authentication>()("Authentication", {
      provides: WebPushApi.Owner,
      failure: AccessTicket.Unauthenticated
    }) {}
    const Api = HttpApi.make("app").add(
      HttpApiGroup.make("app").add(HttpApiEndpoint.get("whoami", "/")).middleware(Authentication)
    )
    const AppLive = HttpApiBuilder.group(Api, "app", (handlers) =>
      handlers.handleRaw("whoami", () =>
        Effect.map(WebPushApi.Owner, (owner) =>
          HttpServerResponse.text(owner))))
    const AuthenticationLive = Layer.effect(
      Authentication,
      Effect.map(AccessTicket.AccessTicket, (tickets) =>
        AccessTicket.authenticate({}).pipe(
          Effect.map(({ owner }) =>
            owner
          ),
          Effect.provideService(AccessTicket.AccessTicket, tickets)
        ))
    )
    const app = HttpApiBuilder.httpApp.pipe(
      Effect.flatten,
      Effect.provide([
        HttpApiBuilder.api(Api).pipe(Layer.provide(AppLive), Layer.provide(AuthenticationLive)),
        HttpApiBuilder.Router.Live,
        HttpApiBuilder.Middleware.layer,
        NodeHttpServer.layerContext
      ]),
      Effect.provide(NodeContext.layer),
      Effect.provide(yield* Effect.context<AccessTicket.AccessTicket>())
    )
    const url = yield* serveNode(app)
    const get = (query: string) =>
      Effect.promise(async () => {
        const response = await fetch(`${url}/${query}`)
        return [response.status, await response.text()]
      })
    const ticket = yield* AccessTicket.issue({ owner: "ada" })
    assert.deepStrictEqual(yield* get(`?ticket=${ticket}`), [200, "ada"])
    assert.deepStrictEqual(yield* get(""), [401, "{\"reason\":\"Missing\",\"_tag\":\"Unauthenticated\"}"])
  }).pipe(Effect.provide(Tickets), LeakCheck.run))
