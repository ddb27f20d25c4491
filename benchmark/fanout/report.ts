import type { Cell } from "./cells.js"
import { quantile } from "./cells.js"
import { isDisturbed, isLimited } from "./load.js"
import * as Plot from "./plot.js"

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

/** A part of the report. A plot shows one mode: lines over the connections, or bars if there is one size. */
interface Part {
  readonly title: string
  readonly columns: Readonly<Record<string, ReadonlyArray<Column>>>
  readonly plots: ReadonlyArray<{ readonly file: string; readonly mode: string; readonly column: Column }>
}

const cpu = column("CPU µs per delivery", "cpuMicros", 2)
const perSecond = column("deliveries/s", "perSecond", 0)
const p99 = column("last delivery p99 ms", "p99")
const deliveries = [
  ratio("deliveries/s × raw", "perSecond"),
  ratio("CPU per delivery × raw", "cpuMicros"),
  ratio("p99 × raw", "p99"),
  perSecond,
  cpu,
  column("last delivery p50 ms", "p50"),
  p99,
  ...load
]
const heap = column("live heap KB", "heap")
const openCpu = column("CPU µs to open one", "cpuMicros", 0)
const events = column("events/s", "perSecond", 0)
const megabytes = column("memory taken MB", "megabytes", 0)
const crowd = [ratio("p99 × raw", "p99"), column("last delivery p50 ms", "p50"), p99, cpu, megabytes, ...load]

const samples = [
  column("resident MB", "megabytes"),
  column("delay of the event loop, p99 ms", "delay"),
  column("descriptors", "descriptors", 0)
]
const nanos = column("nanoseconds of an operation", "nanos", 0)

const idle = "idle, a heartbeat each second"
const stream = "as many events as possible"

const parts: Readonly<Record<string, Part>> = {
  delivery: {
    title: "Deliveries",
    columns: { "one event on the way": deliveries, saturated: deliveries, paced: deliveries },
    plots: [
      { file: "cpu-per-delivery.svg", mode: "one event on the way", column: cpu },
      { file: "saturated.svg", mode: "saturated", column: perSecond },
      { file: "latency.svg", mode: "paced", column: p99 }
    ]
  },
  connections: {
    title: "Connections",
    columns: {
      opened: [ratio("CPU × raw", "cpuMicros"), openCpu, column("accepted/s", "perSecond", 0), ...load],
      [idle]: [
        heap,
        column("RSS KB", "rss"),
        column("CPU µs a second", "cpuMicros", 2),
        ratio("CPU × raw", "cpuMicros"),
        ...load
      ]
    },
    plots: [
      { file: "opening.svg", mode: "opened", column: openCpu },
      { file: "idle-memory.svg", mode: idle, column: column("RSS KB of a connection", "rss") }
    ]
  },
  stream: {
    title: "One stream",
    columns: {
      [stream]: [ratio("events/s × raw", "perSecond"), events, column("CPU µs per event", "cpuMicros", 2), ...load]
    },
    plots: [{ file: "one-stream.svg", mode: stream, column: events }]
  },
  crowd: {
    title: "A crowd of which a tenth reads nothing",
    columns: {
      "all read": crowd,
      "10 % stalled": crowd
    },
    plots: [
      { file: "crowd-latency.svg", mode: "10 % stalled", column: p99 },
      { file: "crowd-memory.svg", mode: "10 % stalled", column: megabytes }
    ]
  },
  growth: { title: "Growth", columns: {}, plots: [] },
  endurance: { title: "Connections that stall and that are replaced", columns: {}, plots: [] }
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
    const limited = quiet(own).some(({ load }) => isLimited(load))
    const mark = disturbed === 0
      ? ""
      : disturbed === own.length
      ? " \\*"
      : ` (${own.length - disturbed} of ${own.length})`
    return `| ${
      [server + mark + (limited ? " †" : ""), ...columns.map((column) => format(valuesOf(column, own, raw), column))]
        .join(" | ")
    } |`
  })
  return [
    `| ${["server", ...columns.map(({ title }) => title)].join(" | ")} |`,
    `|---|${"---:|".repeat(columns.length)}`,
    ...rows
  ].join("\n")
}

const countOf = (connections: number) => `${connections} connection${connections === 1 ? "" : "s"}`

const medianOf = (column: Column, cells: ReadonlyArray<Cell>) => quantile(valuesOf(column, cells, []), 0.5)

/** Returns a line of medians over the connections for each server, or for each mode. */
const seriesOf = (cells: ReadonlyArray<Cell>, key: "server" | "mode", column: Column) =>
  unique(cells.map((cell) => cell[key])).map((name) => {
    const own = cells.filter((cell) => cell[key] === name)
    return {
      name,
      points: unique(own.map(({ connections }) => connections)).map((x) =>
        [x, medianOf(column, own.filter(({ connections }) => connections === x))] as const
      ).filter(([, y]) => Number.isFinite(y))
    }
  })

const plot = (cells: ReadonlyArray<Cell>, mode: string, column: Column): string => {
  const series = seriesOf(cells, "server", column)
  const sizes = unique(cells.map(({ connections }) => connections))
  return sizes.length > 1
    ? Plot.lines(`${mode}: ${column.title}`, "connections", series)
    : Plot.bars(`${mode}, ${countOf(sizes[0] ?? 0)}: ${column.title}`, series)
}

/** The slope of the line through the points by least squares. */
const slope = (points: ReadonlyArray<readonly [number, number]>): number => {
  const mean = (values: ReadonlyArray<number>) => values.reduce((a, b) => a + b, 0) / values.length
  const x = mean(points.map(([x]) => x))
  const y = mean(points.map(([, y]) => y))
  return mean(points.map(([px, py]) => (px - x) * (py - y))) / mean(points.map(([px]) => (px - x) ** 2))
}

const growth = (cells: ReadonlyArray<Cell>): string => {
  return unique(cells.map(({ mode }) => mode)).map((mode) => {
    const rows = cells.filter((cell) => cell.mode === mode)
    const sizes = unique(rows.map(({ connections }) => connections))
    return [
      `### ${mode}`,
      "",
      `| ns | ${sizes.join(" | ")} | slope, ns for 1,000 more | last / first |`,
      `|---|${"---:|".repeat(sizes.length + 2)}`,
      ...unique(rows.map(({ server }) => server)).map((server) => {
        const points = sizes.map((size) =>
          [size, medianOf(nanos, rows.filter((cell) => cell.server === server && cell.connections === size))] as const
        )
        const times = points.map(([, y]) => y)
        return `| ${
          [
            server,
            ...times.map((y) => y.toFixed(0)),
            (slope(points) * 1000).toFixed(1),
            ((times.at(-1) ?? Number.NaN) / (times[0] ?? Number.NaN)).toFixed(2)
          ].join(" | ")
        } |`
      }),
      ""
    ].join("\n")
  }).join("\n")
}

/** Samples over the seconds. The first minute, in which the server takes the memory that it needs, is in no slope. */
const endurance = (cells: ReadonlyArray<Cell>): string =>
  [
    `### ${cells[0]?.mode}, 10 % stalled, 10 % replaced each minute`,
    "",
    "| | second minute | last minute | slope, for each minute |",
    "|---|---:|---:|---:|",
    ...unique(cells.map(({ server }) => server)).flatMap((server) => {
      const own = cells.filter((cell) => cell.server === server && cell.connections > 60)
      const end = Math.max(...own.map(({ connections }) => connections))
      return samples.map((column) => {
        const median = (from: number) =>
          medianOf(column, own.filter(({ connections }) => connections > from && connections <= from + 60)).toFixed(1)
        const points = own.map((cell) => [cell.connections, column.value(cell) ?? Number.NaN] as const)
        return `| ${server}, ${column.title} | ${median(60)} | ${median(end - 60)} | ${
          (slope(points) * 60).toFixed(2)
        } |`
      })
    }),
    ""
  ].join("\n")

/** Returns the tables and the plots of a part. */
export const make = (
  name: string,
  cells: ReadonlyArray<Cell>
): { readonly markdown: string; readonly plots: Readonly<Record<string, string>> } => {
  const part = parts[name]
  if (part === undefined || cells.length === 0) return { markdown: "", plots: {} }
  const sections = unique(cells.map(({ mode }) => mode)).flatMap((mode) => {
    const rows = cells.filter((cell) => cell.mode === mode)
    return unique(rows.map(({ connections }) => connections)).map((connections) =>
      `### ${countOf(connections)}, ${mode}\n\n${
        table(part.columns[mode] ?? [], rows.filter((cell) => cell.connections === connections))
      }\n`
    )
  })
  const plots = part.plots.map(({ column, file, mode }) =>
    [file, plot(cells.filter((cell) => cell.mode === mode), mode, column)] as const
  )
  switch (name) {
    case "growth": {
      const series = seriesOf(cells.filter(({ server }) => server === "effect-realtime"), "mode", nanos)
      return {
        markdown: `## ${part.title}\n\n${growth(cells)}`,
        plots: { "growth.svg": Plot.lines(nanos.title, "connections, channels, patterns or events", series) }
      }
    }
    case "endurance":
      return {
        markdown: `## ${part.title}\n\n${endurance(cells)}`,
        plots: Object.fromEntries(samples.map((column) => [
          `endurance-${column.title.split(" ")[0]}.svg`,
          Plot.lines(column.title, "seconds", seriesOf(cells, "server", column), "linear")
        ]))
      }
    default:
      return { markdown: `## ${part.title}\n\n${sections.join("\n")}`, plots: Object.fromEntries(plots) }
  }
}
