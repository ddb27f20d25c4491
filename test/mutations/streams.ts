import type { Mutation } from "./mutation.js"

const runs = "src/ResumableStream/internal/runs.ts"
const own = "test/ResumableStream.test.ts"
const suite = "test/ResumableStream/memory.test.ts"
const page = "src/browser/ResumableStreamClient.ts"
const pageTest = "test/ResumableStreamClient.test.ts"
const light = "src/client/index.ts"
const lightTest = "test/client.test.ts"
const after = "appends an event after the last one of its channel only"

export default [
  {
    promise: "restart is told the elements of the log, also after an attempt that has failed",
    file: "src/ResumableStream.ts",
    find: "Effect.suspend(() =>\n      Stored.eventsOf(log, channel.name)",
    replace: "((read: () => never) => read())(() =>\n      Stored.eventsOf(log, channel.name)",
    test: suite,
    name: "tells restart the same elements again"
  },
  {
    promise: "memory appends after the last event of the channel only",
    file: "src/EventLog.ts",
    find: "isLate(event)",
    replace: "false",
    test: "test/EventLog/memory.test.ts",
    name: after
  },
  {
    promise: "the last event counts if memory has evicted it",
    file: "src/EventLog.ts",
    find: "after !== (ring?.last ?? ring?.floor ?? 0)",
    replace: "after !== (ring?.last ?? 0)",
    test: "test/EventLog/memory.test.ts",
    name: after
  },
  {
    promise: "an event with after is the only one of its channel in a call",
    file: "src/EventLog.ts",
    find: "other !== event && other.channel === event.channel",
    replace: "other !== event && false",
    test: "test/EventLog/memory.test.ts",
    name: after
  },
  {
    promise: "Redis appends after the last event of the channel only",
    file: "src/redis/internal/scripts.ts",
    find: "if after and after ~=",
    replace: "if false and after ~=",
    test: "test/redis/RedisEventLog.test.ts",
    name: after
  },
  {
    promise: "SQLite appends after the last event of the channel only",
    file: "src/sql/internal/log/statements.ts",
    find: "column7 IS NULL OR",
    replace: "1 = 1 OR",
    test: "test/sql/SqlEventLog.test.ts",
    name: after
  },
  {
    promise: "PostgreSQL appends after the last event of the channel only",
    file: "src/sql/internal/log/tables.ts",
    find: "m.previous IS NULL OR (",
    replace: "TRUE OR (",
    test: "test/sql/SqlEventLog.test.ts",
    name: after
  },
  {
    promise: "an event of a transaction in the same statement is a later one",
    file: "src/sql/internal/log/tables.ts",
    find: "NOT s.own AND s.channel = m.channel AND s.known IS NULL",
    replace: "FALSE",
    test: "test/sql/SqlEventLog.test.ts",
    name: "appends nothing after an event that a transaction has followed"
  },
  {
    promise: "a statement has one event of a channel in which one is appended after another",
    file: "src/sql/internal/log/writer.ts",
    find: "|| own.some((channel) => taken.has(channel))",
    replace: "",
    test: "test/sql/SqlEventLog.test.ts",
    name: "appends one of the events that several writers append after the same one"
  },
  {
    promise: "a producer that was replaced appends nothing more",
    file: runs,
    find: "entryOf(source.channel, data, place.seq, source.keep + left)",
    replace: "{ ...entryOf(source.channel, data, place.seq, source.keep + left), after: undefined }",
    test: suite,
    name: "lets a producer that was replaced append nothing more"
  },
  {
    promise: "a stream runs once, though several nodes start it",
    file: runs,
    find: `if (state._tag !== "None") return Option.none()`,
    replace: "",
    test: suite,
    name: "runs a stream once"
  },
  {
    promise: "a stream whose key the log has forgotten, or has nothing of, is started again",
    file: runs,
    find: "new Set([state.seq, 0])",
    replace: "new Set([0])",
    test: suite,
    name: "stores a stream for the time after its end"
  },
  {
    promise: "an idle producer is interrupted by a stop on another node",
    file: runs,
    find: "names.has(source.channel)",
    replace: "false",
    test: suite,
    name: "stops a stream on another node"
  },
  {
    promise: "a stop is noticed though its message is lost",
    file: runs,
    find: "isLost || names",
    replace: "false || names",
    test: own,
    name: "though the log has lost the message"
  },
  {
    promise: "a lost answer of the log repeats no element",
    file: runs,
    find: "? advance(next, first)",
    replace: "? lose(run)",
    test: suite,
    name: "lets a producer wait while the log is away"
  },
  {
    promise: "a lost answer to a start starts nothing twice",
    file: runs,
    find: "isOwn(state) ? Effect.succeedSome(state.last.place) : error",
    replace: "error",
    test: own,
    name: "though the answer of the log is lost"
  },
  {
    promise: "a producer waits while its elements are not appended",
    file: runs,
    find: "return run.room.await",
    replace: "return Effect.void",
    test: suite,
    name: "lets a producer wait while the log is away"
  },
  {
    promise: "the elements of a window are one append",
    file: runs,
    find: "Effect.raceFirst(Effect.sleep(left), urgent.await)",
    replace: "Effect.void",
    test: own,
    name: "appends the elements of a window together"
  },
  {
    promise: "the end of a stream does not wait for another window",
    file: runs,
    find: `    yield* flush("ending")\n    yield* flush("ending")\n`,
    replace: "",
    test: own,
    name: "appends the elements of a window together"
  },
  {
    promise: "much that is pending does not wait for the window",
    file: runs,
    find: "if (isUrgent()) urgent.unsafeOpen()",
    replace: "",
    test: own,
    name: "does not wait for the window when much is pending"
  },
  {
    promise: "a stream ends with its time limit",
    file: runs,
    find: "duration: run.source.timeLimit",
    replace: "duration: Number.POSITIVE_INFINITY",
    test: own,
    name: "stops a stream after its time limit"
  },
  {
    promise: "readers receive the shutdown of a node",
    file: runs,
    find: `for (const run of open) finish(run, Stored.stopped("Shutdown"))`,
    replace: "",
    test: suite,
    name: "when the node of a stream shuts down"
  },
  {
    promise: "a shutdown waits for a second at most",
    file: runs,
    find: `Effect.timeoutOption("1 second")`,
    replace: `Effect.timeoutOption("10 seconds")`,
    test: own,
    name: "within a second though the log does not answer"
  },
  {
    promise: "nothing waits for a node that has shut down",
    file: runs,
    find: "Effect.zipRight(Effect.forEach(open, remove, { discard: true }))",
    replace: "Effect.asVoid",
    test: own,
    name: "ends a stop when the node shuts down"
  },
  {
    promise: "a stream of a log that has begun again ends",
    file: runs,
    find: `(reason) => reason !== "Evicted"`,
    replace: "() => false",
    test: own,
    name: "ends a stream whose log has begun again"
  },
  {
    promise: "readers receive that the node of a stream has died",
    file: "src/ResumableStream/internal/watch.ts",
    find: `if (now - stream.absentSince < lease`,
    replace: `if (true || now - stream.absentSince < lease`,
    test: suite,
    name: "tells readers that the node of a stream has died"
  },
  {
    promise: "a node that can continue a stream comes before one that can only end it",
    file: "src/ResumableStream/internal/watch.ts",
    find: "stream.restart === undefined ? 2 : 1",
    replace: "stream.restart === undefined ? 0 : 1",
    test: suite,
    name: "continues a stream whose node has died"
  },
  {
    promise: "the end of a stream shows nothing of a value that its schema refuses",
    file: "src/ResumableStream.ts",
    find: "Stored.defect)",
    replace: `Stored.encode({ event: "failed", data: { _tag: "Defect", message } }))`,
    test: suite,
    name: "with nothing of a defect"
  },
  {
    promise: "a late reader receives all elements so far as one event",
    file: "src/ResumableStream.ts",
    find: "definition.compact === undefined || first === undefined",
    replace: "true",
    test: suite,
    name: "sends a late reader all elements so far as one event"
  },
  {
    promise: "a reader of a stream that the log does not have is answered 404",
    file: "src/ResumableStream.ts",
    find: "status: 404",
    replace: "status: 204",
    test: suite,
    name: "sends a late reader all elements so far as one event"
  },
  {
    promise: "a stream is stored for its own time",
    file: runs,
    find: "retention: { capacity: Number.POSITIVE_INFINITY, maxBytes: Number.POSITIVE_INFINITY, maxAge }",
    replace: "retention: { capacity: Number.POSITIVE_INFINITY, maxBytes: Number.POSITIVE_INFINITY }",
    test: own,
    name: "stores a stream for an hour after its end"
  },
  {
    promise: "an event has at most 256 Ki characters of elements, unless it is one",
    file: runs,
    find: "(length += json.length) > maxBatchLength",
    replace: "length > maxBatchLength",
    test: own,
    name: "appends a large element as an event of its own"
  },
  {
    promise: "what does not fit in an event is in the next one",
    file: runs,
    find: "|| run.pending.length > 0) note(run)",
    replace: ") note(run)",
    test: own,
    name: "appends a large element as an event of its own"
  },
  {
    promise: "a value that is too large ends its own stream",
    file: "src/ResumableStream.ts",
    find: "(isOne ? maxLength : partLength)",
    replace: "(isOne ? Infinity : partLength)",
    test: own,
    name: "a value that is too large"
  },
  {
    promise: "a result that is too large is not appended",
    file: "src/ResumableStream.ts",
    find: "({ data }) => String(data).length <= maxLength",
    replace: "() => true",
    test: own,
    name: "a value that is too large"
  },
  {
    promise: "a client that polls has the end of a stream whose node has died",
    file: "src/ResumableStream.ts",
    find: "Effect.flatMap(observe(key), (state) => toStatus(",
    replace: "Effect.flatMap(Stored.readState(log, key.channel.name), (state) => toStatus(",
    test: own,
    name: "for a client that polls"
  },
  {
    promise: "a defect while one stream is examined does not end the others",
    file: runs,
    find:
      "Effect.catchAllDefect(\n          check(run),\n          () => logWarning(\"ResumableStream could not find out if another node has ended a stream: it goes on\")\n        )",
    replace: "check(run)",
    test: own,
    name: "when it cannot look at one"
  },
  {
    promise: "an unknown stream is not found by a client that polls",
    file: "src/ResumableStream.ts",
    find: "status._tag === \"Unknown\" ? 404 : 200",
    replace: "200",
    test: own,
    name: "responds with the state as JSON"
  },
  {
    promise: "a window has the elements of all streams",
    file: runs,
    find: "for (let left = waiting.size; left > 0;) left -= Math.max(1, yield* flush(\"all\"))",
    replace: "yield* flush(\"all\")",
    test: own,
    name: "also if they are more than one append has"
  },
  {
    promise: "the time of an append is a part of the window",
    file: runs,
    find: "window - Math.max(0, now - begunAt)",
    replace: "window",
    test: own,
    name: "begins a window with the append"
  },
  {
    promise: "a client learns that the server does not have the stream",
    file: page,
    find: `error.status === 404 ? fail("Unknown") : error`,
    replace: "error",
    test: pageTest,
    name: "fails for a stream that the server does not have"
  },
  {
    promise: "a client receives the failure of the stream",
    file: page,
    find: `event.data._tag === "Failure" ? Effect.fail(event.data.failure) : fail("Defect")`,
    replace: `fail("Defect")`,
    test: pageTest,
    name: "fails with the failure of the stream"
  },
  {
    promise: "a client repeats no element",
    file: page,
    find: "hasElements && isWhole",
    replace: "false",
    test: pageTest,
    name: "after some that the log has evicted, and"
  },
  {
    promise: "all elements so far replace those that a client has",
    file: page,
    find: "isWhole ? elements : [...before, ...elements]",
    replace: "[...before, ...elements]",
    test: pageTest,
    name: "after some that the log has evicted, and"
  },
  {
    promise: "a client without the elements that the server has dropped fails",
    file: page,
    find: `case "gap":`,
    replace: `case "none" as "gap":`,
    test: pageTest,
    name: "that the server has dropped"
  },
  {
    promise: "a client without the elements that the log has evicted fails",
    file: page,
    find: "compact === undefined && !isFromClient(event.data.reason)",
    replace: "false",
    test: pageTest,
    name: "as incomplete for elements that the log has evicted before"
  },
  {
    promise: "a client that was connected before the first id begins again",
    file: page,
    find: `reason === "NoIds" || reason === "Unsendable"`,
    replace: "false",
    test: pageTest,
    name: "begins with the first element again"
  },
  {
    promise: "the end of the channel alone is no success",
    file: page,
    find: `hasEnded ? Stream.empty : Stream.fail(fail("Incomplete"))`,
    replace: "Stream.empty",
    test: pageTest,
    name: "after which the channel ends"
  },
  {
    promise: "a client fails for an event that it cannot decode",
    file: page,
    find: `event.event === "error" && event.data instanceof InvalidTopicEvent`,
    replace: "false",
    test: pageTest,
    name: "do not decode"
  },
  {
    promise: "a client fails for a start that is refused",
    file: page,
    find: "if (!response.ok)",
    replace: "if (false)",
    test: pageTest,
    name: "fails with the status of one that is refused"
  },
  {
    promise: "a client does not read by EventSource",
    file: page,
    find: `{ ...options, method: "GET" }`,
    replace: "options",
    test: pageTest,
    name: "does not connect with EventSource"
  },
  {
    promise: "the light client learns that the server does not have the stream",
    file: light,
    find: `if (error.status === 404) end("Unknown")`,
    replace: `if (false) end("Unknown")`,
    test: lightTest,
    name: "fails for a stream that the server does not have"
  },
  {
    promise: "the light client repeats no element",
    file: light,
    find: "if (isWhole && hasElements && onElements !== undefined)",
    replace: "if (false)",
    test: lightTest,
    name: "after some that the log has evicted, and"
  },
  {
    promise: "all elements so far replace those that the light client has",
    file: light,
    find: "isWhole ? elements : [...all, ...elements]",
    replace: "[...all, ...elements]",
    test: lightTest,
    name: "after some that the log has evicted, and"
  },
  {
    promise: "the light client without the elements that the server has dropped fails",
    file: light,
    find: `gap: () => hasHandlers && end("Incomplete"),`,
    replace: "",
    test: lightTest,
    name: "that the server has dropped"
  },
  {
    promise: "the light client without the elements that the log has evicted fails",
    file: light,
    find: "hasHandlers && compact === undefined && reason",
    replace: "false && reason",
    test: lightTest,
    name: "as incomplete for elements that the log has evicted before"
  },
  {
    promise: "the light client that was connected before the first id begins again",
    file: light,
    find: `reason !== "NoIds" && reason !== "Unsendable"`,
    replace: "true",
    test: lightTest,
    name: "begins with the first element again"
  },
  {
    promise: "the light client rejects the result at the end of the channel alone",
    file: light,
    find: `end: () => end("Incomplete")`,
    replace: "end: () => resolve(1)",
    test: lightTest,
    name: "after which the channel ends"
  },
  {
    promise: "the light client rejects the result for an event that it cannot read",
    file: light,
    find: `!error.isRetryable || error.reason === "NotJson"`,
    replace: "!error.isRetryable",
    test: lightTest,
    name: "for an event that is not JSON"
  },
  {
    promise: "the light client rejects a start that is refused",
    file: light,
    find: "if (!response.ok)",
    replace: "if (false)",
    test: lightTest,
    name: "fails with the status of one that is refused"
  },
  {
    promise: "a rejection of the light client that nothing handles is not reported",
    file: light,
    find: "result.catch(() => {})",
    replace: "",
    test: lightTest,
    name: "reports no rejection"
  },
  {
    promise: "the light client rejects the result when the reader is closed",
    file: light,
    find: `() => reject(new ResumableError("Closed"))`,
    replace: `() => resolve("Closed")`,
    test: lightTest,
    name: "reports no rejection"
  },
  {
    promise: "the light client closes a reader when its signal aborts",
    file: light,
    find: `signal?.addEventListener("abort", close, { signal: closed.signal })`,
    replace: "",
    test: lightTest,
    name: "reports no rejection"
  },
  {
    promise: "the elements before one that cannot be encoded are emitted",
    file: "src/ResumableStream.ts",
    find: "onFailure: ({ reason }) => halve(reason)",
    replace: "onFailure: ({ reason }) => Effect.die(new Unencodable(reason))",
    test: own,
    name: "logs nothing of a value that its schema refuses"
  },
  {
    promise: "a stream ends whose restart dies",
    file: "src/ResumableStream/internal/watch.ts",
    find: "runs.stop(channel, \"NodeLost\", stream.keep)\n            )",
    replace: "Effect.void\n            )",
    test: own,
    name: "ends a stream whose restart dies"
  }
] satisfies ReadonlyArray<Mutation>
