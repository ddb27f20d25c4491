import * as Effect from "effect/Effect"

import { later } from "../../internal/nextTurn.js"

/** The entries of a page at most, and the bytes of their data. A log reads one entry at least. */
export interface Size {
  readonly entries: number
  readonly bytes: number
}

/** The first page of a replay is small: no client waits long for its first event. */
export const firstPage: Size = { entries: 16, bytes: 4 * 1024 }
export const page: Size = { entries: 256, bytes: 64 * 1024 }

interface Turn {
  readonly size: Size
  readonly begin: () => void
  hasBegun: boolean
}

/**
 * The turns in which replays read their pages, first come first served, so that all of them advance alike:
 *
 * - `maxReads` pages are read at the same time.
 * - 64 kB are read in one turn of the event loop. Requests, publishes and heartbeats do not wait for more.
 * - First pages precede the others, which have half of the bytes nevertheless.
 */
export class PageTurns {
  private readonly firsts = new Set<Turn>()
  private readonly others = new Set<Turn>()
  private reads = 0
  /** Bytes that were read, or may be read, in this turn of the event loop. */
  private spent = 0
  /** Bytes of first pages that were begun since the last other page. */
  private ahead = 0
  private isScheduled = false

  /**
   * Runs an effect that reads a page of at most this size in its turn.
   *
   * @param bytesOf - returns the bytes that were read
   */
  withTurn<A, E, R>(
    size: Size,
    read: Effect.Effect<A, E, R>,
    bytesOf: (answer: A) => number = () => 0
  ): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      let turn: Turn | undefined
      let bytes = 0
      return Effect.async<void>((resume) => {
        turn = { size, begin: () => resume(Effect.void), hasBegun: false }
        this.waiting(size).add(turn)
        this.beginNext()
      }).pipe(
        Effect.zipRight(read),
        Effect.tap((answer) =>
          Effect.sync(() => {
            bytes = bytesOf(answer)
          })
        ),
        Effect.ensuring(Effect.sync(() => {
          if (turn !== undefined) this.end(turn, bytes)
        }))
      )
    })
  }

  private waiting(size: Size): Set<Turn> {
    return size === firstPage ? this.firsts : this.others
  }

  private end(turn: Turn, bytes: number): void {
    if (turn.hasBegun) {
      this.reads--
      this.spent = Math.max(this.spent - turn.size.bytes + bytes, 0)
    } else this.waiting(turn.size).delete(turn)
    this.beginNext()
  }

  private beginNext(): void {
    while (this.reads < maxReads && this.firsts.size + this.others.size > 0) {
      if (this.spent >= page.bytes) return this.schedule()
      const some = this.firsts.size > 0 && (this.ahead < page.bytes || this.others.size === 0)
        ? this.firsts
        : this.others
      for (const turn of some) {
        some.delete(turn)
        turn.hasBegun = true
        this.reads++
        this.spent += turn.size.bytes
        this.ahead = some === this.firsts ? this.ahead + turn.size.bytes : 0
        turn.begin()
        break
      }
    }
  }

  private schedule(): void {
    if (this.isScheduled) return
    this.isScheduled = true
    later(() => {
      this.isScheduled = false
      this.spent = 0
      this.beginNext()
    })
  }
}

const maxReads = 8
