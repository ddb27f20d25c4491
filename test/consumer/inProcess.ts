/** A consumer in the process of the server, by `EventBroker.stream` and `EventBroker.subscribe`. */
import { Effect, Queue, Stream } from "effect"
import { EventBroker, Topic } from "effect-realtime"

import { Inbox, News, Orders } from "./topics.js"

export const carriers = EventBroker.stream([Topic.pattern(Orders), Topic.channel(News, {})], { from: "beginning" })
  .pipe(
    Stream.mapConcat((message) => {
      switch (message.topic) {
        case "orders/:orderId":
          return message.event === "shipped"
            ? [`order ${message.params.orderId} by ${message.data.carrier}`]
            : []
        case "news":
          return [message.data.toUpperCase()]
        case undefined:
          return []
      }
    })
  )

export const isShutDown = Effect.scoped(EventBroker.subscribe(Topic.channel(News, {}))).pipe(
  Effect.flatMap(Queue.isShutdown)
)

export const sendTo = (user: string, message: string) =>
  Effect.orDie(EventBroker.publish(Topic.channel(Inbox, { user }), "message", message))
