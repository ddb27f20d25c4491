import { assert, describe, it } from "@effect/vitest"
import { PushClientError } from "effect-realtime/browser/PushClient"

describe("PushClientError", () => {
  it("is retryable if the push service or the server was not available", () => {
    const isRetryable = (status?: number) => new PushClientError({ reason: "NotRegistered", status }).isRetryable
    for (const status of [undefined, 408, 425, 429, 500, 503]) assert.isTrue(isRetryable(status), `${status}`)
    for (const status of [400, 401, 403, 404, 413, 422]) assert.isFalse(isRetryable(status), `${status}`)
    assert.isTrue(new PushClientError({ reason: "ServiceUnavailable" }).isRetryable)
    assert.isFalse(new PushClientError({ reason: "PermissionDenied" }).isRetryable)
  })
})
