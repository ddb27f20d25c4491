/**
 * The `HttpClient` for `WebPush` on Node. It is safe for URLs that come from users.
 *
 * @since 0.1.0
 */
import { X509Certificate } from "node:crypto"
import * as Dns from "node:dns"
import type * as Net from "node:net"

import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as UrlParams from "@effect/platform/UrlParams"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"

import { Transmission } from "../WebPush.js"
import * as AddressPolicy from "./internal/addressPolicy.js"
import type { Exchange } from "./internal/exchange.js"
import * as HttpProxy from "./internal/proxy.js"
import { PushResponse } from "./internal/pushResponse.js"
import * as PushTransport from "./internal/pushTransport.js"

/**
 * The HTTP proxy of a client.
 *
 * @since 0.1.0
 * @category models
 */
export interface Proxy {
  /** URL of the proxy: `http://proxy.example.com:3128`, or `https://` for a connection in TLS. It has no credentials. */
  readonly url: string
  /** User name and password of the proxy, with a colon between them. None by default. */
  readonly credentials?: Redacted.Redacted | undefined
}

/**
 * The options of the client.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Number of connections to one origin over HTTP/1.1. Over HTTP/2 there is one. 64 by default. */
  readonly connections?: number | undefined
  /**
   * Addresses and subnets (`10.1.0.0/16`) that are allowed although they are not public: those of your own push
   * service. None by default.
   */
  readonly allowedAddresses?: ReadonlyArray<string> | undefined
  /** Certificates to trust, in PEM, instead of the well-known ones. */
  readonly ca?: string | ReadonlyArray<string> | undefined
  /** Resolver of names. Its addresses are checked as well. `dns.lookup` by default. */
  readonly lookup?: Net.LookupFunction | undefined
  /**
   * Proxy of all connections, or `"environment"` for the one of the variables `HTTPS_PROXY` and `NO_PROXY`, which are
   * read when the client is built. Names are then resolved by the proxy, which has to refuse private addresses: the
   * client refuses only those that stand in a URL. No proxy by default.
   */
  readonly proxy?: "environment" | Proxy | undefined
}

const isCertificate = (pem: string): boolean => {
  try {
    return new X509Certificate(pem).raw.length > 0
  } catch {
    return false
  }
}

const proxyOf = ({ proxy }: Options): HttpProxy.Proxy | undefined => {
  if (proxy === "environment") return HttpProxy.fromEnvironment(process.env)
  const made = proxy && HttpProxy.fromUrl(proxy.url)
  return made && { url: made.url, credentials: proxy.credentials, except: [] }
}

const isProxy = (proxy: "environment" | Proxy): boolean =>
  proxy === "environment"
    ? HttpProxy.urlIn(process.env) === "" || HttpProxy.fromEnvironment(process.env) !== undefined
    : Option.match(Option.fromNullable(HttpProxy.fromUrl(proxy.url)), {
      onNone: () => false,
      onSome: ({ credentials }) => credentials === undefined
    })

const mistakeIn = ({ allowedAddresses = [], ca = [], connections = 1, proxy }: Options): string | undefined =>
  !Number.isSafeInteger(connections) || connections < 1
    ? "connections must be a whole number, 1 or more"
    : !allowedAddresses.every(AddressPolicy.isSubnet)
    ? "allowedAddresses must be addresses, or subnets such as 10.1.0.0/16"
    : ![ca].flat().every(isCertificate)
    ? "ca must be certificates in PEM"
    : proxy !== undefined && !isProxy(proxy)
    ? "proxy must be an http or https URL, whose credentials are an option of their own"
    : undefined

/**
 * Builds a client for URLs that come from users:
 *
 * - It connects to public addresses only, for an address in the URL and for all addresses of a name, and follows no
 *   redirect.
 * - It keeps connections alive: one for each origin over HTTP/2, at most `connections` over HTTP/1.1.
 * - It probes a connection of HTTP/2 that was silent for a second before it uses it again. It sends a request once
 *   more that met the end of an idle connection of HTTP/1.1.
 * - It reads a response completely before it returns it, and cuts its body off after 8 KiB.
 * - It closes the connection of a request that is interrupted, and a connection that is not established within 10
 *   seconds.
 * - It opens no span, since the URL is a secret.
 *
 * It accepts https URLs only, and bodies of bytes only. The connections are closed with the scope. Dies with
 * `IllegalArgumentException` if an option is invalid.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 *
 * const client = PushHttpClient.make({ connections: 16 })
 * ```
 */
export const make = (options: Options = {}): Effect.Effect<HttpClient.HttpClient, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.suspend(() => {
        const mistake = mistakeIn(options)
        return mistake === undefined
          ? Effect.sync(() =>
            PushTransport.make({
              connections: options.connections ?? 64,
              isAllowed: AddressPolicy.make(options.allowedAddresses ?? []),
              ca: options.ca === undefined ? undefined : [options.ca].flat(),
              lookup: options.lookup ?? Dns.lookup,
              proxy: proxyOf(options)
            })
          )
          : Effect.die(new Cause.IllegalArgumentException(`PushHttpClient: ${mistake}`))
      }),
      (transport) => Effect.sync(() => transport.close())
    ),
    (transport) =>
      // Not `HttpClient.make`: its span contains the URL, and its AbortController is a cost without a use here.
      HttpClient.makeWith<HttpClientError.HttpClientError, never, HttpClientError.HttpClientError, never>(
        Effect.flatMap((request) =>
          Effect.withFiberRuntime<HttpClientResponse.HttpClientResponse, HttpClientError.RequestError>((fiber) =>
            Effect.async((resume) => {
              const known = Context.getOption(fiber.currentContext, Transmission)
              const transmission = Option.getOrElse(known, (): Transmission["Type"] => ({ sent: 0 }))
              transmission.sent ??= 0
              const fail = (reason: "Transport" | "Encode" | "InvalidUrl", cause?: unknown) =>
                resume(Effect.fail(new HttpClientError.RequestError({ request, reason, cause })))
              const url = Either.getOrUndefined(UrlParams.makeUrl(request.url, request.urlParams, request.hash))
              if (url?.protocol !== "https:") return fail("InvalidUrl")
              if (request.body._tag !== "Uint8Array" && request.body._tag !== "Empty") {
                return fail("Encode")
              }
              const settled = () => transport.exchanges.delete(exchange)
              const exchange: Exchange = {
                method: request.method,
                url,
                headers: request.headers,
                body: request.body._tag === "Uint8Array" ? request.body.body : new Uint8Array(),
                transmission,
                succeed: (answer) => {
                  settled()
                  resume(Effect.succeed(new PushResponse(request, answer)))
                },
                fail: (cause) => {
                  settled()
                  fail("Transport", cause)
                },
                cancel: () => {}
              }
              transport.run(exchange)
              return Effect.sync(() => {
                settled()
                exchange.cancel()
              })
            })
          )
        ),
        Effect.succeed
      )
  )

/**
 * Provides the client of `make` with its defaults.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 * import * as WebPush from "effect-realtime/WebPush"
 * import * as WebPushCrypto from "effect-realtime/WebPushCrypto"
 *
 * const webPush = (options: WebPush.Options) =>
 *   WebPush.layerWith(options).pipe(Layer.provide([PushHttpClient.layer, WebPushCrypto.layer]))
 * ```
 */
export const layer: Layer.Layer<HttpClient.HttpClient> = Layer.scoped(HttpClient.HttpClient, make())

/**
 * Provides the client of `make` with options.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 *
 * const ClientLive = PushHttpClient.layerWith({ allowedAddresses: ["10.1.0.0/16"] })
 * ```
 */
export const layerWith = (options: Options): Layer.Layer<HttpClient.HttpClient> =>
  Layer.scoped(HttpClient.HttpClient, make(options))

/**
 * Provides the client of `make` with options from the configuration.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 *
 * const ClientLive = PushHttpClient.layerConfig({ ca: Config.string("PUSH_CA") })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<HttpClient.HttpClient, ConfigError.ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerWith))
