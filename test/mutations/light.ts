import type { Mutation } from "./mutation.js"

const client = "src/client/index.ts"
const connection = "src/client/internal/connection.ts"
const parser = "src/client/internal/parser.ts"
const params = "src/client/internal/params.ts"
const hook = "src/react/index.ts"
const test = "test/client.test.ts"
const inChromium = "test/browser/react.test.ts"

export default [
  {
    promise: "a hook that is enabled again does not show the state of its last connection",
    file: hook,
    find: `    setState((state) =>
      state.key === key && state`,
    replace: `    if (!enabled) return
    setState((state) =>
      state.key === key && state`,
    test: inChromium,
    name: "connects while it is enabled"
  },
  {
    promise: "two topics with an event of one name do not collide",
    file: client,
    find: "rest === undefined ? undefined : Params.paramsOf(path, channel)",
    replace: "rest === undefined ? undefined : {}",
    test,
    name: "distinguishes the channels of several topics"
  },
  {
    promise: "a segment that is not valid percent-encoding is of no channel",
    file: params,
    find: "    return\n  }\n}",
    replace: "    return {}\n  }\n}",
    test,
    name: "distinguishes the channels of several topics"
  },
  {
    promise: "handlers by event receive the channel of a pattern",
    file: client,
    find: ": handle(handlers, event, rest, { id, channel })",
    replace: ": handle(handlers, event, text, { id, channel })",
    test,
    name: "passes the channel to handlers by event"
  },
  {
    promise: "a server cannot call the handlers of the connection, nor methods of every object",
    file: client,
    find: "Object.hasOwn(own, event) ? Reflect",
    replace: "event in own ? Reflect",
    test,
    name: "calls no handler for the reserved names"
  },
  {
    promise: "a subscription that is closed at once sends no request",
    file: connection,
    find: "queueMicrotask(run)",
    replace: "run()",
    test,
    name: "sends no request"
  },
  {
    promise: "no handler is called after the signal has aborted",
    file: connection,
    find: "if (signal.aborted || hasEnded) return",
    replace: "if (hasEnded) return",
    test,
    name: "closes the connection when the signal aborts"
  },
  {
    promise: "a connection without data for two heartbeats is replaced",
    file: connection,
    find: "timer = setTimeout(fail, heartbeat * 2, \"Silent\")",
    replace: "timer = undefined",
    test,
    name: "replaces a connection without heartbeats"
  },
  {
    promise: "a heartbeat is activity",
    file: connection,
    find: "        onActivity()\n        if (!parse",
    replace: "        if (!parse",
    test,
    name: "keeps a connection open that has only heartbeats"
  },
  {
    promise: "the event `end` ends the stream",
    file: connection,
    find: "frame.event === \"end\"",
    replace: "frame.event === \"over\"",
    test,
    name: "ends at the event end"
  },
  {
    promise: "the backoff grows until an event arrives",
    file: connection,
    find: "if (frame.data === undefined) return\n        isProven = true",
    replace: "isProven = true\n        if (frame.data === undefined) return",
    test,
    name: "increases the delay"
  },
  {
    promise: "the backoff starts again after a connection that lasted",
    file: connection,
    find: "isProven ||= age() >= provenAge",
    replace: "isProven ||= age() < 0",
    test,
    name: "starts the delays again after a connection that lasted"
  },
  {
    promise: "`retry` has a floor",
    file: connection,
    find: "Math.max(retry, minRetry)",
    replace: "retry",
    test,
    name: "waits for half a second"
  },
  {
    promise: "Retry-After is respected",
    file: connection,
    find: "retryAfter ?? retryDelay",
    replace: "retryDelay",
    test,
    name: "does not reconnect before Retry-After"
  },
  {
    promise: "a reconnect to a server without ids causes a resync",
    file: connection,
    find: "hasOpened && session.lastEventId === \"\" ? \"NoIds\" : undefined",
    replace: "undefined",
    test,
    name: "emits resync after a reconnect"
  },
  {
    promise: "a request that the server refuses as too large is repeated without its id",
    file: connection,
    find: "status === 414 || status === 431",
    replace: "status === 414",
    test,
    name: "repeats a request without the id that the server refuses"
  },
  {
    promise: "a line or an event without an end is an error, and uses no unbounded memory",
    file: parser,
    find: "return line.length + (data ?? \"\").length <= maxLength",
    replace: "return true",
    test,
    name: "does not reconnect after TooLarge"
  },
  {
    promise: "an id without data moves the position",
    file: parser,
    find: "if (data !== undefined || id !== undefined) onFrame",
    replace: "if (data !== undefined) onFrame",
    test,
    name: "an id without data"
  },
  {
    promise: "useEvents calls the latest handlers",
    file: hook,
    find: "Object.assign(live, handlers, own)\n  })",
    replace: "Object.assign(live, handlers, own)\n  }, [])",
    test: inChromium,
    name: "calls the latest handlers"
  },
  {
    promise: "useEvents resumes after the last id when it is enabled again",
    file: hook,
    find: "isResumed ? connection.current.position :",
    replace: "!isResumed ? connection.current.position :",
    test: inChromium,
    name: "resumes after the last id"
  },
  {
    promise: "useEvents connects to another URL",
    file: hook,
    find: "[key, enabled]",
    replace: "[enabled]",
    test: inChromium,
    name: "connects to another URL"
  }
] satisfies ReadonlyArray<Mutation>
