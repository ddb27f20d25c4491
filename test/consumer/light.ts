/** A page without Effect. */
import type { SubscribeError } from "effect-realtime/client"
import { subscribe } from "effect-realtime/client"

import type { News, Orders } from "./topics.js"

type Show = (text: string) => void

const post = (url: string, payload?: unknown) =>
  fetch(url, {
    method: "POST",
    ...(payload === undefined ? undefined : {
      headers: { "content-type": "application/json" },
      body: JSON.stringify(payload)
    })
  })

/** Shows the events of one order, and resolves when the server has ended its channel. */
export const showOrder = (baseUrl: string, show: Show): Promise<void> =>
  new Promise((resolve, reject) => {
    subscribe<typeof Orders>(`${baseUrl}/orders/43/events`, {
      open: async () => {
        await post(`${baseUrl}/orders/43/pay`, { amount: 5, at: "2026-01-02T00:00:00.000Z" })
        await post(`${baseUrl}/orders/43/close`)
      },
      paid: ({ amount, at }) => show(`light: paid ${amount.toFixed(2)} at ${at.slice(0, 10)}`),
      error: (error: SubscribeError) => error.isRetryable ? undefined : reject(error),
      end: resolve
    })
  })

/** Shows an event of each topic. */
export const showAll = (baseUrl: string, show: Show): Promise<void> =>
  new Promise((resolve) => {
    const controller = new AbortController()
    subscribe<typeof Orders | typeof News>(`${baseUrl}/events`, {
      "orders/:orderId": {
        shipped: ({ carrier }, { params }) => show(`light: order ${params.orderId} shipped by ${carrier}`)
      },
      news: {
        shipped: (headline, { channel }) => {
          show(`light: ${channel} ${headline.toUpperCase()}`)
          controller.abort()
          resolve()
        }
      },
      open: async () => {
        await post(`${baseUrl}/orders/44/ship`, { carrier: "DHL" })
        await post(`${baseUrl}/news`, "sale")
      },
      resync: ({ reason }) => show(reason)
    }, { signal: controller.signal })
  })
