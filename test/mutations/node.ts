import type { Mutation } from "./mutation.js"

const shutdown = "src/EventStream/internal/nodeShutdown.ts"
const upgrade = "src/EventStream/internal/nodeUpgrade.ts"
const sink = "src/EventStream/internal/nodeSink.ts"
const test = "test/EventStream/httpConnection.test.ts"

export default [
  {
    promise: "A server is watched before its first stream",
    file: shutdown,
    find: "  ) watch(message.server)",
    replace: "  ) void 0",
    test,
    name: "does not wait for a silent connection"
  },
  {
    promise: "Connections that remain after a second are closed",
    file: shutdown,
    find: "        for (const socket of sockets) socket.destroy()\n",
    replace: "",
    test,
    name: "over TLS, does not wait for a handshake"
  },
  {
    promise: "A request that arrives while the server closes is refused at once",
    file: shutdown,
    find: "    if (hasBegun() || unread.has(request)) return refuse(request, response)\n",
    replace: "",
    test,
    name: "refuses at once what is asked meanwhile"
  },
  {
    promise: "An EventSource is never answered 503",
    file: shutdown,
    find: "if (!namesEvents(request.headers.accept)) {",
    replace: "if (namesEvents(request.headers.accept)) {",
    test,
    name: "refuses at once what is asked meanwhile"
  },
  {
    promise: "No request reaches the application before its response has its turn",
    file: shutdown,
    find: "second.socket === null ? postpone(server, first, second) : request(first, second)",
    replace: "request(first, second)",
    test,
    name: "do not let a request behind them"
  },
  {
    promise: "The error of an upgraded socket does not end the process",
    file: shutdown,
    find: "    socket.on(\"error\", ignore).on(",
    replace: "    socket.on(",
    test,
    name: "foo: a client that vanishes while it is written to"
  },
  {
    promise: "An upgraded socket is closed when its response has ended",
    file: upgrade,
    find: "    if (socket.listenerCount(\"data\") === 0) socket.destroy()",
    replace: "",
    test,
    name: "foo: what is not a stream leaves no socket"
  },
  {
    promise: "The end of the client's side of an upgraded socket ends its stream",
    file: upgrade,
    find: "  request.socket.resume()\n",
    replace: "",
    test,
    name: "foo: the stream ends with its client (end)"
  },
  {
    promise: "A request that asks for h2c keeps its body",
    file: upgrade,
    find: "  socket.unshift(head)\n",
    replace: "",
    test,
    name: "h2c: the application gets the body"
  },
  {
    promise: "A request that wants no event stream is refused with 503, although its header Accept names one",
    file: "src/EventStream/internal/mediaType.ts",
    find: "return !range.some(",
    replace: "return range.length > 0 || range.some(",
    test,
    name: "by what it accepts"
  },
  {
    promise: "A request that lost its body while it waited for its turn does not reach the application",
    file: shutdown,
    find: "      unread.add(request)\n",
    replace: "",
    test: "test/EventStream/nodeShutdown.test.ts",
    name: "behind a response"
  },
  {
    promise: "A body that waits for its turn does not hold up its upload",
    file: shutdown,
    find: "      unread.add(request)\n      request.resume()",
    replace: "      unread.add(request)",
    test: "test/EventStream/nodeShutdown.test.ts",
    name: "behind a response"
  },
  {
    promise: "A body that no producer reads does not hold up its upload",
    file: sink,
    find: "      if (req.readableFlowing === null) req.resume()",
    replace: "",
    test,
    name: "does not hold up its upload"
  },
  {
    promise: "A broker that is released waits for readers that read",
    file: "src/EventBroker.ts",
    find: "hub.isEmpty ? admission.close : Effect.withClock(Effect.delay(drain.atOnce, \"10 millis\"), Clock.make())",
    replace: "admission.close",
    test: "test/EventStream/nodeShutdown.test.ts",
    name: "only the broker"
  },
  {
    promise: "An idle session of HTTP/2 does not hold up the closing",
    file: shutdown,
    find:
      "        for (const session of sessions.keys()) session.destroy()\n        for (const socket of sockets) socket.destroy()\n",
    replace: "",
    test: "test/EventStream/nodeShutdown.test.ts",
    name: "does not wait for a request that is not complete"
  },
  {
    promise: "A response of HTTP/2 that is reset before it is sent leaves no fiber",
    file: "src/EventStream/internal/nodeShutdown.ts",
    find: "this.once(\"close\", done)",
    replace: "",
    test: "test/EventStream/http2Connection.test.ts",
    name: "reset before it is sent"
  },
  {
    promise: "A stream of HTTP/2 ends when its client announces to close the connection",
    file: "src/EventStream/internal/nodeShutdown.ts",
    find: "for (const stream of own.streams) takeTurn(() => own.streams.has(stream) && stream.shutdown())",
    replace: "",
    test: "test/EventStream/http2Connection.test.ts",
    name: "when the client announces to close its connection"
  },
  {
    promise: "A stream of HTTP/2 that opens after its client has announced to close the connection ends too",
    file: "src/EventStream/internal/nodeShutdown.ts",
    find: "own.isLeaving = true",
    replace: "",
    test: "test/EventStream/http2Connection.test.ts",
    name: "after the client has announced to close"
  },
  {
    promise: "A connection on which thousands of requests wait is read no more",
    file: "src/EventStream/internal/nodeShutdown.ts",
    find: "socket.on(\"resume\", pause)",
    replace: "socket",
    test: "test/EventStream/httpConnection.test.ts",
    name: "thousands of requests wait for a second"
  },
  {
    promise: "Streams of HTTP/2 that one packet opens begin over several turns of the event loop",
    file: "src/EventStream/internal/nodeShutdown.ts",
    find: "tasks.length > 0 || spent > turnTime",
    replace: "tasks.length > 0",
    test: "test/EventStream/http2Connection.test.ts",
    name: "over several turns"
  },
  {
    promise: "A response over an upgraded socket leaves no fiber when its client leaves",
    file: "src/EventStream/internal/nodeShutdown.ts",
    find: "if (isResponse(response)) response.end = endWithConnection",
    replace: "",
    test: "test/EventStream/httpConnection.test.ts",
    name: "begins once its connection is gone"
  },
  {
    promise: "A request with a body that asks for another protocol is answered as without that",
    file: "src/EventStream/internal/nodeShutdown.ts",
    find: " || hasBody(first)) {",
    replace: ") {",
    test: "test/EventStream/httpConnection.test.ts",
    name: "the application gets the body, and a client"
  },
  {
    promise: "A response that ends after its connection has closed leaves no fiber",
    file: "src/EventStream/internal/nodeShutdown.ts",
    find: "if (isGone(this)) setImmediate(done)",
    replace: "",
    test: "test/EventStream/httpConnection.test.ts",
    name: "of a HEAD request whose client leaves"
  },
  {
    promise: "A request over HTTP/1.1 that claims to be of HTTP/2 waits for its turn too",
    file: "src/EventStream/internal/nodeShutdown.ts",
    find: "if (isHttp2(second)) return spread",
    replace: "if (first.httpVersionMajor === 2) return spread",
    test: "test/EventStream/httpConnection.test.ts",
    name: "reach the application (HTTP/2.0)"
  },
  {
    promise: "The scope of a request is open as long as its stream",
    file: "src/EventStream/internal/nodeHandover.ts",
    find: "HttpApp.ejectDefaultScopeClose(scope)",
    replace: "",
    test: "test/EventStream/nodeHandover.test.ts",
    name: "closes its scope when the client leaves"
  },
  {
    promise: "A head that cannot be written is reported, and no stream begins",
    file: "src/EventStream/internal/nodeHandover.ts",
    find: "restoreEnd()",
    replace: "",
    test: "test/EventStream/nodeHandover.test.ts",
    name: "reports a head that cannot be written"
  },
  {
    promise: "The scope of a request closes with an interruption if the client leaves",
    file: "src/EventStream/internal/nodeSink.ts",
    find: "hasLeft ? Exit.interrupt(clientAbortFiberId) : Exit.void",
    replace: "Exit.void",
    test: "test/EventStream/nodeHandover.test.ts",
    name: "closes its scope when the client leaves"
  },
  {
    promise: "a stream ends under a middleware that replaces the end of the response",
    file: "src/EventStream/internal/nodeSink.ts",
    find: `response.once("finish", this.leave).end()`,
    replace: "response.end(this.leave)",
    test: "test/EventStream/nodeShutdown.test.ts",
    name: "with a middleware that replaces end"
  },
  {
    promise: "A GOAWAY of HTTP/2 between requests does not end the process",
    file: "src/EventStream/internal/nodeShutdown.ts",
    find: `      postponeClose(session)
`,
    replace: "",
    test: "test/processes/http2Goaway.test.ts",
    name: "do not end the process"
  }
] satisfies ReadonlyArray<Mutation>
