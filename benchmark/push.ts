/**
 * Measures messages per second, and the CPU time of each, beside the `web-push` package. Run with
 *
 *     npm run benchmark:push [prepare|send|broadcast|workers]
 *
 * It measures compiled code, as the code of `web-push` is: tsx adds a call for the name of each function.
 *
 * All contenders run in one process and in turns, so that the ratios are valid on a busy machine. The local push
 * service runs in a process of its own. The CPU time is that of this process.
 */
import { execFileSync, fork } from "node:child_process"
import { randomBytes } from "node:crypto"
import { readFileSync } from "node:fs"
import type { ServerResponse } from "node:http"
import * as Http2 from "node:http2"
import * as Https from "node:https"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { fileURLToPath } from "node:url"

import { HttpClient, HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { Effect, Layer, ManagedRuntime, Redacted, Stream } from "effect"
import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPushLibrary from "effect-realtime/web-push/WebPushLibrary"
import * as WebPush from "effect-realtime/WebPush"
import * as WebPushCrypto from "effect-realtime/WebPushCrypto"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"
import webpush from "web-push"

import { encrypt } from "../src/node/internal/aes128gcm.js"
import * as TestCertificate from "../src/testing/internal/testCertificate.js"
import * as EndpointPolicy from "../src/WebPush/internal/endpoint.js"
import * as VapidToken from "../src/WebPush/internal/vapidToken.js"

const message = "x".repeat(1024)
const subject = "mailto:ops@example.com"

const { publicKey: p256dh } = await Effect.runPromise(VapidKeys.generate)
const auth = randomBytes(16).toString("base64url")
const subscribe = (endpoint: string) =>
  new WebPushSubscription({ endpoint, keys: { p256dh, auth } }, { disableValidation: true })

const median = (values: ReadonlyArray<number>) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN

const cpu = async (run: () => Promise<unknown>) => {
  const wall = performance.now()
  const before = process.cpuUsage()
  await run()
  const { system, user } = process.cpuUsage(before)
  return { cpu: system + user, wall: (performance.now() - wall) * 1000 }
}

const opensslRate = (algorithm: string, column: number): number => {
  const output = execFileSync("openssl", ["speed", "-seconds", "1", algorithm], { stdio: ["ignore", "pipe", "ignore"] })
  return Number(output.toString().trim().split("\n").at(-1)?.trim().split(/\s+/).at(column))
}

const vapid = await Effect.runPromise(VapidKeys.generate)
const vapidDetails = { subject, publicKey: vapid.publicKey, privateKey: Redacted.value(vapid.privateKey) }

const accepted = HttpClientResponse.fromWeb(
  HttpClientRequest.post("https://fcm.googleapis.com/"),
  new Response(null, { status: 201, headers: { "content-length": "0" } })
)
const accept = Layer.succeed(
  HttpClient.HttpClient,
  HttpClient.makeWith<never, never, never, never>((request) => Effect.as(request, accepted), Effect.succeed)
)

const runtime = async (
  http: Layer.Layer<HttpClient.HttpClient>,
  hosts: ReadonlyArray<string> = [],
  crypto = NodeWebPushCrypto.layer
) => {
  const managed = ManagedRuntime.make(
    WebPush.layerWith({ vapid, subject, hosts }).pipe(
      Layer.provide([http, crypto])
    )
  )
  await managed.runtime()
  return {
    runPromise: <A, E>(effect: Effect.Effect<A, E, WebPush.WebPush>) => managed.runPromise(effect),
    dispose: () => managed.dispose()
  }
}

/**
 * Compares `generateRequestDetails` with the same work (check of the endpoint, token, encryption), with all of
 * `WebPush.sendMany` over a client that accepts each message, and with the encryption alone by each engine of
 * `WebPushCrypto`. The CPU time is that of all threads.
 */
const prepare = async () => {
  const count = 400
  const { dispose, runPromise } = await runtime(accept)
  const engines = Object.entries({
    "NodeWebPushCrypto.layer": NodeWebPushCrypto.layer,
    "NodeWebPushCrypto.layerWorkers, two": NodeWebPushCrypto.layerWorkers({ workers: 2 }),
    "WebPushLibrary.layer": WebPushLibrary.layer,
    "WebPushCrypto.layer": WebPushCrypto.layer
  }).map(([name, layer]) => [name, ManagedRuntime.make(layer)] as const)
  const bytes = Buffer.from(message)
  const subscriptions = Array.from({ length: count }, (_, i) => subscribe(`https://fcm.googleapis.com/fcm/send/${i}`))
  const crypto = await Effect.runPromise(NodeWebPushCrypto.make)
  const policy = EndpointPolicy.make([])
  const contenders: Record<string, () => Promise<unknown>> = {
    "web-push generateRequestDetails": async () => {
      for (const subscription of subscriptions) webpush.generateRequestDetails(subscription, message, { vapidDetails })
    },
    "effect-realtime, the same work": async () => {
      const authorize = await Effect.runPromise(VapidToken.makeAuthorization(crypto, vapid, subject))
      for (const subscription of subscriptions) {
        Effect.runSync(authorize(policy(subscription.endpoint)?.origin ?? "", Date.now()))
        encrypt(Buffer.from(message), subscription.keys, 0)
      }
    },
    "effect-realtime, all of sendMany": () => runPromise(WebPush.sendMany(subscriptions, message)),
    ...Object.fromEntries(engines.map(([name, { runPromise }]) => [
      `encryption alone, ${name}`,
      () =>
        runPromise(
          Effect.flatMap(WebPushCrypto.WebPushCrypto, ({ encrypt }) =>
            Effect.forEach(subscriptions, ({ keys }) =>
              encrypt(bytes, keys, 0), { concurrency: 64, discard: true }))
        )
    ]))
  }
  const rounds: Array<Record<string, { cpu: number; wall: number }>> = []
  for (let round = 0; round < 18; round++) {
    const measured: Record<string, { cpu: number; wall: number }> = {}
    for (const [name, run] of Object.entries(contenders)) measured[name] = await cpu(run)
    if (round >= 3) rounds.push(measured)
  }
  // A message costs one multiplication of the base point, which is about a signature, and one ECDH.
  const limit = 1 / (1 / opensslRate("ecdsap256", -2) + 1 / opensslRate("ecdhp256", -1))
  const [base = ""] = Object.keys(contenders)
  console.table(Object.fromEntries(
    Object.keys(contenders).map((name) => {
      const micros = median(rounds.map((round) => round[name]?.cpu ?? NaN)) / count
      const times = (of: "cpu" | "wall") =>
        median(rounds.map((round) => (round[base]?.[of] ?? NaN) / (round[name]?.[of] ?? NaN)))
      return [name, {
        "µs CPU": micros,
        "times web-push, CPU": times("cpu"),
        "times web-push, time": times("wall"),
        "of openssl": 1e6 / micros / limit
      }]
    })
  ))
  await dispose()
  for (const [, { dispose }] of engines) await dispose()
}

const send = async () => {
  const count = 1000
  const concurrency = 64
  for (const latency of [0, 40]) {
    const rows: Record<string, Array<{ cpu: number; wall: number }>> = {}
    for (const protocol of ["h2", "http/1.1"]) {
      const certificate = TestCertificate.make(["localhost"])
      const child = fork(fileURLToPath(import.meta.url), [], {
        env: { ...process.env, PUSH_SERVER: JSON.stringify({ ...certificate, latency, protocol }) }
      })
      const port = await new Promise<number>((resolve) => child.once("message", (port) => resolve(Number(port))))
      const subscriptions = Array.from({ length: count }, (_, i) => subscribe(`https://localhost:${port}/push/${i}`))
      const { dispose, runPromise } = await runtime(
        PushHttpClient.layerWith({ ca: certificate.cert, allowedAddresses: ["127.0.0.1", "::1"] }),
        [`localhost:${port}`]
      )
      const agent = new Https.Agent({ keepAlive: true, maxSockets: concurrency, ca: certificate.cert })
      const contenders: Record<string, () => Promise<unknown>> = {
        [`effect-realtime, ${protocol}`]: () =>
          runPromise(Effect.map(WebPush.sendMany(subscriptions, message, { concurrency }), ({ outcomes }) => {
            const failed = outcomes.filter(({ result }) => result._tag === "Left").length
            if (failed > 0) throw new Error(`${failed} messages failed`)
          }))
      }
      if (protocol === "http/1.1") {
        contenders["web-push, keep-alive agent"] = async () => {
          const queue = subscriptions.values()
          await Promise.all(Array.from({ length: concurrency }, async () => {
            for (const subscription of queue) {
              await webpush.sendNotification(subscription, message, { vapidDetails, agent })
            }
          }))
        }
      }
      for (let round = 0; round < 5; round++) {
        for (const [name, run] of Object.entries(contenders)) {
          const measured = await cpu(run)
          if (round > 1) (rows[name] ??= []).push(measured)
        }
      }
      agent.destroy()
      await dispose()
      child.kill()
    }
    const base = median((rows["web-push, keep-alive agent"] ?? []).map(({ cpu }) => cpu))
    console.log(`${latency} ms latency, ${concurrency} at once`)
    console.table(Object.fromEntries(
      Object.entries(rows).map(([name, measured]) => [name, {
        "µs CPU": median(measured.map(({ cpu }) => cpu)) / count,
        "messages/s": count / median(measured.map(({ wall }) => wall)) * 1e6,
        "of web-push": median(measured.map(({ cpu }) => cpu)) / base
      }])
    ))
  }
}

const broadcast = async () => {
  const { runPromise } = await runtime(accept)
  let count = 0
  const rows = Stream.range(1, 1_000_000).pipe(
    Stream.map((index) => subscribe(`https://fcm.googleapis.com/fcm/send/${index}`))
  )
  await runPromise(
    WebPush.broadcast(rows, message).pipe(
      Stream.runForEach(() =>
        Effect.sync(() => {
          if (++count % 100_000 === 0) {
            const { heapUsed, rss } = process.memoryUsage()
            console.log(
              `${count} rows, heap ${(heapUsed / 2 ** 20).toFixed(0)} MB, rss ${(rss / 2 ** 20).toFixed(0)} MB`
            )
          }
        })
      )
    )
  )
}

/** CPU time of the main thread in microseconds (Linux). */
const mainThread = (): number =>
  Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1000

/** Compares a broadcast with encryption in the event loop and in worker threads. */
const workers = async () => {
  const count = Number(process.env.COUNT ?? 100_000)
  const engines = {
    "in the event loop": NodeWebPushCrypto.layer,
    "1 worker": NodeWebPushCrypto.layerWorkers({ workers: 1 }),
    "2 workers": NodeWebPushCrypto.layerWorkers({ workers: 2 })
  }
  const rows: Record<string, Record<string, number>> = {}
  for (const [name, crypto] of Object.entries(engines)) {
    const { dispose, runPromise } = await runtime(accept, [], crypto)
    const send = (count: number) =>
      runPromise(
        Stream.range(1, count).pipe(
          Stream.map((index) => subscribe(`https://fcm.googleapis.com/fcm/send/${index}`)),
          WebPush.broadcast(message),
          Stream.runDrain
        )
      )
    await send(2000)
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    const before = mainThread()
    const measured = await cpu(() => send(count))
    rows[name] = {
      "µs CPU, main thread": (mainThread() - before) / count,
      "µs CPU, all threads": measured.cpu / count,
      "messages/s": count / measured.wall * 1e6,
      "event loop p99, ms": delay.percentile(99) / 1e6
    }
    await dispose()
  }
  console.table(rows)
}

const serve = (settings: string) => {
  const { cert, key, latency, protocol } = JSON.parse(settings)
  const answer = (response: ServerResponse | Http2.Http2ServerResponse) => {
    response.statusCode = 201
    response.setHeader("content-length", "0")
    response.end()
  }
  const server = protocol === "h2" ?
    Http2.createSecureServer({ cert, key }, (request, response) => {
      request.resume()
      request.on("end", () => latency === 0 ? answer(response) : setTimeout(answer, latency, response))
    }) :
    Https.createServer({ cert, key }, (request, response) => {
      request.resume()
      request.on("end", () => latency === 0 ? answer(response) : setTimeout(answer, latency, response))
    })
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    process.send?.(typeof address === "object" ? address?.port : 0)
  })
}

if (process.env.PUSH_SERVER !== undefined) serve(process.env.PUSH_SERVER)
else {
  const [only] = process.argv.slice(2)
  if (only === undefined || only === "prepare") await prepare()
  if (only === undefined || only === "send") await send()
  if (only === undefined || only === "broadcast") await broadcast()
  if (only === undefined || only === "workers") await workers()
}
