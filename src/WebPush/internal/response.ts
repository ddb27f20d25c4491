import * as Duration from "effect/Duration"

import type { Vendor } from "./endpoint.js"

export interface Answer {
  readonly vendor: Vendor
  readonly status: number
  readonly headers: { readonly [name: string]: string | undefined }
  readonly body: string
}

export type Meaning =
  | { readonly _tag: "Accepted" }
  | { readonly _tag: "Gone"; readonly status: 404 | 410 }
  | {
    readonly _tag: "Failed"
    readonly reason: "RateLimited" | "PayloadTooLarge" | "KeyMismatch" | "Unauthorized" | "Unavailable" | "Rejected"
    readonly retryAfter?: Duration.Duration | undefined
    readonly detail?: string | undefined
  }

const appleReasons = new Set([
  "BadAuthorizationHeader",
  "BadCertificate",
  "BadCertificateEnvironment",
  "BadCollapseId",
  "BadDeviceToken",
  "BadEnvironmentKeyIdInToken",
  "BadExpirationDate",
  "BadJwtToken",
  "BadMessageId",
  "BadPath",
  "BadPriority",
  "BadTopic",
  "BadTtl",
  "BadUrgency",
  "BadWebPushTopic",
  "DeviceTokenNotForTopic",
  "DuplicateHeaders",
  "ExpiredProviderToken",
  "ExpiredToken",
  "Forbidden",
  "IdleTimeout",
  "InternalServerError",
  "InvalidProviderToken",
  "InvalidPushType",
  "MethodNotAllowed",
  "MissingCryptoHeader",
  "MissingDeviceToken",
  "MissingProviderToken",
  "MissingTopic",
  "PayloadEmpty",
  "PayloadTooLarge",
  "ServiceUnavailable",
  "Shutdown",
  "TooManyProviderTokenUpdates",
  "TooManyRequests",
  "TopicDisallowed",
  "Unregistered",
  "UnrelatedKeyIdInToken",
  "VapidPkHashMismatch"
])

const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/**
 * Returns the error name of the vendor. Only known names and numbers are returned, since they are logged and a free
 * text may contain the endpoint.
 */
const detailOf = ({ body, headers, vendor }: Answer): string | undefined => {
  if (vendor === "wns") {
    const status = headers["x-wns-status"]?.toLowerCase()
    return status === "dropped" || status === "channelthrottled" ? status : undefined
  }
  if (vendor === "fcm" && /\bInvalidRegistration\b/.test(body)) return "InvalidRegistration"
  const json = body.trimStart().startsWith("{") ? parseJson(body) : undefined
  if (typeof json !== "object" || json === null) return undefined
  if ("reason" in json && typeof json.reason === "string" && appleReasons.has(json.reason)) return json.reason
  if ("errno" in json && typeof json.errno === "number" && Number.isSafeInteger(json.errno)) {
    return `errno ${json.errno}`
  }
  return undefined
}

// More than 30 years. A header of many digits must not become an infinite delay.
const longestWait = 999_999_999

const seconds = (text: string | undefined): number | undefined =>
  text !== undefined && /^\s*\d+\s*$/.test(text) ? Number(text) : undefined

// One of the three date formats of RFC 9110, 5.6.7. All are in GMT, and asctime does not state it.
const secondsUntil = (date: string | undefined, now: number): number | undefined => {
  if (date === undefined || !/^\s*(Mon|Tues?|Wed(nes)?|Thu(rs)?|Fri|Sat(ur)?|Sun)(day)?,? /.test(date)) return undefined
  const at = Date.parse(/GMT\s*$/.test(date) ? date : `${date} GMT`)
  return Number.isNaN(at) ? undefined : Math.max(0, at - now) / 1000
}

const retryAfterOf = ({ headers }: Answer, now: number): Duration.Duration | undefined => {
  const header = headers["retry-after"]
  const wait = seconds(header) ?? secondsUntil(header, now) ?? seconds(headers["x-wns-continue-after"])
  return wait === undefined ? undefined : Duration.seconds(Math.min(wait, longestWait))
}

// The error texts of Apple, FCM (old and new) and Mozilla.
const isKeyMismatch = (body: string): boolean =>
  /VapidPkHashMismatch|MismatchSenderId|SENDER_ID_MISMATCH|key mismatch|not correspond/i.test(body)

/** Interprets a response of a push service (RFC 8030 and its vendors). `now` is in milliseconds since 1970. */
export const meaning = (answer: Answer, now: number): Meaning => {
  const { body, status, vendor } = answer
  const detail = detailOf(answer)
  const failed = (reason: (Meaning & { _tag: "Failed" })["reason"]): Meaning => ({
    _tag: "Failed",
    reason,
    retryAfter: reason === "RateLimited" || reason === "Unavailable" ? retryAfterOf(answer, now) : undefined,
    detail
  })
  if (status >= 200 && status < 300) {
    // WNS reports in a header that it accepted the message and dropped it.
    return detail === "channelthrottled"
      ? failed("RateLimited")
      : detail === "dropped"
      ? failed("Rejected")
      : { _tag: "Accepted" }
  }
  switch (status) {
    case 400:
    case 401:
    case 403:
      return failed(
        isKeyMismatch(body)
          ? "KeyMismatch"
          : status !== 400 || /UnauthorizedRegistration/.test(body)
          ? "Unauthorized"
          : "Rejected"
      )
    case 404:
    case 410:
      return { _tag: "Gone", status }
    case 406:
      return failed(vendor === "wns" ? "RateLimited" : "Rejected")
    // The message was not processed: it arrived too slowly, over a connection of another host, or before the handshake
    // was complete.
    case 408:
    case 421:
    case 425:
      return failed("Unavailable")
    case 413:
      return failed("PayloadTooLarge")
    case 429:
      return failed("RateLimited")
    default:
      return failed(status >= 500 ? "Unavailable" : "Rejected")
  }
}
