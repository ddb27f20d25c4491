import * as Schema from "effect/Schema"

import { WebPushFailure } from "../../WebPushError.js"
import { lifetime, Message } from "./message.js"

/** A device that a notification did not reach. */
export const Failure = Schema.Struct({
  device: Schema.String,
  reason: Schema.Literal(...WebPushFailure.fields.reason.literals, "Expired", "Removed"),
  isFinal: Schema.Boolean
})

/** A failure with its own schedule. Entries of an older version have no `attempts` and no `dueAt` for each device. */
const Pending = Schema.Struct({
  ...Failure.fields,
  attempts: Schema.optional(Schema.Number),
  dueAt: Schema.optional(Schema.Number)
})

export type Pending = typeof Pending.Type

/** An entry of the storage. */
export const Entry = Schema.Struct({
  id: Schema.String,
  owner: Schema.String,
  message: Message,
  // `null` before the first attempt. After it the event is published, and only devices are left.
  failures: Schema.NullOr(Schema.parseJson(Schema.Array(Pending))),
  // The devices that need no further attempt. `null` if an older version did not record them.
  reached: Schema.NullOr(Schema.parseJson(Schema.Array(Schema.String))),
  attempts: Schema.Number,
  // The time from which the entry may be claimed. For a claimed entry it is the end of the lease.
  dueAt: Schema.Number,
  createdAt: Schema.DateTimeUtcFromNumber
})

export type Entry = typeof Entry.Type

/** A dead letter of the storage. */
export const DeadEntry = Schema.Struct({
  ...Entry.pick("id", "owner", "attempts", "createdAt").fields,
  failures: Schema.NullOr(Schema.parseJson(Schema.Array(Failure))),
  diedAt: Schema.Number
})

/** Returns the time at which the `ttl` ends, in milliseconds since 1970. */
export const expiryOf = ({ createdAt, message: { options } }: Entry): number =>
  options.ttl === undefined ? Number.POSITIVE_INFINITY : createdAt.epochMillis + lifetime(options.ttl)
