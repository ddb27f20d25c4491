import type { Mutation } from "./mutation.js"

const file = "src/AccessTicket.ts"
const test = "test/AccessTicket.test.ts"

export default [
  {
    promise: "A ticket expires",
    file,
    find: "(yield* Clock.currentTimeMillis) >= expiry",
    replace: "(yield* Clock.currentTimeMillis) >= Infinity",
    test,
    name: "expires after its ttl"
  },
  {
    promise: "A ticket does not outlive its session",
    file,
    find: "Math.min(now + lifetime, until ?? Infinity)",
    replace: "now + lifetime",
    test,
    name: "not later than the session"
  },
  {
    promise: "A stream that a ticket has opened ends with the session",
    file,
    find: "JSON.stringify([expiry, owner, until])",
    replace: "JSON.stringify([expiry, owner, null])",
    test,
    name: "a stream outlives its ticket"
  },
  {
    promise: "A ticket is valid for its audience only",
    file,
    find: `["effect-realtime/AccessTicket", audience, payload]`,
    replace: `["effect-realtime/AccessTicket", payload]`,
    test,
    name: "carries any owner"
  },
  {
    promise: "A signature has one spelling",
    file,
    find: "[\\w-]{42}[AEIMQUYcgkosw048]",
    replace: "[\\w-]{43}",
    test,
    name: "any character changed"
  },
  {
    promise: "A ticket of an old secret is accepted",
    file,
    find: "Effect.exists(keys,",
    replace: "Effect.exists(keys.slice(0, 1),",
    test,
    name: "the first secret"
  },
  {
    promise: "A short secret is refused",
    file,
    find: "length < minSecretBytes",
    replace: "length < 0",
    test,
    name: "refuses secrets"
  },
  {
    promise: "The header precedes the cookie",
    file,
    find: "if (Option.isSome(access)) return access",
    replace: "if (Option.isSome(access) && cookie === undefined) return access",
    test,
    name: "reads the header"
  },
  {
    promise: "A session precedes a ticket",
    file,
    find: "if (Option.isSome(session)) return session.value",
    replace: "if (Option.isSome(session) && ticket === null) return session.value",
    test,
    name: "reads the header"
  },
  {
    promise: "A ticket whose session has ended is refused",
    file,
    find: "options.ticket === undefined ?",
    replace: "ticket !== null ?",
    test,
    name: "is checked again"
  },
  {
    promise: "A ticket is in no span",
    file,
    find: "if (ticket !== null) yield* redactSpans",
    replace: "",
    test,
    name: "no span"
  }
] satisfies ReadonlyArray<Mutation>
