/**
 * The servers that may have the log: those of URLs, of a client that the program has made, or of Sentinel.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Struct from "effect/Struct"
import type { AnyRedisClientOptions } from "redis"
import { RedisClient } from "redis"

import { EventLogError } from "../../EventLog.js"
import type { Server, Servers } from "./client.js"
import { answer, at, connect } from "./client.js"

const isNever = () => Effect.succeed(false)

/** Parses the URLs of servers that all have the log, or lead to it. */
export const fromUrls = (
  urls: ReadonlyArray<string>,
  username: string | undefined,
  password: Redacted.Redacted | undefined
): Effect.Effect<Servers, EventLogError> =>
  Effect.try({
    try: (): Servers => {
      const candidates = urls.map((url) =>
        toServer({
          // A client for each URL would take tens of milliseconds.
          ...RedisClient.parseURL(url),
          ...(username === undefined ? {} : { username }),
          ...(password === undefined ? {} : { password: Redacted.value(password) })
        })
      )
      return {
        database: candidates[0]?.database ?? 0,
        candidates: Effect.succeed(candidates),
        isOutdated: isNever
      }
    },
    // The error of the client quotes the URL, and the password in it.
    catch: () => unavailable("the url of Redis must be redis: or rediss:, as in redis://host:port/database")
  })

/** Copies the options of a client. */
export const fromOptions = (options: AnyRedisClientOptions): Servers => {
  const server = toServer(options)
  return { database: server.database ?? 0, candidates: Effect.succeed([server]), isOutdated: isNever }
}

/** Asks the client of a cluster for the server that has a key. */
export const fromCluster = (
  cluster: {
    readonly isOpen: boolean
    readonly exists: (key: string) => Promise<unknown>
    readonly getNodeClientForKey: (key: string) => Promise<{ readonly options: AnyRedisClientOptions }>
  },
  key: string,
  timeout: number
): Servers => ({
  database: 0,
  candidates: Effect.suspend(() =>
    cluster.isOpen
      // The client follows redirections, and knows the server afterwards.
      ? answer(() => cluster.exists(key).then(() => cluster.getNodeClientForKey(key)), timeout)
      : unavailable("the client of the cluster is not connected")
  ).pipe(Effect.map(({ options }) => [toServer(options)])),
  isOutdated: isNever
})

/** Asks the sentinels for the master. The options of its connections are those of the first server. */
export const bySentinel = (
  sentinels: Servers,
  name: string,
  servers: Servers,
  timeout: number
): Servers => {
  const ask = Effect.fnUntraced(function*(sentinel: Server) {
    const client = yield* connect(sentinel, timeout, yield* Deferred.make<never, EventLogError>())
    const address = yield* answer(() => client.sendCommand(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]), timeout)
    return Array.isArray(address) ? address.map(String) : yield* unavailable(`Sentinel knows no master "${name}"`)
  }, Effect.scoped)
  const master = Effect.flatMap(sentinels.candidates, (all) => Effect.raceAll(all.map(ask)))
  return {
    database: servers.database,
    candidates: Effect.zipWith(
      master,
      servers.candidates,
      ([host, port], [server = {}]) => [at(server, Number(port), host)]
    ),
    isOutdated: ({ socket }) =>
      Effect.suspend(() =>
        Effect.match(master, {
          onFailure: () => false,
          onSuccess: ([host, port]) => addressOf(socket) !== `${host}:${port}`
        })
      )
  }
}

const addressOf = (socket: Server["socket"]) =>
  socket !== undefined && "port" in socket && "host" in socket ? `${socket.host}:${socket.port}` : ""

const toServer: (options: AnyRedisClientOptions) => Server = Struct.pick(
  "socket",
  "username",
  "password",
  "credentialsProvider",
  "database",
  "name",
  "disableClientInfo",
  "clientInfoTag"
)

const unavailable = (detail: string) => new EventLogError({ reason: "Unavailable", detail })
