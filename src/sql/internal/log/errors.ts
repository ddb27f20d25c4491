/**
 * The errors of operations that the log ends, because its database has not answered or it is closed.
 */
import { EventLogError } from "../../../EventLog.js"

export const unavailable = (detail: string) => new EventLogError({ reason: "Unavailable", detail })
export const timeout = (detail: string) => new EventLogError({ reason: "Timeout", detail })

export const closed = unavailable("the log has been closed")

/** The time for which an operation waits for the database. */
export const waitMillis = 15_000
export const notAnswered = "the database has not answered in time"
