import { Array as Arr, Effect, Option, Order } from "effect"
import type { NotificationOutbox } from "effect-realtime"

/** A row of the storage, as the tests read and change it. */
export interface Row extends NotificationOutbox.StoredEntry {
  readonly claim: string | null
  readonly diedAt: number | null
}

/** Makes a storage of an outbox in memory, and the rows behind it. */
export const makeMemoryStorage = Effect.sync(() => {
  const rows = new Map<string, Row>()
  const select = (isSelected: (row: Row) => boolean) => Arr.filter(rows.values(), isSelected)
  const update = (selected: ReadonlyArray<Row>, change: (row: Row) => Partial<Row>) =>
    Arr.map(selected, (row) => {
      const changed = { ...row, ...change(row) }
      rows.set(row.id, changed)
      return changed
    })
  const isLive = ({ diedAt }: Row) => diedAt === null
  const dead = Effect.sync(() =>
    Arr.filterMap(
      rows.values(),
      ({ diedAt, ...row }) => diedAt === null ? Option.none() : Option.some({ ...row, diedAt })
    )
  )
  const byDeath = Order.mapInput(Order.array(Order.string), ({ diedAt, id }: { diedAt: number; id: string }) => [
    `${diedAt}`.padStart(16, "0"),
    id
  ])

  const storage: NotificationOutbox.Storage = {
    insert: (entry) => Effect.sync(() => rows.set(entry.id, { ...entry, claim: null, diedAt: null })),
    claim: ({ claim, latest, limit, now, until }) =>
      Effect.sync(() => {
        const due = select((row) => isLive(row) && (row.dueAt <= now || row.dueAt > latest))
        const byDueAt = Order.mapInput(Order.number, ({ dueAt }: Row) => dueAt)
        return update(
          Arr.take(Arr.sort(due, byDueAt), limit),
          ({ attempts }) => ({ claim, dueAt: until, attempts: attempts + 1 })
        )
      }),
    renew: (claim, ids, until) =>
      Effect.sync(() => update(select((row) => row.claim === claim && ids.includes(row.id)), () => ({ dueAt: until }))),
    release: (claim, now) =>
      Effect.sync(() =>
        update(
          select((row) => row.claim === claim),
          ({ attempts }) => ({ claim: null, dueAt: now, attempts: attempts - 1 })
        )
      ),
    settle: (claim, id, { _tag, ...settlement }) =>
      Effect.sync(() => {
        const claimed = select((row) => row.id === id && row.claim === claim)
        if (_tag === "Sent") { for (const { id } of claimed) rows.delete(id) }
        else update(claimed, () => ({ ...settlement, claim: null }))
      }),
    deadLetters: (after, limit) =>
      Effect.map(dead, (letters) =>
        Arr.take(
          Arr.filter(Arr.sort(letters, byDeath), (letter) => byDeath(letter, after) > 0),
          limit
        )),
    deadLetter: (id) => Effect.map(dead, Arr.findFirst((letter) => letter.id === id)),
    retry: (id, failures, dueAt) =>
      Effect.sync(() => {
        const letters = select((row) => row.id === id && !isLive(row))
        return update(letters, () => ({ diedAt: null, attempts: 0, failures, dueAt })).length > 0
      }),
    discard: (id) => Effect.sync(() => select((row) => row.id === id && !isLive(row)).some(() => rows.delete(id)))
  }
  return {
    storage,
    rows: Effect.sync(() => select(() => true)),
    change: (values: Partial<Row>) => Effect.sync(() => void update(select(() => true), () => values))
  }
})
