/** Orders are stored in the database, and progress by themselves. Every page receives each change of each order. */
import { SqlClient } from "@effect/sql"
import { Clock, Context, Effect, Layer, Schedule, Schema } from "effect"
import { EventBroker, Notifier, Topic, WebPushPayload } from "effect-realtime"

import * as Topics from "./topics.js"

const step = 8_000

const Row = Schema.Struct({ ...Topics.Order.fields, customer: Schema.String, language: Topics.Language })
const Rows = Schema.Array(Row)

const notification = {
  en: (id: number) => ({ title: "Payment confirmed", body: `Order ${id} approved.` }),
  pt: (id: number) => ({ title: "Pagamento confirmado", body: `Pedido ${id} aprovado.` })
}

const make = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE IF NOT EXISTS orders (
    id ${
    sql.literal(
      sql.onDialectOrElse({ pg: () => "SERIAL PRIMARY KEY", orElse: () => "INTEGER PRIMARY KEY AUTOINCREMENT" })
    )
  },
    customer TEXT NOT NULL,
    language TEXT NOT NULL,
    name TEXT NOT NULL,
    item TEXT NOT NULL,
    status TEXT NOT NULL,
    due_at DOUBLE PRECISION NOT NULL
  )`

  const publish = ({ id, item, name, status }: Topics.Order) =>
    EventBroker.publish(Topic.channel(Topics.Board, {}), "order", { id, item, name, status })

  const place = (customer: string, order: typeof Topics.NewOrder.Type) =>
    Effect.gen(function*() {
      const dueAt = (yield* Clock.currentTimeMillis) + step
      const rows = yield* sql`
        INSERT INTO orders ${sql.insert({ ...order, customer, status: "placed", due_at: dueAt })} RETURNING *
      `
      const [placed] = yield* Schema.decodeUnknown(Schema.Tuple(Row))(rows)
      yield* publish(placed)
      return placed
    })

  /** Sends the event to the open pages of the customer, or a push message if there is none. */
  const notifyPaid = ({ customer, id, language }: typeof Row.Type) =>
    Effect.gen(function*() {
      const push = yield* WebPushPayload.make({
        ...notification[language](id),
        icon: "/icon.svg",
        tag: `order-${id}`,
        lang: language,
        data: { orderId: id, url: "/" }
      })
      yield* Notifier.notify(customer, { event: yield* Topic.event(Topics.Personal, "paid", { id }), push }, {
        topic: `order-${id}`
      })
    })

  // One statement, so that each order is advanced by one node only.
  const advance = Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    const rows = yield* sql`
      UPDATE orders SET
        status = CASE status WHEN 'placed' THEN 'paid' WHEN 'paid' THEN 'preparing' ELSE 'ready' END,
        due_at = ${now + step}
      WHERE due_at <= ${now} AND status <> 'ready'
      RETURNING *
    `
    for (const order of yield* Schema.decodeUnknown(Rows)(rows)) {
      yield* publish(order)
      if (order.status === "paid") yield* notifyPaid(order)
    }
  })

  yield* advance.pipe(
    Effect.catchAllCause((cause) => Effect.logError("Shop did not advance the orders: retrying in 500 ms", cause)),
    Effect.repeat(Schedule.spaced("500 millis")),
    Effect.forkScoped
  )

  return {
    place,
    latest: Effect.flatMap(
      sql`SELECT * FROM orders ORDER BY id DESC LIMIT 24`,
      Schema.decodeUnknown(Schema.Array(Topics.Order))
    )
  }
})

export class Shop extends Context.Tag("Shop")<Shop, Effect.Effect.Success<typeof make>>() {
  static readonly layer = Layer.scoped(Shop, make)
}
