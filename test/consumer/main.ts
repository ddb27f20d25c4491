/** Runs the server and the pages in one process, and shows what they do. */
import { HttpServer } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Deferred, Effect, Stream } from "effect"
import { createElement } from "react"
import { renderToString } from "react-dom/server"

import * as InProcess from "./inProcess.js"
import * as Light from "./light.js"
import * as Page from "./page.js"
import * as Push from "./push.js"
import { Order } from "./react.js"
import { Server, TicksInterrupted } from "./server.js"

const program = Effect.gen(function*() {
  const baseUrl = yield* HttpServer.addressFormattedWith(Effect.succeed)

  yield* Page.showAll(baseUrl)
  yield* Page.showOrder(baseUrl, "42")

  yield* Console.log(`ticks: ${yield* Page.readTicks(baseUrl)}`)
  yield* Deferred.await(yield* TicksInterrupted)
  yield* Console.log("ticks: the producer was interrupted")

  yield* Page.openInbox(baseUrl, "session-of-ana").pipe(
    Stream.tap(({ event }) => event === "open" ? InProcess.sendTo("ana", "hello") : Effect.void),
    Stream.filter((event) => event.event === "message"),
    Stream.take(1),
    Stream.runForEach(({ data }) => Console.log(`inbox: ${data.toUpperCase()}`))
  )
  const refused = yield* Effect.flip(Stream.runDrain(Page.openInbox(baseUrl, "another")))
  yield* Console.log(`inbox: ${refused.reason} ${refused.status}`)

  const show = (text: string) => Effect.runSync(Console.log(text))
  yield* Effect.promise(() => Light.showOrder(baseUrl, show))
  yield* Effect.promise(() => Light.showAll(baseUrl, show))

  yield* InProcess.carriers.pipe(
    Stream.take(5),
    Stream.runForEach((text) => Console.log(`in process: ${text}`))
  )
  yield* Console.log(`in process: shut down ${yield* InProcess.isShutDown}`)

  yield* Console.log(`react: ${renderToString(createElement(Order, { orderId: "42" }))}`)
  yield* Push.showPush
  yield* Push.showRoutes(baseUrl, "session-of-ana")
  yield* Push.showRoutes(baseUrl, "another")
  yield* Push.showEngines
  yield* Effect.scoped(Push.showBlocked)
})

NodeRuntime.runMain(Effect.provide(program, Server))
