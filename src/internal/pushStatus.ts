import * as Duration from "effect/Duration"

import type { Vendor } from "./endpointPolicy.js"

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
  "BadExpirationDate",
  "BadJwtToken",
  "BadPath",
  "BadUrgency",
  "BadWebPushTopic",
  "ExpiredToken",
  "Forbidden",
  "InternalServerError",
  "MissingCryptoHeader",
  "PayloadTooLarge",
  "ServiceUnavailable",
  "TooManyRequests",
  "Unregistered",
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
 * The vendor's own word for what went wrong. Only words of a known list and numbers: free text from the network might repeat the
 * endpoint, and this ends up in logs.
 */
const detailOf = ({ body, headers, vendor }: Answer): string | undefined => {
  if (vendor === "wns") {
    const status = headers["x-wns-status"]?.toLowerCase()
    return status === "dropped" || status === "channelthrottled" ? status : undefined
  }
  const json = body.startsWith("{") ? parseJson(body) : undefined
  if (typeof json !== "object" || json === null) return undefined
  if ("reason" in json && typeof json.reason === "string" && appleReasons.has(json.reason)) return json.reason
  if ("errno" in json && typeof json.errno === "number") return `errno ${json.errno}`
  return undefined
}

const seconds = (text: string | undefined): Duration.Duration | undefined =>
  text !== undefined && /^\s*\d{1,9}\s*$/.test(text) ? Duration.seconds(Number(text)) : undefined

const retryAfterOf = ({ headers }: Answer, now: number): Duration.Duration | undefined => {
  const header = headers["retry-after"]
  const fromHeader = seconds(header) ?? seconds(headers["x-wns-continue-after"])
  if (fromHeader !== undefined || header === undefined) return fromHeader
  const date = Date.parse(header)
  return Number.isNaN(date) ? undefined : Duration.millis(Math.max(0, date - now))
}

/** What the answer of a push service means (RFC 8030 and what each vendor made of it). `now` in milliseconds since 1970. */
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
    // WNS says in a header that it took the message and threw it away.
    return detail === "channelthrottled"
      ? failed("RateLimited")
      : detail === "dropped"
      ? failed("Rejected")
      : { _tag: "Accepted" }
  }
  switch (status) {
    case 400:
      return failed(
        detail === "VapidPkHashMismatch"
          ? "KeyMismatch"
          : /UnauthorizedRegistration/.test(body)
          ? "Unauthorized"
          : "Rejected"
      )
    case 401:
    case 403:
      return failed(
        detail === "VapidPkHashMismatch" || /key mismatch|not correspond/i.test(body) ? "KeyMismatch" : "Unauthorized"
      )
    case 404:
    case 410:
      return { _tag: "Gone", status }
    case 406:
      return failed(vendor === "wns" ? "RateLimited" : "Rejected")
    case 413:
      return failed("PayloadTooLarge")
    case 429:
      return failed("RateLimited")
    default:
      return failed(status >= 500 ? "Unavailable" : "Rejected")
  }
}
