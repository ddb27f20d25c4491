import { Prototype } from "effect/Pipeable"

import type { EventStream } from "../EventStream.js"
import type { Connection } from "./connection.js"

export const TypeId = "~effect-realtime/EventStream"

export const fromConnection = (connection: Connection): EventStream => ({ ...Prototype, [TypeId]: connection })
