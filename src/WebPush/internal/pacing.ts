/**
 * The state of the push services that the calls of a layer share: the pace, pauses with a slow restart, and circuits.
 * A service is a vendor, or an origin of no known vendor. A circuit belongs to an origin.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"

import { monotonicMillis } from "../../internal/clock.js"
import { annotateWith } from "../../internal/logging.js"
import { WebPushFailure, type WebPushGone } from "../../WebPushError.js"
import type { Endpoint, Vendor } from "./endpoint.js"

/** The milliseconds between two messages to a service of each vendor. No entry: as fast as possible. */
export type Intervals = ReadonlyMap<string, number>

const names: ReadonlySet<string> = new Set<Vendor>(["fcm", "mozilla", "apple", "wns", "other"])
const units: Readonly<Record<string, number>> = { second: 1000, minute: 60_000, hour: 3_600_000 }

/** Parses rates such as `1000 per minute` by vendor. Returns `undefined` if one is invalid. */
export const parse = (pace: unknown): Intervals | undefined => {
  if (!Predicate.isRecord(pace)) return undefined
  const intervals = new Map<string, number>()
  for (const [name, rate] of Object.entries(pace)) {
    if (rate === undefined) continue
    const [, count, unit = ""] = /^(\d+(?:\.\d+)?) per (second|minute|hour)$/.exec(String(rate)) ?? []
    const interval = (units[unit] ?? 0) / Number(count)
    if (!names.has(name) || !(interval > 0 && interval < Infinity)) return undefined
    intervals.set(name, interval)
  }
  return intervals
}

/** Number of time-outs in a row that opens a circuit. */
const maxTimeouts = 10

/** Time for which a circuit is open, and in which one probe may be under way. */
const openMillis = 30_000

/** `detail` of a message that was not sent since its circuit is open. */
export const circuitOpen = "CIRCUIT_OPEN"

/** Pause of a service that limits and names no time. */
const pauseMillis = 60_000

/** Longest pause: after a single response with a Retry-After of a year, the service is asked again. */
const longestPauseMillis = 86_400_000

/** The longest time for which a call waits for the pauses of a service. */
export const maxPauseMillis = 3_600_000

/** After a pause a service gets one message a second, and twice as many every 5 seconds. */
const doublingMillis = 5000

/** Number of services and of circuits that are remembered. The oldest one is dropped. */
const capacity = 1024

/** The longest delay of a timer for which the next messages make up. */
const maxLateMillis = 1000

interface Service {
  /** Time of the next message. */
  nextAt: number
  /** Delay of the last timer. */
  lateMillis: number
  pausedUntil: number
  /** Time at which the slow restart begins. `undefined` after it. */
  restartAt: number | undefined
}

interface Circuit {
  timeouts: number
  openUntil: number
}

const nameOf = ({ origin, vendor }: Endpoint): string => vendor === "other" ? origin : vendor

const get = <A>(states: Map<string, A>, key: string, make: () => A): A => {
  const known = states.get(key)
  if (known !== undefined) return known
  for (const oldest of states.keys()) {
    if (states.size < capacity) break
    states.delete(oldest)
  }
  const made = make()
  states.set(key, made)
  return made
}

// Apple reports a device that gets too many messages, and WNS a channel, by which other devices are not concerned.
const pauseOf = ({ detail, reason, retryAfter, status = 0 }: WebPushFailure): number | undefined =>
  reason === "RateLimited" && status >= 400 && detail !== "TooManyRequests"
    ? retryAfter === undefined ? pauseMillis : Duration.toMillis(retryAfter)
    : reason === "Unavailable" && status >= 500 && retryAfter !== undefined
    ? Duration.toMillis(retryAfter)
    : undefined

// A change of the time of day neither stops a pace nor prolongs a pause.
const currentMillis = Effect.map(Effect.clock, monotonicMillis)

const logWarning = (text: string): Effect.Effect<void> => Effect.logWarning(text).pipe(annotateWith("WebPush"))

/** The messages of one call to one origin. */
export interface Sender {
  readonly endpoint: Endpoint
  /** Milliseconds between two messages to the service, or 0. */
  readonly interval: number
  /** `false` if no message is held back by a pause. */
  readonly waits: boolean
  /** Milliseconds for which the call may still wait for pauses. */
  patience: number
}

export const make = () => {
  const services = new Map<string, Service>()
  const circuits = new Map<string, Circuit>()

  const serviceOf = (endpoint: Endpoint): Service =>
    get(services, nameOf(endpoint), () => ({
      nextAt: 0,
      lateMillis: 0,
      pausedUntil: 0,
      restartAt: undefined
    }))

  /** Takes the next place in the pace of a service, and returns its time. */
  const reserve = (service: Service, pace: number, now: number, waits: boolean): number => {
    const { restartAt } = service
    const restart = !waits || restartAt === undefined ? 0 : 1000 / 2 ** ((now - restartAt) / doublingMillis)
    if (waits && restart < 1) service.restartAt = undefined
    const interval = Math.max(pace, restart)
    const at = Math.max(service.nextAt, now - service.lateMillis)
    service.nextAt = at + interval
    return at
  }

  /** Returns `true` if a message may be sent at once, which needs no clock. */
  const isClear = ({ endpoint, interval, waits }: Sender): boolean =>
    interval === 0 && !(waits && services.has(nameOf(endpoint))) &&
    (circuits.get(endpoint.origin)?.timeouts ?? 0) < maxTimeouts

  /** Waits until a message may be sent, or fails if its circuit is open, or the pause is longer than the patience. */
  const pass = (sender: Sender, endpointId: string): Effect.Effect<void, WebPushFailure> =>
    Effect.flatMap(currentMillis, (now) => {
      const { endpoint, interval } = sender
      const service = serviceOf(endpoint)
      const pause = service.pausedUntil - now
      if (sender.waits && pause > 0) {
        if (pause > sender.patience) {
          return new WebPushFailure({
            reason: "RateLimited",
            endpointId,
            detail: "PAUSED",
            retryAfter: Duration.millis(pause),
            neverSent: true
          })
        }
        sender.patience -= pause
        return Effect.zipRight(Effect.sleep(pause), pass(sender, endpointId))
      }
      const circuit = circuits.get(endpoint.origin)
      if (circuit !== undefined && circuit.timeouts >= maxTimeouts) {
        if (now < circuit.openUntil) {
          return new WebPushFailure({
            reason: "Unavailable",
            endpointId,
            detail: circuitOpen,
            retryAfter: Duration.millis(circuit.openUntil - now),
            neverSent: true
          })
        }
        // This message is the probe.
        circuit.openUntil = now + openMillis
        return Effect.void
      }
      const at = reserve(service, interval, now, sender.waits)
      // The place of the next message of a paced call is kept.
      const isIdle = interval === 0 && service.restartAt === undefined && service.nextAt <= now
      if (isIdle && sender.waits) services.delete(nameOf(endpoint))
      if (at <= now) return Effect.void
      return Effect.flatMap(Effect.zipRight(Effect.sleep(at - now), currentMillis), (later) => {
        service.lateMillis = Math.min(Math.max(0, later - at), maxLateMillis)
        return sender.waits && service.pausedUntil > later ? pass(sender, endpointId) : Effect.void
      })
    })

  /** Records that a service has responded. */
  const responded = ({ origin }: Endpoint): void => {
    if (circuits.size > 0) circuits.delete(origin)
  }

  /** Records a failure: it may pause the service, and open or close the circuit. */
  const failed = (endpoint: Endpoint, error: WebPushGone | WebPushFailure): Effect.Effect<void> => {
    if (error._tag === "WebPushGone" || error.status !== undefined || error.reason === "Transport") responded(endpoint)
    const asked = error._tag === "WebPushGone" ? undefined : pauseOf(error)
    const pause = asked === undefined ? undefined : Math.min(asked, longestPauseMillis)
    if (pause === undefined && (error._tag === "WebPushGone" || error.reason !== "Timeout")) return Effect.void
    return Effect.flatMap(currentMillis, (now) => {
      if (pause !== undefined) {
        const service = serviceOf(endpoint)
        const isPaused = service.pausedUntil > now
        service.pausedUntil = Math.max(service.pausedUntil, now + pause)
        service.restartAt = service.pausedUntil
        return isPaused ? Effect.void : logWarning(
          `WebPush is limited by ${nameOf(endpoint)}: messages with a retry wait for ${Math.ceil(pause / 1000)} seconds`
        )
      }
      const circuit = get(circuits, endpoint.origin, () => ({ timeouts: 0, openUntil: 0 }))
      circuit.timeouts++
      if (circuit.timeouts >= maxTimeouts) circuit.openUntil = now + openMillis
      return circuit.timeouts === maxTimeouts
        ? logWarning(`WebPush got no response from ${endpoint.host} in time, ${maxTimeouts} times: its circuit is open`)
        : Effect.void
    })
  }

  /** Records the result of a message that is sent at once, and which takes its place in the pace all the same. */
  const around = <A, E extends WebPushGone | WebPushFailure>(
    endpointOf: () => Endpoint | undefined,
    intervals: Intervals | undefined,
    effect: Effect.Effect<A, E>
  ): Effect.Effect<A, E> => {
    const withEndpoint = (f: (endpoint: Endpoint) => Effect.Effect<void>) =>
      Effect.suspend(() => {
        const endpoint = endpointOf()
        return endpoint === undefined ? Effect.void : f(endpoint)
      })
    const observed = Effect.tapBoth(effect, {
      onSuccess: () =>
        circuits.size === 0 ? Effect.void : withEndpoint((endpoint) => Effect.sync(() => responded(endpoint))),
      onFailure: (error) => withEndpoint((endpoint) => failed(endpoint, error))
    })
    if (intervals === undefined || intervals.size === 0) return observed
    const count = withEndpoint((endpoint) => {
      const interval = intervals.get(endpoint.vendor)
      return interval === undefined
        ? Effect.void
        : Effect.map(currentMillis, (now) => void reserve(serviceOf(endpoint), interval, now, false))
    })
    return Effect.zipRight(count, observed)
  }

  return { around, failed, isClear, pass, responded }
}

export type Services = ReturnType<typeof make>
