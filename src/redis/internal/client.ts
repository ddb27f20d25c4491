/**
 * A connection to Redis, and the errors of its commands.
 */
import { Buffer } from "node:buffer"

import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { AnyRedisClientOptions } from "redis"
import { ClientClosedError, ClientOfflineError, ErrorReply, RedisClient, RESP_TYPES } from "redis"

import { EventLogError } from "../../EventLog.js"
import { annotateWith } from "../../internal/logging.js"
import * as Scripts from "./scripts.js"

export interface Settings {
  readonly servers: Servers
  readonly prefix: string
  /** Events of one channel. */
  readonly capacity: number
  /** The age of an event in milliseconds. */
  readonly maxAge: number
  /** The time for an answer in milliseconds. */
  readonly timeout: number
}

/** The options of a connection to a server. The log overrides all other options of a client. */
export type Server = Pick<
  AnyRedisClientOptions,
  | "socket"
  | "username"
  | "password"
  | "credentialsProvider"
  | "database"
  | "name"
  | "disableClientInfo"
  | "clientInfoTag"
>

/** The servers that may have the log. */
export interface Servers {
  readonly database: number
  /** The servers that are tried at the beginning of a session, all at once. */
  readonly candidates: Effect.Effect<ReadonlyArray<Server>, EventLogError>
  /** Returns true if the log is known to be on another server by now. */
  readonly isOutdated: (server: Server) => Effect.Effect<boolean>
}

const makeFactory = () =>
  RedisClient.factory({
    // A listener receives answers too.
    RESP: 3,
    scripts: {
      open: Scripts.open,
      head: Scripts.head,
      append: Scripts.append,
      last: Scripts.last,
      readLog: Scripts.read,
      seek: Scripts.seek,
      list: Scripts.list,
      readAt: Scripts.readAt,
      lacking: Scripts.lacking,
      attend: Scripts.attend,
      leave: Scripts.leave,
      present: Scripts.present
    }
  })

let factory: ReturnType<typeof makeFactory> | undefined

/**
 * Makes a client that has not connected yet. The class of the clients is made once: it has a method for each command of
 * Redis, which takes tens of milliseconds.
 */
const makeClient = ({ socket, ...server }: Server, timeout: number) => {
  factory ??= makeFactory()
  return factory({
    ...server,
    socket: { ...socket, reconnectStrategy: false, connectTimeout: timeout, socketTimeout: 0 },
    // A lost connection is replaced, and its pending commands fail.
    disableOfflineQueue: true,
    commandsQueueMaxLength: maxPending,
    maintNotifications: "disabled",
    // The pings of the connection fail the commands that Redis does not answer. No command has a timer of its own.
    commandOptions: { timeout: 0, typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } }
  })
}

export type Client = ReturnType<typeof makeClient>

/** Opens a connection, until the scope is closed. Any error of the connection fails `lost`. */
export const connect = Effect.fnUntraced(
  function*(server: Server, timeout: number, lost: Deferred.Deferred<never, EventLogError>) {
    const client = yield* Effect.acquireRelease(
      Effect.sync(() => makeClient(server, timeout)),
      (client) => Effect.sync(() => client.destroy())
    )
    client.on("error", (cause) => Deferred.unsafeDone(lost, Effect.fail(toError(cause))))
    yield* answer(() => client.connect(), timeout).pipe(
      // No command has been sent yet, so a connection that fails is not a timeout of one.
      Effect.mapError((error) =>
        codeOf(error) === undefined
          ? new EventLogError({ reason: "Unavailable", detail: "Redis cannot be reached", cause: error.cause })
          : error
      )
    )
    return client
  }
)

/** Runs a command. */
export const send = <A>(command: () => Promise<A>): Effect.Effect<A, EventLogError> =>
  Effect.tryPromise({ try: command, catch: toError })

/** Runs a command that Redis must answer in time. */
export const answer = <A>(command: () => Promise<A>, millis: number): Effect.Effect<A, EventLogError> =>
  Effect.timeoutFail(send(command), { duration: millis, onTimeout: noAnswer })

const noAnswer = () => new EventLogError({ reason: "Timeout", detail: "Redis has not answered in time" })

/** The size of the events of a page in bytes. */
export const pageBytes = 256 * 1024

/** A connection for pages and large events. */
export interface Pages {
  readonly client: Client
  /** Runs a command whose answer may be large. The connection may take six timeouts from one answer to the next. */
  readonly read: <A>(command: (client: Client) => Promise<A>) => Effect.Effect<A, EventLogError>
  /** Fails if the connection does not answer. While a page is pending, a ping would wait behind it, so none is sent. */
  readonly ping: Effect.Effect<void, EventLogError>
}

export const makePages = (client: Client, timeout: number): Pages => {
  let pending = 0
  let progressAt = 0
  return {
    client,
    read: (command) =>
      Effect.suspend(() => {
        if (pending++ === 0) progressAt = performance.now()
        return send(() => command(client))
      }).pipe(Effect.ensuring(Effect.sync(() => {
        pending--
        progressAt = performance.now()
      }))),
    ping: Effect.suspend(() =>
      pending === 0
        ? Effect.asVoid(answer(() => client.ping(), timeout / 2))
        : performance.now() - progressAt > timeout * 6
        ? noAnswer()
        : Effect.void
    )
  }
}

/** Returns the code with which Redis refused a command, or undefined if it did not refuse it. */
export const codeOf = ({ cause }: EventLogError): string | undefined =>
  cause instanceof ErrorReply ? codeIn(cause) : undefined

const codeIn = ({ message }: ErrorReply): string => /^[A-Z]+/.exec(message)?.[0] ?? "ERR"

/** Returns true if Redis refuses writes. Reads and announcements remain possible. */
export const isRefusedWrite = (error: EventLogError): boolean =>
  ["OOM", "READONLY", "NOREPLICAS", "MISCONF"].includes(codeOf(error) ?? "")

/**
 * Returns true if another shard of the cluster has the log, or is about to have it. The command has changed nothing.
 */
export const isRedirected = (error: EventLogError): boolean =>
  ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"].includes(codeOf(error) ?? "")

/** Returns the server to which a redirection leads. */
export const redirected = (server: Server, { cause }: EventLogError): Server | undefined => {
  const [, host, port] = cause instanceof ErrorReply ? /^MOVED \d+ (\S*):(\d+)/.exec(cause.message) ?? [] : []
  // A server that does not know its name is the one that has answered, on another port.
  return port === undefined ? undefined : at(server, Number(port), host)
}

/** Returns the options of a connection to another address. */
export const at = ({ socket, ...server }: Server, port: number, host = ""): Server => ({
  ...server,
  socket: { ...socket, port, ...(host === "" ? {} : { host }) }
})

/** Returns the permission that a reply names. The rest of the reply may contain values, so it is not shown. */
const permissionOf = (reply: string): string => {
  const [, command] = /'([\w|]+)' (?:sub)?command/.exec(reply) ?? []
  return command === undefined ? `a permission for ${/channel/.test(reply) ? "channels" : "keys"}` : `+${command}`
}

const toError = (cause: unknown): EventLogError => {
  if (cause instanceof EventLogError) return cause
  const unavailable = (detail: string) => new EventLogError({ reason: "Unavailable", detail, cause })
  if (cause instanceof ErrorReply) {
    const code = codeIn(cause)
    const lacks = code === "NOPERM" ? `, the user lacks ${permissionOf(cause.message)}` : ""
    return unavailable(`Redis refused the command: ${code}${lacks}`)
  }
  if (cause instanceof ClientClosedError || cause instanceof ClientOfflineError) {
    return unavailable("the connection to Redis is closed")
  }
  if (cause instanceof Error && cause.message === "The queue is full") {
    return unavailable(`${maxPending} commands are pending already`)
  }
  return new EventLogError({ reason: "Timeout", detail: "the connection was lost before Redis answered", cause })
}

export const logWarning = (message: string) => annotateWith("RedisEventLog")(Effect.logWarning(message))

const maxPending = 16_384
