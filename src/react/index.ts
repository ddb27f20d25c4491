/**
 * React hook over the client of `effect-realtime/client`.
 *
 * @since 0.1.0
 */
"use client"

import { useEffect, useInsertionEffect, useRef, useState } from "react"

import type { ConnectionHandlers, Handlers, Options, SubscribeError, UntypedHandlers } from "../client/index.js"
import { subscribe } from "../client/index.js"
import type * as Topic from "../Topic.js"

/**
 * State of a connection:
 *
 * - `connecting`: there is no connection yet, or not any more, and the client connects. `error` is the reason for which
 *   the last one was lost,
 * - `open`: the client is connected,
 * - `ended`: the server has ended the stream for good,
 * - `failed`: `error` is final, and the client does not reconnect,
 * - `disabled`: the option `enabled` is false.
 *
 * @since 0.1.0
 * @category models
 */
export interface EventsState {
  readonly status: "connecting" | "open" | "ended" | "failed" | "disabled"
  readonly error: SubscribeError | undefined
}

/**
 * Options of `subscribe` without `signal`, and `enabled`, which closes the connection. Another value of an option makes
 * a new connection, except for functions, of which the latest is called, and for `lastEventId`.
 *
 * @since 0.1.0
 * @category models
 */
export interface UseEventsOptions extends Omit<Options, "signal" | "lastEventId"> {
  /**
   * The id that the first connection to a URL resumes after. Empty by default: the server decides where the stream
   * begins. Later connections to the same URL resume after the last id.
   */
  readonly lastEventId?: string | undefined
  /**
   * Connects while it is true. True by default.
   */
  readonly enabled?: boolean | undefined
}

/**
 * Subscribes a component to the events at a URL while it is mounted, and returns the state of the connection. The type
 * parameter and the handlers are those of `subscribe`. The latest handlers are called: they need no `useCallback`, and
 * no list of dependencies. Another URL makes a new connection. On the server nothing is connected.
 *
 * @since 0.1.0
 * @category hooks
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { useEvents } from "effect-realtime/react"
 * import * as Topic from "effect-realtime/Topic"
 * import { createElement, useState } from "react"
 *
 * // On the server. The page needs its type alone: import type { Orders } from "./topics.js"
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
 *
 * const Order = ({ orderId }: { readonly orderId: string }) => {
 *   const [total, setTotal] = useState(0)
 *   const { status } = useEvents<typeof Orders>(`/orders/${orderId}/events`, {
 *     paid: ({ amount }) => setTotal((total) => total + amount)
 *   })
 *   return createElement("p", null, `${total} paid`, status === "open" ? "" : " (connecting)")
 * }
 * ```
 */
export function useEvents(url: string | URL, handlers: UntypedHandlers, options?: UseEventsOptions): EventsState
export function useEvents<T extends Topic.Topic.Any>(
  url: string | URL,
  handlers: Handlers<T>,
  options?: UseEventsOptions
): EventsState
export function useEvents(
  url: string | URL,
  handlers: ConnectionHandlers,
  { enabled = true, lastEventId = "", ...options }: UseEventsOptions = {}
): EventsState {
  const address = String(url)
  const { fetch: _, headers, ...values } = options
  const hasFreshHeaders = typeof headers === "function"
  const key = JSON.stringify([address, values, hasFreshHeaders ? undefined : Array.from(new Headers(headers))])
  const [state, setState] = useState<KeyedState>({ key, status: "connecting", error: undefined })
  const [live] = useState<UntypedHandlers>({})
  const latest = useRef(options)
  const connection = useRef({ key, address, position: { current: lastEventId } })

  useInsertionEffect(() => {
    latest.current = options
    const set = (status: EventsState["status"], error?: SubscribeError) =>
      setState({ key: connection.current.key, status, error })
    for (const name of Object.keys(live)) Reflect.deleteProperty(live, name)
    const own: ConnectionHandlers = {
      open: () => {
        set("open")
        handlers.open?.()
      },
      error: (error) => {
        if (error.reason !== "NotJson" && error.reason !== "UnknownChannel") {
          set(error.isRetryable ? "connecting" : "failed", error)
        }
        handlers.error?.(error)
      },
      end: () => {
        set("ended")
        handlers.end?.()
      }
    }
    Object.assign(live, handlers, own)
  })

  useEffect(() => {
    // Also when it is disabled, so that it does not begin as `open` when it is enabled again.
    setState((state) =>
      state.key === key && state.status === "connecting" ? state : { key, status: "connecting", error: undefined }
    )
    if (!enabled) return
    const isResumed = connection.current.address === address
    const position = isResumed ? connection.current.position : { current: lastEventId }
    connection.current = { key, address, position }
    return subscribe(address, live, {
      ...values,
      lastEventId: position,
      headers: hasFreshHeaders ? () => callHeaders(latest.current) : headers,
      fetch: (request) => (latest.current.fetch ?? fetch)(request)
    })
  }, [key, enabled])

  return !enabled ? disabled : state.key === key ? state : connecting
}

/** A state, and the URL and the options that it is of. */
interface KeyedState extends EventsState {
  readonly key: string
}

const connecting: EventsState = { status: "connecting", error: undefined }
const disabled: EventsState = { status: "disabled", error: undefined }

const callHeaders = ({ headers }: UseEventsOptions) => (typeof headers === "function" ? headers() : headers) ?? {}
