import type { Mutation } from "./mutation.js"

const connection = "src/EventStream/internal/connection.ts"
const test = "test/EventStream/queueLaws.test.ts"

export default [
  {
    promise: "the size of a queue includes suspended offers",
    file: connection,
    find: "this.state.waiting?.publishers.size ?? 0 : 0",
    replace: "0 : 0",
    test,
    name: "own queue: suspend"
  },
  {
    promise: "a gap takes no place in the queue",
    file: connection,
    find: "push(delivery, reportsGap ? Frame.join([this.takeGap(), frame]) : frame)",
    replace: "if (reportsGap) push(delivery, this.takeGap()); push(delivery, frame)",
    test,
    name: "own queue: dropping"
  },
  {
    promise: "unsafeOffer lets no strategy act",
    file: connection,
    find: "return this.connection.offerIfRoom(toFrame(event))",
    replace: "return this.connection.offer(toFrame(event))",
    test,
    name: "own queue: sliding"
  },
  {
    promise: "an interrupted offer leaves nothing behind",
    file: connection,
    find: "for (const cancel of cancels) cancel()",
    replace: "",
    test,
    name: "own queue: suspend"
  },
  {
    promise: "an offer after the end interrupts the offering fiber",
    file: connection,
    find: "if (!connection.isOpen) return Effect.interrupt",
    replace: "if (!connection.isOpen) return Effect.succeed(false)",
    test,
    name: "own queue: sliding"
  },
  {
    promise: "a suspended offer is interrupted by the end",
    file: connection,
    find: "if (!taken) resume(Effect.interrupt)",
    replace: "if (!taken) resume(Effect.succeed(false))",
    test,
    name: "own queue: suspend"
  },
  {
    promise: "awaitShutdown succeeds at the end",
    file: connection,
    find: "for (const listener of waiting?.closeListeners ?? []) listener()",
    replace: "",
    test,
    name: "own queue: dropping"
  },
  {
    promise: "Queue.shutdown drops what is queued",
    file: connection,
    find: `if (this.state._tag === "Open") clear(this.state.delivery)`,
    replace: "",
    test,
    name: "whose shutdown drops"
  },
  {
    promise: "options are refused when the route is built",
    file: "src/EventStream.ts",
    find:
      "const defaults = Connection.parse(options)\n  Response.checkOptions(options)\n  return Effect.gen(function*() {",
    replace: "return Effect.gen(function*() {\n  const defaults = Connection.parse(options)",
    test: "test/EventStream.test.ts",
    name: "refuses options that cannot be"
  }
] satisfies ReadonlyArray<Mutation>
