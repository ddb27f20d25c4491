import type { Mutation } from "./mutation.js"

const connection = "src/EventStream/internal/connection.ts"
const test = "test/EventStream.test.ts"

export default [
  {
    promise: "An event `gap` comes before the next event under dropping",
    file: connection,
    find: `this.gap > 0 && this.settings.strategy === "dropping"`,
    replace: "false",
    test,
    name: "before an event that still finds room"
  },
  {
    promise: "A connection ends after maxAge with jitter",
    file: connection,
    find: "Math.round(maxAge * (1 - jitter * spread))",
    replace: "maxAge",
    test,
    name: "its own age"
  },
  {
    promise: "Intervals are measured by a clock that does not step",
    file: "src/internal/clock.ts",
    find: "Math.round(Number(clock.unsafeCurrentTimeNanos()) / 1e6)",
    replace: "clock.unsafeCurrentTimeMillis()",
    test,
    name: "does not step"
  },
  {
    promise: "A connection ends at expiresAt by the time of day",
    file: connection,
    find: "const expiresIn = this.expiresAt - this.clock.unsafeCurrentTimeMillis()",
    replace: "const expiresIn = this.expiresAt - now",
    test: "test/EventBroker.test.ts",
    name: "by the time of day"
  },
  {
    promise: "A large event leaves in parts, so that the timer observes progress",
    file: "src/EventStream/internal/frame.ts",
    find: "export const maxWrite = 64 * 1024",
    replace: "export const maxWrite = 64 * 1024 * 1024",
    test,
    name: "cuts off no reader that makes progress"
  },
  {
    promise: "A connection that no sink takes ends after writeTimeout",
    file: connection,
    find: "delivery.sink === undefined ? this.openedAt : delivery.blockedSince",
    replace: "delivery.blockedSince",
    test,
    name: "ends when no sink takes it"
  },
  {
    promise: "A client that never reads the end of its stream is timed",
    file: "src/EventStream/internal/nodeSink.ts",
    find: "      connection.block()\n      // A middleware",
    replace: "      // A middleware",
    test,
    name: "reads all but the end of its stream"
  },
  {
    promise: "A client that never reads the queued events at the end of its stream is timed",
    file: connection,
    find: "if (unreadSince !== undefined && now - unreadSince >= writeTimeout)",
    replace: "if (this.isOpen && unreadSince !== undefined && now - unreadSince >= writeTimeout)",
    test,
    name: "never reads the end of its stream"
  },
  {
    promise: "A client that never reads the end of a stream is timed after the scope of the stream has closed",
    file: "src/EventStream.ts",
    find: "return connection.isCarried",
    replace: "return !connection.isCarried",
    test,
    name: "a stream whose scope has closed"
  },
  {
    promise: "A stream ends with the request of a web handler",
    file: connection,
    find: `signal.addEventListener("abort", leave)`,
    replace: "",
    test,
    name: "ends with a request that is aborted"
  },
  {
    promise: "A response that is dropped ends after writeTimeout",
    file: "src/EventStream/internal/streamSink.ts",
    find: "return [[bytes.subarray(0, 1)], [bytes.subarray(1)]]",
    replace: "return [[bytes]]",
    test,
    name: "ends when the response is dropped"
  },
  {
    promise: "HEAD starts no producer",
    file: "src/EventStream.ts",
    find: "if (yield* isHead) return Response.head(options)",
    replace: "",
    test,
    name: "answers a HEAD request with the head alone"
  },
  {
    promise: "An id that a header cannot carry is refused",
    file: "src/ServerSentEvent.ts",
    find: "nameFault(id) ?? headerFault(id)",
    replace: "nameFault(id)",
    test: "test/ServerSentEvent.test.ts",
    name: "names the field"
  },
  {
    promise: "Bytes of Last-Event-ID that are no UTF-8 are latin1",
    file: "src/EventStream.ts",
    find: `new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })`,
    replace: "new TextDecoder()",
    test,
    name: "reads an id"
  },
  {
    promise: "The names of the library's own events are refused",
    file: "src/ServerSentEvent.ts",
    find: `const libraryNames = ["end", "gap", "resync"]`,
    replace: `const libraryNames = ["gap", "resync"]`,
    test,
    name: "refuses events by the names"
  },
  {
    promise: "An event without data has a line of data, without which a browser discards it",
    file: "src/ServerSentEvent.ts",
    find: "data ??= \"\"",
    replace: "endsEvent = true",
    test: "test/ServerSentEvent.test.ts",
    name: "without a blank line"
  },
  {
    promise: "A ServerSentEvent is encoded once",
    file: "src/ServerSentEvent.ts",
    find: "if (fields instanceof Encoded) return Either.right(fields)",
    replace: "",
    test: "test/ServerSentEvent.test.ts",
    name: "encoded once"
  },
  {
    promise: "Comments and retry leave without a blank line",
    file: "src/ServerSentEvent.ts",
    find: "endsEvent ? `${frame}\\n` : frame",
    replace: "`${frame}\\n`",
    test: "test/ServerSentEvent.test.ts",
    name: "without a blank line"
  },
  {
    promise: "No `retry` is sent with `retry: \"off\"`, not even at shutdown",
    file: connection,
    find: `sendsRetry: retry !== "off"`,
    replace: "sendsRetry: true",
    test,
    name: "shuts down without a retry"
  },
  {
    promise: "Events that wait together precede a frame that is queued after them",
    file: connection,
    find: "  endBatch(delivery)\n  MutableList.append",
    replace: "  MutableList.append",
    test,
    name: "keeps the order of events of any size"
  },
  {
    promise: "Text that waits together counts as its bytes",
    file: connection,
    find: "if (delivery.queuedBytes + size > maxBytes) return false",
    replace: "if (delivery.queuedBytes + text.length > maxBytes) return false",
    test,
    name: "queues no more bytes than maxBytes for a client that does not read"
  },
  {
    promise: "Each frame is an element of toStream",
    file: connection,
    find: `strategy !== "suspend" || delivery.sink?.write === undefined`,
    replace: `strategy !== "suspend" || delivery.sink === undefined`,
    test,
    name: "makes one element of each frame"
  },
  {
    promise: "Text that is not ASCII is sent as UTF-8",
    file: "src/EventStream/internal/frame.ts",
    find: `this.size === this.text.length ? "latin1" : "utf8"`,
    replace: `"latin1"`,
    test,
    name: "keeps the order of events of any size and script"
  }
] satisfies ReadonlyArray<Mutation>
