/** A page with Effect. */
import { Chunk, Console, Effect, Stream } from "effect"
import { EventSourceClient } from "effect-realtime/browser"

import { Api, News, Orders, Ticks } from "./topics.js"

/** The events of all orders, and the news, on one connection. */
export const allEvents = (baseUrl: string) =>
  EventSourceClient.stream([Orders, News], `${baseUrl}/events`, { heartbeat: "15 seconds" })

/** Returns the text of an event, with its own data and parameters. */
const describe = (event: Stream.Stream.Success<ReturnType<typeof allEvents>>): string => {
  if (event.topic === "news") return `${event.channel}: ${event.data.toUpperCase()}`
  if (event.topic === "orders/:orderId") {
    return event.event === "paid"
      ? `order ${event.params.orderId} paid ${event.data.amount.toFixed(2)} at ${event.data.at.toISOString()}`
      : `order ${event.params.orderId} shipped by ${event.data.carrier}`
  }
  switch (event.event) {
    case "gap":
      return `${event.data.dropped} dropped`
    case "resync":
      return event.data.reason
    case "error":
      return event.data.message
    case "open":
      return "open"
  }
}

const post = (url: string, payload?: unknown) =>
  Effect.promise(() =>
    fetch(url, {
      method: "POST",
      ...(payload === undefined ? undefined : {
        headers: { "content-type": "application/json" },
        body: JSON.stringify(payload)
      })
    })
  ).pipe(Effect.filterOrDieMessage(({ ok }) => ok, `${url} was refused`))

/** Shows three events, which the page causes when it is connected. */
export const showAll = (baseUrl: string) =>
  allEvents(baseUrl).pipe(
    Stream.tap(({ event }) =>
      event !== "open" ? Effect.void : Effect.all([
        post(`${baseUrl}/orders/42/pay`, { amount: 12.5, at: "2026-01-02T00:00:00.000Z" }),
        post(`${baseUrl}/news`, "sale"),
        post(`${baseUrl}/orders/a%2Fb/ship`, { carrier: "DHL" })
      ])
    ),
    Stream.map(describe),
    Stream.take(4),
    Stream.runForEach((text) => Console.log(`all: ${text}`))
  )

/** Shows the events of one order, until the server ends its channel. */
export const showOrder = (baseUrl: string, orderId: string) =>
  EventSourceClient.fromApi(Api, "orders", "events", { path: { orderId }, baseUrl }).pipe(
    Stream.tap(({ event }) =>
      event !== "open" ? Effect.void : Effect.all([
        post(`${baseUrl}/orders/${orderId}/ship`, { carrier: "UPS" }),
        post(`${baseUrl}/orders/${orderId}/close`)
      ])
    ),
    Stream.runForEach((event) =>
      event.event === "shipped" ? Console.log(`order: shipped by ${event.data.carrier}`) : Effect.void
    )
  )

/** Shows a message in the inbox of the owner of a session. */
export const openInbox = (baseUrl: string, session: string) =>
  Effect.promise(() =>
    fetch(`${baseUrl}/inbox/ticket`, { method: "POST", headers: { cookie: `session=${session}` } })
      .then((response) => response.ok ? response.json() : undefined)
  ).pipe(
    Effect.map((ticket) =>
      EventSourceClient.fromApi(Api, "inbox", "events", { urlParams: { ticket: String(ticket) }, baseUrl })
    ),
    Stream.unwrap
  )

/** Reads three ticks, and leaves. */
export const readTicks = (baseUrl: string) =>
  EventSourceClient.stream([Ticks], `${baseUrl}/ticks`).pipe(
    Stream.filter(({ event }) => event === "tick"),
    Stream.take(3),
    Stream.runCollect,
    Effect.map(Chunk.size)
  )
