/** Checked by tsc, never run. */
import { Schema } from "effect"
import type { Origin } from "effect-realtime/client"
import { subscribe } from "effect-realtime/client"
import * as Topic from "effect-realtime/Topic"
import { expectTypeOf } from "vitest"

const Orders = Topic.make("orders/:orderId", {
  paid: Schema.Struct({ amount: Schema.NumberFromString, at: Schema.Date }),
  closed: Schema.Null
})
const News = Topic.make("news", { posted: Schema.String, closed: Schema.Number })

expectTypeOf(Orders.path).toEqualTypeOf<"orders/:orderId">()
expectTypeOf(News.path).toEqualTypeOf<"news">()

// The data is the encoded side of the schema
subscribe<typeof Orders>("/", {
  paid: (data, origin) => {
    expectTypeOf(data).toEqualTypeOf<{ readonly amount: string; readonly at: string }>()
    expectTypeOf(origin).toEqualTypeOf<Origin>()
  },
  closed: (data) => expectTypeOf(data).toEqualTypeOf<null>(),
  gap: ({ dropped }, { id }) => expectTypeOf([dropped, id] as const).toEqualTypeOf<readonly [number, string]>(),
  error: ({ isRetryable }) => expectTypeOf(isRetryable).toEqualTypeOf<boolean>()
})
// @ts-expect-error no event of the topic
subscribe<typeof Orders>("/", { payed: () => {} })
// @ts-expect-error other data
subscribe<typeof Orders>("/", { paid: ({ amount }: { readonly amount: number }) => amount })

// Without a topic the data is unknown, and the connection is typed
subscribe("/", {
  paid: (data, { id }) => expectTypeOf([data, id] as const).toEqualTypeOf<readonly [{} | null | undefined, string]>(),
  gap: ({ dropped }) => expectTypeOf(dropped).toEqualTypeOf<number>(),
  error: ({ reason }) => reason,
  open: () => {}
})

// Handlers by topic have the parameters of the channel
subscribe<typeof Orders>("/", {
  "orders/:orderId": {
    paid: ({ amount }, { channel, params }) => {
      expectTypeOf([amount, channel] as const).toEqualTypeOf<readonly [string, string]>()
      expectTypeOf(params).toEqualTypeOf<{ readonly orderId: string }>()
    }
  }
})

// Two topics have events of the same name
subscribe<typeof Orders | typeof News>("/", {
  "orders/:orderId": { closed: (data) => expectTypeOf(data).toEqualTypeOf<null>() },
  news: { closed: (data) => expectTypeOf(data).toEqualTypeOf<number>() },
  resync: ({ reason }) => reason
})
// @ts-expect-error the handlers of a topic are missing
subscribe<typeof Orders | typeof News>("/", { news: {} })
// @ts-expect-error the name alone does not tell the topic
subscribe<typeof Orders | typeof News>("/", { closed: () => {} })
// @ts-expect-error no event of this topic
subscribe<typeof Orders | typeof News>("/", { "orders/:orderId": { posted: () => {} }, news: {} })

// @ts-expect-error without a type parameter the data is not known
subscribe("/events", { paid: ({ amount }) => amount })
