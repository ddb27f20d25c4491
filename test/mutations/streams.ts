import type { Mutation } from "./mutation.js"

const after = "appends an event after the last one of its channel only"

export default [
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
    find: "after !== (ring?.last?.seq ?? ring?.floor ?? 0)",
    replace: "after !== (ring?.last?.seq ?? 0)",
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
  }
] satisfies ReadonlyArray<Mutation>
