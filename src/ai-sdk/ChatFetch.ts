/**
 * The `fetch` of the AI SDK's `DefaultChatTransport` for answers of `UIMessageStream`: a connection that is lost in the
 * middle of an answer is replaced by another one, which begins after the last chunk. It loads nothing of Effect.
 *
 * @since 0.1.0
 */
import { subscribe } from "../client/index.js"
import { isEventStream } from "../internal/contentType.js"

/**
 * The options of a `fetch`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The function that sends the requests. `fetch` by default.
   */
  readonly fetch?: typeof globalThis.fetch | undefined
  /**
   * Interval of the server's heartbeat, in milliseconds. A connection without data for twice this time is replaced.
   * 15,000 by default, as on the server.
   */
  readonly heartbeat?: number | undefined
}

/** Returns the `id` in the body of a request. */
const idOf = (body: BodyInit | null | undefined): unknown => {
  try {
    const json: { id?: unknown } | null = typeof body === "string" ? JSON.parse(body) : null
    return json?.id
  } catch {
    return undefined
  }
}

/** Returns the address of the answer that a request has, as the transport makes it. */
const addressOf = (input: RequestInfo | URL, { body, method = "GET" }: RequestInit): URL | undefined => {
  const address = new URL(input instanceof Request ? input.url : input, globalThis.location?.href)
  if (method === "GET") return address
  const id = idOf(body)
  if (typeof id !== "string") return
  address.pathname = `${address.pathname.replace(/\/$/, "")}/${encodeURIComponent(id)}/stream`
  return address
}

const headersOf = ({ headers }: RequestInit): Headers => {
  const all = new Headers(headers)
  all.delete("content-type")
  return all
}

/**
 * Makes a `fetch` whose event streams outlive their connections. When one is lost, it requests `<api>/<id>/stream` with
 * the id of the last chunk, after the delays of `subscribe` of `effect-realtime/client`, until the answer ends or the
 * chat is stopped. Meanwhile the status of the chat is `streaming`.
 *
 * The body fails with a `TypeError` if the server refuses the request, or does not have the answer any more. All
 * requests of an answer have the headers of the first one. A POST without `id` in its JSON has the response of the
 * server as it is.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { DefaultChatTransport } from "ai"
 * import * as ChatFetch from "effect-realtime/ai-sdk/ChatFetch"
 *
 * // useChat({ id, messages, resume: true, transport })
 * const transport = new DefaultChatTransport({ api: "/api/chat", fetch: ChatFetch.make() })
 * ```
 */
export const make = (
  { fetch = globalThis.fetch, heartbeat = 15_000 }: Options = {}
): typeof globalThis.fetch =>
async (input, init = {}) => {
  const response = await fetch(input, init)
  const { body, headers, status } = response
  const address = addressOf(input, init)
  if (status !== 200 || body === null || address === undefined || !isEventStream(headers.get("content-type"))) {
    return response
  }
  const signal = init.signal ?? undefined
  signal?.throwIfAborted()
  const encoder = new TextEncoder()
  let first: ReadableStream<Uint8Array> | undefined = body
  let close = () => {}
  const joined = new ReadableStream<Uint8Array>({
    start: (controller) => {
      let lastId = ""
      // The frames of an end, which have no id of their own, are one only with `[DONE]`.
      let end = ""
      const send = (text: string) => controller.enqueue(encoder.encode(text))
      const fail = () => controller.error(new TypeError("network error"))
      signal?.addEventListener("abort", () => controller.error(signal.reason))
      close = subscribe(address, {
        open: () => {
          end = ""
        },
        message: (data, { id }) => {
          const frame = `data: ${String(data)}\n\n`
          if (data === "[DONE]") {
            close()
            send(end + frame)
            controller.close()
          } else if (id === lastId) end += frame
          else {
            lastId = id
            send(frame)
          }
        },
        error: ({ isRetryable }) => {
          if (!isRetryable) fail()
        },
        end: fail
      }, {
        format: "text",
        headers: headersOf(init),
        heartbeat,
        signal,
        withCredentials: init.credentials === "include",
        fetch: (request) => {
          if (first === undefined) return fetch(request)
          // Its request cannot be aborted any more, except by the chat.
          const own = first.pipeThrough(new TransformStream(), { signal: request.signal })
          first = undefined
          return Promise.resolve(new Response(own, { headers }))
        }
      })
    },
    cancel: () => close()
  })
  return new Response(joined, { headers })
}
