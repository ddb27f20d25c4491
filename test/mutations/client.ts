import type { Mutation } from "./mutation.js"

const apiRequest = "src/browser/internal/apiRequest.ts"
const streamBody = "src/internal/streamBody.ts"
const client = "src/browser/EventSourceClient.ts"
const reconnection = "src/browser/internal/reconnection.ts"
const attempt = "src/browser/internal/attempt.ts"
const lastEventId = "src/internal/lastEventId.ts"
const responseError = "src/browser/internal/responseError.ts"
const buffer = "src/browser/internal/signalBuffer.ts"
const shared = "src/browser/internal/sharedConnection.ts"
const decoder = "src/ServerSentEvent.ts"
const contentType = "src/internal/contentType.ts"
const retryAfter = "src/internal/retryAfter.ts"
const test = "test/EventSourceClient.test.ts"
const inBrowser = "test/browser/EventSourceClient.test.ts"

export default [
  {
    promise: "a shared connection that moves does not reconnect before Retry-After",
    file: reconnection,
    find: "Stream.concat(Stream.execute(rest), attempt).pipe(",
    replace: "attempt.pipe(",
    test: inBrowser,
    name: "does not reconnect a shared connection before Retry-After"
  },
  {
    promise: "in Firefox the client resumes after an id without data, which EventSource ignores there",
    file: reconnection,
    find: "!isGecko() && ",
    replace: "",
    test: inBrowser,
    name: "conforms, over default"
  },
  {
    promise: "an id that no header can carry goes in the query",
    file: lastEventId,
    find: "/^[\\x21-\\x7e\\x80-\\xff](?:",
    replace: "/^[\\x20-\\x7e\\x80-\\xff](?:",
    test,
    name: "resumes after an id with a space before it"
  },
  {
    promise: "an id that no request can carry causes a resync",
    file: reconnection,
    find: "return [resync(\"Unsendable\")]",
    replace: "return []",
    test,
    name: "emits resync after an id of 20000 characters"
  },
  {
    promise: "a request that the server refuses as too large is repeated without its id",
    file: responseError,
    find: "status === 414 || status === 431",
    replace: "status === 414",
    test,
    name: "repeats a request without the id that the server refuses"
  },
  {
    promise: "401 and 403 are retried if `headers` is an effect",
    file: responseError,
    find: "(status === 401 || status === 403) && hasFreshHeaders",
    replace: "status === 401 && hasFreshHeaders",
    test,
    name: "reconnects after 401 and 403"
  },
  {
    promise: "each event has the id that another run of the stream resumes after",
    file: client,
    find: "const id = position.lastEventId",
    replace: "const id = signal._tag === \"Frame\" ? signal.frame.id ?? \"\" : position.lastEventId",
    test,
    name: "when the stream runs again"
  },
  {
    promise: "the backoff grows until an event arrives",
    file: reconnection,
    find: "if (signal._tag === \"Frame\") isProven = isProven || signal.frame.data !== undefined",
    replace: "isProven = true",
    test,
    name: "increases the delay"
  },
  {
    promise: "the backoff is reset after a connection that lasted",
    file: reconnection,
    find: "age() >= provenAge",
    replace: "age() < 0",
    test,
    name: "starts the delays again after a connection that lasted"
  },
  {
    promise: "`retry` has a floor",
    file: reconnection,
    find: "Math.max(session.retry, minRetry)",
    replace: "session.retry",
    test,
    name: "waits for half a second"
  },
  {
    promise: "`retry` has a jitter",
    file: reconnection,
    find: " * (1 + random / 5)",
    replace: " + random * 0",
    test,
    name: "waits for half a second"
  },
  {
    promise: "Retry-After is limited to an hour",
    file: retryAfter,
    find: "Math.min(Math.max(0, millis), maxDelay)",
    replace: "Math.max(0, millis)",
    test,
    name: "limits Retry-After to an hour"
  },
  {
    promise: "the last of several content types counts",
    file: contentType,
    find: "found === undefined || found === \"*/*\" ? essence : found",
    replace: "essence === \"\" ? found ?? \"\" : essence",
    test,
    name: "accepts as an event stream"
  },
  {
    promise: "a reconnect to a server without ids causes a resync",
    file: reconnection,
    find: "return [resync(isUnknown ? \"Unknown\" : \"NoIds\")]",
    replace: "return isUnknown ? [resync(\"Unknown\")] : []",
    test,
    name: "emits resync after a reconnect"
  },
  {
    promise: "data that is not JSON is read as text with the option",
    file: client,
    find: "data: format === \"text\" ? JSON",
    replace: "data: format === \"text\" && data !== \"\" ? JSON",
    test,
    name: "reads data that is not JSON"
  },
  {
    promise: "a schema that throws makes one event invalid",
    file: client,
    find: "Effect.catchAllDefect(() => new Topic.Inv",
    replace: "Effect.catchAll(() => new Topic.Inv",
    test,
    name: "emits an error for an event whose schema throws"
  },
  {
    promise: "an event of another topic on the same connection is ignored",
    file: client,
    find: "(Option.isNone(parse(data)) && Option.isSome(parse(rest)))",
    replace: "(Option.isNone(parse(data)) && Option.isNone(parse(rest)))",
    test,
    name: "of which `make` reads one"
  },
  {
    promise: "two topics may have an event of the same name",
    file: client,
    find: "if (Option.isSome(params)) return { topic, ch",
    replace: "if (data !== \"\") return { topic, params: {}, data: rest, ch",
    test,
    name: "attributes each event"
  },
  {
    promise: "an event without a channel is an error unless its channel is certain",
    file: client,
    find: "topic === undefined || others.length > 0 ?",
    replace: "topic === undefined ?",
    test,
    name: "emits UnknownChannel for an event without a channel of two topics"
  },
  {
    promise: "the event `end` ends the stream",
    file: client,
    find: "signal.frame.event !== \"end\"",
    replace: "signal.frame.event !== \"over\"",
    test,
    name: "ends at the event end"
  },
  {
    promise: "`retry` and comments take effect at the end of their line",
    file: attempt,
    find: "ServerSentEvent.decode({ eager: true })",
    replace: "ServerSentEvent.decode()",
    test,
    name: "applies retry without an empty line"
  },
  {
    promise: "a line or an event without an end is an error, and uses no unbounded memory",
    file: decoder,
    find: "return pendingLength > maxSize ? [...frames, tooLarge()] : frames",
    replace: "return frames",
    test,
    name: "does not reconnect after TooLarge"
  },
  {
    promise: "an invalid option dies",
    file: client,
    find: "shared === true && headers !== undefined",
    replace: "shared === true && headers === null",
    test,
    name: "dies for headers without a key"
  },
  {
    promise: "tabs share a connection with the same key only",
    file: client,
    find: "[address, names, withCredentials, method, body, shared]",
    replace: "[address, names, withCredentials, method, body]",
    test: inBrowser,
    name: "shares a connection among the tabs with the same key"
  },
  {
    promise: "a tab that stops responding loses the lead",
    file: shared,
    find: "Effect.zipRight(leaderSilence, lock(true))",
    replace: "Effect.zipRight(leaderSilence, Effect.never)",
    test: inBrowser,
    name: "takes over from a tab that is stopped"
  },
  {
    promise: "after `Lead` only the signals of that term count",
    file: shared,
    find: "if (message.term !== term) return",
    replace: "if (term === undefined) return",
    test: inBrowser,
    name: "ignores late messages of a tab that has lost the lead"
  },
  {
    promise: "EventSource does not reconnect without a pause for long",
    file: attempt,
    find: "source.readyState !== source.CLOSED && quickReconnects < 3",
    replace: "source.readyState !== source.CLOSED",
    test: inBrowser,
    name: "does not let EventSource reconnect without a pause"
  },
  {
    promise: "`lastEventIdHeader` sends the header to another origin",
    file: attempt,
    find: "options.lastEventIdHeader === true || !LastEventId.isCrossOrigin(address)",
    replace: "!LastEventId.isCrossOrigin(address)",
    test: inBrowser,
    name: "sends Last-Event-ID to another origin"
  },
  {
    promise: "the pending events of a slow reader are bounded, and a gap reports the others",
    file: buffer,
    find: "signals >= maxSignals || characters >= maxCharacters",
    replace: "false",
    test: inBrowser,
    name: "drops events for a slow reader, and emits a gap, over native"
  },
  {
    promise: "a gap is emitted after the last pending event, even if no event follows",
    file: buffer,
    find: "if (signals === 0) flushGap()",
    replace: "if (signals < 0) flushGap()",
    test: inBrowser,
    name: "for a slow reader, and emits a gap, over native"
  },
  {
    promise: "a parameter of an endpoint's path is one segment",
    file: apiRequest,
    find: "slash + encodeURIComponent(value)",
    replace: "slash + value",
    test: "test/HttpApi.test.ts",
    name: "is read by `fromApi`"
  },
  {
    promise: "the payload of an endpoint is JSON",
    file: client,
    find: "\"content-type\": \"application/json\",",
    replace: "",
    test: "test/HttpApi.test.ts",
    name: "encodes its request by its schemas"
  },
  {
    promise: "a client derived from an HttpApi returns when the response begins",
    file: streamBody,
    find: "neverRead(Schema.Void, isBody)",
    replace: "neverRead(Schema.String, isBody)",
    test: "test/HttpApi.test.ts",
    name: "returns when the response begins: events"
  },
  {
    promise: "the OpenAPI document has the schemas of the events",
    file: streamBody,
    find: "[HttpApiSchema.AnnotationStatus]: \"200\"",
    replace: "[HttpApiSchema.AnnotationStatus]: \"2XX\"",
    test: "test/HttpApi.test.ts",
    name: "has the schemas of its events"
  },
  {
    promise: "a POST whose stream has ended is not sent again",
    file: reconnection,
    find: "(id !== \"\" && reason !== \"Ended\")",
    replace: "id !== \"\"",
    test,
    name: "does not repeat a POST after the end"
  },
  {
    promise: "a POST is not sent again without an id to resume after",
    file: reconnection,
    find: "/^(POST|PATCH)$/i",
    replace: "/^(PATCH)$/i",
    test,
    name: "does not repeat a POST after a connection that broke"
  },
  {
    promise: "a POST that the server has refused is sent again",
    file: reconnection,
    find: "refusals.includes(status) ||",
    replace: "",
    test,
    name: "does not repeat a POST except"
  },
  {
    promise: "an event whose schema encodes to undefined has empty data",
    file: "src/Topic.ts",
    find: "encoded === undefined ? \"\" : toJson(encoded)",
    replace: "toJson(encoded)",
    test: "test/Topic.test.ts",
    name: "has empty data"
  },
  {
    promise: "empty data is decoded as undefined",
    file: "src/Topic.ts",
    find: "(frame.data ?? \"\") === \"\"",
    replace: "frame.data === undefined",
    test,
    name: "reads empty data as undefined"
  }
] satisfies ReadonlyArray<Mutation>
