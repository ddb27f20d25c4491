import * as Headers from "@effect/platform/Headers"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as HttpIncomingMessage from "@effect/platform/HttpIncomingMessage"
import * as Inspectable from "effect/Inspectable"

import type { Answer } from "./exchange.js"

const toWeb = ({ body, headers, status }: Answer): Response => {
  const all = new globalThis.Headers()
  for (const [name, value = []] of Object.entries(headers)) for (const one of [value].flat()) all.append(name, one)
  return new Response(body, { status, headers: all })
}

/** The response of an exchange. `Response` costs a tenth of a message, so that only a reader of the body makes one. */
export class PushResponse extends Inspectable.Class implements HttpClientResponse.HttpClientResponse {
  readonly [HttpClientResponse.TypeId]: HttpClientResponse.TypeId = HttpClientResponse.TypeId
  readonly [HttpIncomingMessage.TypeId]: HttpIncomingMessage.TypeId = HttpIncomingMessage.TypeId
  readonly request: HttpClientRequest.HttpClientRequest
  readonly status: number
  readonly headers: Headers.Headers
  private readonly answer: Answer
  private cached: HttpClientResponse.HttpClientResponse | undefined
  constructor(request: HttpClientRequest.HttpClientRequest, answer: Answer) {
    super()
    this.request = request
    this.status = answer.status
    this.headers = Headers.fromInput(answer.headers)
    this.answer = answer
  }
  private get web() {
    return this.cached ??= HttpClientResponse.fromWeb(this.request, toWeb(this.answer))
  }
  get cookies() {
    return this.web.cookies
  }
  get remoteAddress() {
    return this.web.remoteAddress
  }
  get stream() {
    return this.web.stream
  }
  get text() {
    return this.web.text
  }
  get json() {
    return this.web.json
  }
  get urlParamsBody() {
    return this.web.urlParamsBody
  }
  get formData() {
    return this.web.formData
  }
  get arrayBuffer() {
    return this.web.arrayBuffer
  }
  toJSON() {
    return this.web.toJSON()
  }
}
