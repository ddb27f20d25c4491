import type { Signal } from "./signal.js"

const maxSignals = 1_000
const maxCharacters = 16 * 1024 * 1024

type Emit = (signal: Signal) => unknown

/** A bounded queue of signals, around a queue that has no bound of its own. */
export interface SignalBuffer {
  /** Emits the signal, unless it is an event and the buffer is full. */
  readonly offer: (signal: Signal, emit: Emit) => void
  /** Removes a signal that the reader has taken from the count, and returns it. */
  readonly take: (signal: Signal) => Signal
}

/**
 * Makes a buffer for a sender without back-pressure. Drops events beyond 1,000 signals or 16 Mi characters, and reports
 * them as the server does: by the event `gap`, before the next event or after the last pending one.
 */
export const make = (): SignalBuffer => {
  let signals = 0
  let characters = 0
  let gap: { readonly dropped: number; readonly id: string | undefined; readonly emit: Emit } | undefined

  const sizeOf = (signal: Signal) => signal._tag === "Frame" ? String(signal.frame.data).length : 0
  const add = (signal: Signal, emit: Emit) => {
    signals++
    characters += sizeOf(signal)
    emit(signal)
  }
  const flushGap = () => {
    if (gap === undefined) return
    const { dropped, emit, id } = gap
    gap = undefined
    add({ _tag: "Frame", frame: { event: "gap", data: JSON.stringify({ dropped }), id } }, emit)
  }

  return {
    offer: (signal, emit) => {
      const isEvent = signal._tag === "Frame" && signal.frame.event !== "end" && signal.frame.event !== "resync"
      if (isEvent && (signals >= maxSignals || characters >= maxCharacters)) {
        gap = { dropped: (gap?.dropped ?? 0) + 1, id: signal.frame.id ?? gap?.id, emit }
        return
      }
      flushGap()
      add(signal, emit)
    },
    take: (signal) => {
      signals--
      characters -= sizeOf(signal)
      // The next event may never arrive.
      if (signals === 0) flushGap()
      return signal
    }
  }
}
