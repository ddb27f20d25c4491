import { createECDH, randomBytes } from "node:crypto"

import { WebPushSubscription } from "effect-realtime/WebPushSubscription"

const p256dh = createECDH("prime256v1").generateKeys("base64url")

export const newKeys = () => ({ p256dh, auth: randomBytes(16).toString("base64url") })

export const newEndpoint = () => `https://fcm.googleapis.com/fcm/send/${randomBytes(24).toString("base64url")}`

export const newSubscription = (members: {
  readonly endpoint?: string
  readonly expiresAt?: number
  readonly applicationServerKey?: string
  readonly keys?: WebPushSubscription["keys"]
} = {}) => new WebPushSubscription({ endpoint: newEndpoint(), expiresAt: null, keys: newKeys(), ...members })
