/**
 * The owner of a request: read from the header `Authorization`, else from a cookie, else from a ticket in the query.
 *
 * The browser's own `EventSource` cannot send headers, and sends cookies to another origin only where the browser
 * permits it. A ticket is a signed text that lives for about a minute, and may therefore be in a URL, where a session
 * token must not be: URLs appear in access logs. It opens connections until it has expired, and does not end them: a
 * stream ends when the session does from which the ticket was issued (`Access.expiresAt`).
 *
 * @since 0.1.0
 */
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerRespondable from "@effect/platform/HttpServerRespondable"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Tracer from "effect/Tracer"

import { decode as decodeDuration } from "./internal/duration.js"

/**
 * The owner that a credential names, and the time until which it does. Both are options of a subscription:
 * `EventBroker.respond(channels, { owner, authorize: (channels) => Effect.succeed({ channels, expiresAt }) })`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Access {
  /**
   * The owner, such as the id of a user.
   */
  readonly owner: string
  /**
   * The time at which the session of the owner expires. Without limit by default. A ticket carries it unchanged, and
   * does not outlive it.
   */
  readonly expiresAt?: DateTime.DateTime | undefined
}

/**
 * Verifies a credential of the application. Returns `None` for a credential that names no owner: the next source of the
 * request is read. A failure refuses the request.
 *
 * @since 0.1.0
 * @category models
 */
export type Verify<E = never, R = never> = (credential: Redacted.Redacted) => Effect.Effect<Option.Option<Access>, E, R>

/**
 * The credentials of the application's own that a request can have.
 *
 * @since 0.1.0
 * @category models
 */
export interface Credentials<E = never, R = never> {
  /**
   * The verification of the token in `Authorization: Bearer`. The header is ignored by default.
   */
  readonly bearer?: Verify<E, R> | undefined
  /**
   * The name of the session cookie, and the verification of its value. Cookies are ignored by default.
   */
  readonly cookie?: { readonly name: string; readonly verify: Verify<E, R> } | undefined
}

/**
 * The purpose of a ticket.
 *
 * @since 0.1.0
 * @category models
 */
export interface TicketOptions {
  /**
   * The purpose that a ticket is bound to, such as the path of a route. A ticket that was issued for another one is
   * refused. Empty by default.
   */
  readonly audience?: string | undefined
}

/**
 * The sources of the owner of a request.
 *
 * @since 0.1.0
 * @category models
 */
export interface AuthenticateOptions<E = never, R = never> extends Credentials<E, R>, TicketOptions {
  /**
   * The name of the query parameter that has the ticket. `"ticket"` by default.
   */
  readonly parameter?: string | undefined
  /**
   * The check of a ticket whose session may have ended since it was issued, such as a look-up of the owner. `None`
   * refuses the request. Without it, a ticket opens streams until it expires, also after a logout.
   */
  readonly ticket?: ((access: Access) => Effect.Effect<Option.Option<Access>, E, R>) | undefined
}

/**
 * The options of the layer.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The secret that signs tickets, of 32 bytes or more. With several secrets, the first one signs, and a ticket of any
   * of them is accepted: put a new secret first, and remove the old one after `ttl`.
   */
  readonly secret: Redacted.Redacted | ReadonlyArray<Redacted.Redacted>
  /**
   * The time after which a ticket expires, in milliseconds or as a Duration. 1 minute by default, 10 minutes at most.
   */
  readonly ttl?: Duration.DurationInput | undefined
}

/**
 * A request without a valid credential. An `HttpApi` answers it with status 401, and so does a router to which a
 * handler fails with it.
 *
 * - `Missing`: the request has no credential that was accepted, and no ticket.
 * - `Malformed`: the text is not a ticket.
 * - `WrongSignature`: the ticket was changed, or issued with another secret or for another audience.
 * - `Expired`: the ticket was valid once. The page must request a new one.
 * - `Revoked`: the option `ticket` has refused it.
 *
 * @since 0.1.0
 * @category errors
 */
export class Unauthenticated extends Schema.TaggedError<Unauthenticated>("effect-realtime/Unauthenticated")(
  "Unauthenticated",
  { reason: Schema.Literal("Missing", "Malformed", "WrongSignature", "Expired", "Revoked") },
  HttpApiSchema.annotations({ status: 401 })
) implements HttpServerRespondable.Respondable {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `The request has no valid credential (${this.reason})`
  }
  /**
   * Is `false`: the same request would fail again.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
  /**
   * Returns the response of a router.
   *
   * @since 0.1.0
   */
  [HttpServerRespondable.symbol](): Effect.Effect<HttpServerResponse.HttpServerResponse> {
    return Effect.succeed(HttpServerResponse.empty({ status: 401, headers: { "www-authenticate": "Bearer" } }))
  }
}

/**
 * The service that issues and verifies tickets.
 *
 * @since 0.1.0
 * @category tags
 */
export class AccessTicket extends Context.Tag("effect-realtime/AccessTicket")<AccessTicket, AccessTicket.Service>() {}

/**
 * @since 0.1.0
 */
export declare namespace AccessTicket {
  /**
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    readonly issue: (access: Access, options?: TicketOptions) => Effect.Effect<string>
    readonly verify: (ticket: string, options?: TicketOptions) => Effect.Effect<Access, Unauthenticated>
  }
}

/**
 * Issues a ticket for the owner: a text of `A-Z a-z 0-9 - _ .` that is safe in a URL. It is signed, not encrypted: its
 * holder can read the owner, which must not be a session token.
 *
 * Issue a ticket to a request that `authenticateSession` has accepted. A request with a ticket must not receive
 * another one: it could renew its access forever.
 *
 * @since 0.1.0
 * @category tickets
 * @example
 * ```ts
 * import { HttpRouter, HttpServerResponse } from "@effect/platform"
 * import { Effect, Option, Redacted } from "effect"
 * import { AccessTicket } from "effect-realtime"
 *
 * const sessions = new Map([["4f9c2a", "anna"]])
 * const findSession = (id: Redacted.Redacted) =>
 *   Effect.sync(() => Option.map(Option.fromNullable(sessions.get(Redacted.value(id))), (owner) => ({ owner })))
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.post(
 *     "/ticket",
 *     AccessTicket.authenticateSession({ bearer: findSession }).pipe(
 *       Effect.flatMap((access) => AccessTicket.issue(access, { audience: "/events" })),
 *       Effect.map((ticket) => HttpServerResponse.text(ticket, { headers: { "cache-control": "no-store" } }))
 *     )
 *   )
 * )
 * ```
 */
export const issue = (access: Access, options?: TicketOptions): Effect.Effect<string, never, AccessTicket> =>
  Effect.flatMap(AccessTicket, (service) => service.issue(access, options))

/**
 * Verifies a ticket, and returns the access that it was issued for. Fails with `Unauthenticated`.
 *
 * @since 0.1.0
 * @category tickets
 */
export const verify = (
  ticket: string,
  options?: TicketOptions
): Effect.Effect<Access, Unauthenticated, AccessTicket> =>
  Effect.flatMap(AccessTicket, (service) => service.verify(ticket, options))

/**
 * Returns the owner of a request by its header `Authorization`, or else by its cookie. Accepts no ticket. Fails with
 * `Unauthenticated` if neither names an owner, and with the failure of a verification.
 *
 * @since 0.1.0
 * @category authentication
 */
export const authenticateSession = <E = never, R = never>(
  credentials: Credentials<E, R>
): Effect.Effect<Access, Unauthenticated | E, HttpServerRequest.HttpServerRequest | R> =>
  Effect.flatMap(
    sessionOf(credentials),
    Option.match({ onNone: () => new Unauthenticated({ reason: "Missing" }), onSome: Effect.succeed })
  )

/**
 * Returns the owner of a request by its header `Authorization`, or else by its cookie, or else by the ticket in its
 * query. Fails with `Unauthenticated` if none names an owner, and with the failure of a verification.
 *
 * Removes the ticket from the attributes `url.full` and `url.query` of the spans of the request.
 *
 * @since 0.1.0
 * @category authentication
 * @example
 * ```ts
 * import { HttpRouter } from "@effect/platform"
 * import { Effect, Option, Redacted } from "effect"
 * import { AccessTicket, EventBroker } from "effect-realtime"
 *
 * const sessions = new Map([["4f9c2a", "anna"]])
 * const findSession = (id: Redacted.Redacted) =>
 *   Effect.sync(() => Option.map(Option.fromNullable(sessions.get(Redacted.value(id))), (owner) => ({ owner })))
 *
 * const authenticate = AccessTicket.authenticate({
 *   bearer: findSession,
 *   cookie: { name: "session", verify: findSession },
 *   audience: "/events"
 * })
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.get(
 *     "/events",
 *     Effect.flatMap(authenticate, ({ expiresAt, owner }) =>
 *       EventBroker.respond("news", { owner, authorize: (channels) => Effect.succeed({ channels, expiresAt }) }))
 *   )
 * )
 * ```
 */
export const authenticate = <E = never, R = never>(
  options: AuthenticateOptions<E, R>
): Effect.Effect<Access, Unauthenticated | E, AccessTicket | HttpServerRequest.HttpServerRequest | R> => {
  const { audience, parameter = "ticket" } = options
  const redactSpans = redactSpansOf(parameter)
  return Effect.gen(function*() {
    const { url } = yield* HttpServerRequest.HttpServerRequest
    const ticket = new URLSearchParams(url.replace(/^[^?]*/, "")).get(parameter)
    if (ticket !== null) yield* redactSpans
    const session = yield* sessionOf(options)
    if (Option.isSome(session)) return session.value
    if (ticket === null) return yield* new Unauthenticated({ reason: "Missing" })
    const access = yield* verify(ticket, { audience })
    const current = options.ticket === undefined ? Option.some(access) : yield* options.ticket(access)
    return yield* Option.match(current, {
      onNone: () => new Unauthenticated({ reason: "Revoked" }),
      onSome: Effect.succeed
    })
  })
}

const sessionOf = <E, R>({ bearer, cookie }: Credentials<E, R>) =>
  Effect.gen(function*() {
    const { cookies, headers } = yield* HttpServerRequest.HttpServerRequest
    const token = /^Bearer +([^ ]+) *$/i.exec(headers.authorization ?? "")?.[1]
    if (bearer !== undefined && token !== undefined) {
      const access = yield* bearer(Redacted.make(token))
      if (Option.isSome(access)) return access
    }
    const value = cookie === undefined ? undefined : cookies[cookie.name]
    return cookie === undefined || value === undefined ? Option.none() : yield* cookie.verify(Redacted.make(value))
  })

/** Replaces the parameter in the URL that the tracer of the server has recorded, in the span and those around it. */
const redactSpansOf = (parameter: string) => {
  const isTicket = (name: string) => new URLSearchParams(name).has(parameter)
  return Effect.map(Effect.option(Effect.currentParentSpan), (current) => {
    let span: Tracer.AnySpan | undefined = Option.getOrUndefined(current)
    while (span?._tag === "Span") {
      for (const attribute of ["url.full", "url.query"]) {
        const value = span.attributes.get(attribute)
        if (typeof value === "string") {
          span.attribute(
            attribute,
            value.replace(/([^?&#=]*=)[^&#]*/g, (pair, name: string) => isTicket(name) ? `${name}REDACTED` : pair)
          )
        }
      }
      span = Option.getOrUndefined(span.parent)
    }
  })
}

const minSecretBytes = 32
const maxTtlMillis = 10 * 60 * 1000
const encoder = new TextEncoder()
const algorithm = { name: "HMAC", hash: "SHA-256" }

/** A ticket is its payload, a dot and the signature. The last character of 32 bytes has two bits that must be zero. */
const pattern = /^([\w-]+)\.([\w-]{42}[AEIMQUYcgkosw048])$/

/** The expiry of the ticket, the owner, and the expiry of the session. Times are in milliseconds. */
const decodePayload = Schema.decode(
  Schema.compose(
    Schema.StringFromBase64Url,
    Schema.parseJson(Schema.Tuple(Schema.Number, Schema.String, Schema.NullOr(Schema.DateTimeUtcFromNumber)))
  )
)

const illegal = (rule: string) => Effect.die(new Cause.IllegalArgumentException(`AccessTicket: ${rule}`))

const make = Effect.fnUntraced(function*({ secret, ttl = "1 minute" }: Options) {
  const redacted = Arr.ensure(secret)
  if (!redacted.every(Redacted.isRedacted)) {
    return yield* illegal("a secret must be Redacted, as Config.redacted makes it")
  }
  const secrets = redacted.map((secret) => encoder.encode(Redacted.value(secret)))
  if (!Arr.isNonEmptyArray(secrets) || secrets.some(({ length }) => length < minSecretBytes)) {
    return yield* illegal(`a secret must be at least ${minSecretBytes} bytes long`)
  }
  const lifetime = Option.match(decodeDuration(ttl), { onNone: () => 0, onSome: Duration.toMillis })
  if (!(lifetime > 0 && lifetime <= maxTtlMillis)) {
    return yield* illegal("ttl must be longer than 0, and at most 10 minutes")
  }
  const keys = yield* Effect.forEach(
    secrets,
    (secret) => Effect.promise(() => crypto.subtle.importKey("raw", secret, algorithm, false, ["sign", "verify"]))
  )

  // The first element separates tickets from anything else that the application signs with the secret.
  const signed = (payload: string, { audience = "" }: TicketOptions) =>
    encoder.encode(JSON.stringify(["effect-realtime/AccessTicket", audience, payload]))

  const service: AccessTicket.Service = {
    issue: Effect.fnUntraced(function*({ expiresAt, owner }, options = {}) {
      const now = yield* Clock.currentTimeMillis
      const until = expiresAt === undefined ? null : DateTime.toEpochMillis(expiresAt)
      const expiry = Math.min(now + lifetime, until ?? Infinity)
      const payload = Encoding.encodeBase64Url(JSON.stringify([expiry, owner, until]))
      const signature = yield* Effect.promise(() => crypto.subtle.sign("HMAC", keys[0], signed(payload, options)))
      return `${payload}.${Encoding.encodeBase64Url(new Uint8Array(signature))}`
    }),
    verify: Effect.fnUntraced(function*(ticket, options = {}) {
      const [, payload, signature] = pattern.exec(ticket) ?? []
      if (payload === undefined || signature === undefined) return yield* new Unauthenticated({ reason: "Malformed" })
      const bytes = Uint8Array.from(yield* Effect.orDie(Encoding.decodeBase64Url(signature)))
      const message = signed(payload, options)
      const isSigned = yield* Effect.exists(keys, (key) =>
        // Compares in constant time.
        Effect.promise(() => crypto.subtle.verify("HMAC", key, bytes, message)))
      if (!isSigned) return yield* new Unauthenticated({ reason: "WrongSignature" })
      const [expiry, owner, expiresAt] = yield* Effect.mapError(
        decodePayload(payload),
        () => new Unauthenticated({ reason: "Malformed" })
      )
      if ((yield* Clock.currentTimeMillis) >= expiry) return yield* new Unauthenticated({ reason: "Expired" })
      return expiresAt === null ? { owner } : { owner, expiresAt }
    })
  }
  return service
})

/**
 * Makes a layer of the service. Dies with `IllegalArgumentException` if a secret is shorter than 32 bytes, or `ttl` is
 * out of range.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import { AccessTicket } from "effect-realtime"
 *
 * const secret = Redacted.make("a secret of at least 32 bytes, from your configuration")
 *
 * const Tickets = AccessTicket.layerWith({ secret, ttl: "30 seconds" })
 * ```
 */
export const layerWith = (options: Options): Layer.Layer<AccessTicket> => Layer.effect(AccessTicket, make(options))

/**
 * Makes a layer of the service with options that are read from the configuration.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { AccessTicket } from "effect-realtime"
 *
 * const Tickets = AccessTicket.layerConfig({ secret: Config.redacted("TICKET_SECRET") })
 *
 * // While tickets of the old secret are in use.
 * const Rotating = AccessTicket.layerConfig({
 *   secret: Config.all([Config.redacted("TICKET_SECRET"), Config.redacted("OLD_TICKET_SECRET")])
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<AccessTicket, ConfigError.ConfigError> =>
  Layer.effect(AccessTicket, Effect.flatMap(Config.unwrap(options), make))
