/** A React page. */
import { useEvents } from "effect-realtime/react"
import { useState } from "react"

import type { News, Orders } from "./topics.js"

export const Order = ({ orderId }: { readonly orderId: string }) => {
  const [total, setTotal] = useState(0)
  const { error, status } = useEvents<typeof Orders>(`/orders/${orderId}/events`, {
    paid: ({ amount }) => setTotal((total) => total + amount),
    resync: () => setTotal(0)
  })
  return <p title={error?.reason}>{`${total} paid, ${status}`}</p>
}

export const Board = () => {
  const [shipped, setShipped] = useState<ReadonlyArray<string>>([])
  const { status } = useEvents<typeof Orders | typeof News>("/events", {
    "orders/:orderId": { shipped: (_, { params }) => setShipped((all) => [...all, params.orderId]) },
    news: { shipped: (headline) => setShipped((all) => [...all, headline]) }
  }, { enabled: false })
  return <ul title={status}>{shipped.map((text) => <li key={text}>{text}</li>)}</ul>
}
