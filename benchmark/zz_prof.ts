import { randomBytes } from "node:crypto"
import { HttpClient, HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { Effect, Layer, ManagedRuntime, Redacted } from "effect"
import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"
import webpush from "web-push"
import { encrypt } from "/tmp/wt/cheap13/src/node/internal/aes128gcm.js"
const message = "x".repeat(1024)
const subject = "mailto:ops@example.com"
const { publicKey: p256dh } = await Effect.runPromise(VapidKeys.generate)
const auth = randomBytes(16).toString("base64url")
const subscribe = (endpoint: string) => new WebPushSubscription({ endpoint, keys: { p256dh, auth } }, { disableValidation: true })
const vapid = await Effect.runPromise(VapidKeys.generate)
const accepted = HttpClientResponse.fromWeb(HttpClientRequest.post("https://fcm.googleapis.com/"), new Response(null, { status: 201, headers: { "content-length": "0" } }))
const accept = Layer.succeed(HttpClient.HttpClient, HttpClient.makeWith<never, never, never, never>((request) => Effect.as(request, accepted), Effect.succeed))
const m = ManagedRuntime.make(WebPush.layerWith({ vapid, subject }).pipe(Layer.provide([accept, NodeWebPushCrypto.layer])))
const count = 400
const subs = Array.from({ length: count }, (_, i) => subscribe(`https://fcm.googleapis.com/fcm/send/${i}`))
const vapidDetails = { subject, publicKey: vapid.publicKey, privateKey: Redacted.value(vapid.privateKey) }
const cpu = async (f: () => unknown) => { const b = process.cpuUsage(); await f(); const d = process.cpuUsage(b); return (d.user + d.system) / count }
const med = (v: number[]) => v.sort((a, b) => a - b)[v.length >> 1]!
const r: Record<string, number[]> = { wp: [], enc: [], many: [] }
const rounds = Number(process.argv[2] ?? 20)
for (let i = 0; i < rounds + 3; i++) {
  const a = process.argv[3] === "only" ? 0 : await cpu(() => { for (const s of subs) webpush.generateRequestDetails(s as any, message, { vapidDetails }) })
  const b = process.argv[3] === "only" ? 0 : await cpu(() => { for (const s of subs) encrypt(Buffer.from(message), s.keys, 0) })
  const c = await cpu(() => m.runPromise(WebPush.sendMany(subs, message)))
  if (i >= 3) { r.wp!.push(a); r.enc!.push(b); r.many!.push(c) }
}
console.log({ wp: med(r.wp!), enc: med(r.enc!), many: med(r.many!), overEnc: med(r.many!.map((x, i) => x - r.enc![i]!)), times: med(r.many!.map((x,i)=> r.wp![i]!/x)) })
await m.dispose()
