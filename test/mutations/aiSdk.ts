import type { Mutation } from "./mutation.js"

const file = "src/ai-sdk/UIMessageStream.ts"
const client = "src/ai-sdk/ChatFetch.ts"
const test = "test/ai-sdk/UIMessageStream.test.ts"

export default [
  {
    promise: "A chat that resumes replaces its message",
    file,
    find: `[{ type: "start", messageId }, chunk]`,
    replace: "[chunk]",
    test,
    name: "gives the same message to a chat that resumes"
  },
  {
    promise: "A message keeps the id that the program has given",
    file,
    find: "chunk.messageId ?? messageId",
    replace: "messageId",
    test,
    name: "has the protocol of the package"
  },
  {
    promise: "A page without a running answer is answered 204",
    file,
    find: `status._tag === "Running" ? [params] : []`,
    replace: `status._tag !== "Unknown" ? [params] : []`,
    test,
    name: "has the protocol of the package"
  },
  {
    promise: "A page resumes the last answer",
    file,
    find: "(yield* running(chats, chat)).at(-1)",
    replace: "(yield* running(chats, chat)).at(-2)",
    test,
    name: "gives the same message to a page that reloads"
  },
  {
    promise: "A client receives what follows its last chunk",
    file,
    find: "Stream.drop(position)",
    replace: "Stream.drop(0)",
    test,
    name: "has the protocol of the package"
  },
  {
    promise: "A stop is no error",
    file,
    find: `{ data: { type: "abort" } }`,
    replace: `{ data: { type: "error", errorText: reason } }`,
    test,
    name: "stops an answer from another client"
  },
  {
    promise: "ChatFetch continues when the node of its connection shuts down",
    file,
    find: `error._tag === "EventLogError" || reason === "Incomplete"`,
    replace: `error._tag === "EventLogError"`,
    test,
    name: "connects to another node by ChatFetch"
  },
  {
    promise: "ChatFetch reports an end only with [DONE]",
    file: client,
    find: "else if (id === lastId) end += frame",
    replace: `else if (id === "") end += frame`,
    test,
    name: "reports an end only with [DONE]"
  },
  {
    promise: "ChatFetch sends the headers of the request again",
    file: client,
    find: "headers: headersOf(init)",
    replace: "headers: new Headers()",
    test,
    name: "continues over another connection"
  },
  {
    promise: "ChatFetch fails when the server has lost the answer",
    file: client,
    find: "end: fail",
    replace: "end: () => controller.close()",
    test,
    name: "fails when the server refuses"
  },
  {
    promise: "ChatFetch closes the connection that it replaces",
    file: client,
    find: "{ signal: request.signal }",
    replace: "{}",
    test,
    name: "closes its connection when the chat stops"
  }
] satisfies ReadonlyArray<Mutation>
