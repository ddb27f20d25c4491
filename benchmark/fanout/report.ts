import type { Cell } from "./cells.js"
import { quantile } from "./cells.js"
import { isDisturbed } from "./load.js"

/** A column of a table: the median of a value, or of its ratio to raw in the same repetition. */
interface Column {
  readonly title: string
  readonly value: (cell: Cell) => number | undefined
  readonly digits: number
  readonly isRatio?: boolean
}

const value = (key: string) => (cell: Cell) => cell.values[key]
const column = (title: string, key: string, digits = 1): Column => ({ title, value: value(key), digits })
const ratio = (title: string, key: string): Column => ({ title, value: value(key), digits: 2, isRatio: true })
const load: ReadonlyArray<Column> = [
  { title: "generator busy", value: (cell) => cell.load.generator, digits: 2 },
  { title: "other work", value: (cell) => cell.load.other, digits: 2 }
]

const columns: Readonly<Record<string, ReadonlyArray<Column>>> = {
  delivery: [
    ratio("deliveries/s × raw", "perSecond"),
    ratio("CPU per delivery × raw", "cpuMicros"),
    ratio("p99 × raw", "p99"),
    column("deliveries/s", "perSecond", 0),
    column("CPU µs per delivery", "cpuMicros", 2),
    column("last delivery p50 ms", "p50"),
    column("p99 ms", "p99"),
    ...load
  ]
}

const titles: Readonly<Record<string, string>> = {
  delivery: "Deliveries"
}

const unique = <A>(values: ReadonlyArray<A>): ReadonlyArray<A> => Array.from(new Set(values))

/** Returns the cells that nothing disturbed, or all of them if there are none. */
const quiet = (cells: ReadonlyArray<Cell>) => {
  const undisturbed = cells.filter((cell) => !isDisturbed(cell.load))
  return undisturbed.length === 0 ? cells : undisturbed
}

const valuesOf = ({ isRatio, value }: Column, cells: ReadonlyArray<Cell>, raw: ReadonlyArray<Cell>) => {
  if (!isRatio) return quiet(cells).map((cell) => value(cell) ?? Number.NaN)
  // Compares measurements of the same repetition: the load of the machine affects both.
  const pairs = cells.flatMap((cell) =>
    raw.filter(({ repetition }) => repetition === cell.repetition).map((other) => [cell, other] as const)
  )
  const undisturbed = pairs.filter((pair) => !pair.some(({ load }) => isDisturbed(load)))
  return (undisturbed.length === 0 ? pairs : undisturbed).map(([cell, other]) =>
    (value(cell) ?? Number.NaN) / (value(other) ?? Number.NaN)
  )
}

const format = (values: ReadonlyArray<number>, { digits, isRatio }: Column) => {
  if (!values.some(Number.isFinite)) return "-"
  const median = quantile(values, 0.5).toFixed(digits)
  return isRatio && values.length > 1
    ? `${median} (${Math.min(...values).toFixed(digits)}-${Math.max(...values).toFixed(digits)})`
    : median
}

const table = (columns: ReadonlyArray<Column>, cells: ReadonlyArray<Cell>): string => {
  const raw = cells.filter(({ server }) => server === "raw")
  const rows = unique(cells.map(({ server }) => server)).map((server) => {
    const own = cells.filter((cell) => cell.server === server)
    const disturbed = own.filter(({ load }) => isDisturbed(load)).length
    const mark = disturbed === 0
      ? ""
      : disturbed === own.length
      ? " \\*"
      : ` (${own.length - disturbed} of ${own.length})`
    return `| ${[server + mark, ...columns.map((column) => format(valuesOf(column, own, raw), column))].join(" | ")} |`
  })
  return [
    `| ${["server", ...columns.map(({ title }) => title)].join(" | ")} |`,
    `|---|${"---:|".repeat(columns.length)}`,
    ...rows
  ].join("\n")
}

/** Returns the tables of a part. */
export const tables = (part: string, cells: ReadonlyArray<Cell>): string => {
  const own = cells.filter((cell) => cell.part === part)
  const sections = unique(own.map(({ mode }) => mode)).flatMap((mode) => {
    const rows = own.filter((cell) => cell.mode === mode)
    return unique(rows.map(({ connections }) => connections)).map((connections) =>
      `### ${connections} connection${connections === 1 ? "" : "s"}, ${mode}\n\n${
        table(columns[part] ?? [], rows.filter((cell) => cell.connections === connections))
      }\n`
    )
  })
  return `## ${titles[part]}\n\n${sections.join("\n")}`
}
