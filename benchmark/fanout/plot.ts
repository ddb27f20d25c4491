/** Plots as SVG: lines and bars. */

type Axes = "logarithmic" | "linear"

interface Series {
  readonly name: string
  readonly points: ReadonlyArray<readonly [number, number]>
}

const [width, height, left, top, right, bottom] = [900, 380, 70, 40, 370, 50]
const colours = ["#888888", "#b8860b", "#c2410c", "#7c3aed", "#15803d", "#0891b2", "#be123c", "#1d4ed8"]
/** A server has the same colour in every plot. */
const servers = ["raw", "raw-socket", "better-sse", "effect", "nchan", "go", "baseline", "effect-realtime"]
const colour = (name: string, i: number) => {
  const known = servers.indexOf(name.split(",")[0] ?? "")
  return colours[(known < 0 ? i : known) % colours.length]
}

const escape = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
const text = (x: number, y: number, content: string, anchor = "start") =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}">${escape(content)}</text>`
const line = (x1: number, y1: number, x2: number, y2: number) =>
  `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" stroke="#dddddd"/>`
const number = (n: number) => n >= 100 ? Math.round(n).toLocaleString("en") : String(Number(n.toPrecision(3)))

const svg = (height: number, title: string, content: ReadonlyArray<string>) =>
  [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    text(left, 22, title),
    ...content,
    "</svg>\n"
  ].join("\n")

/** Places a value on an axis from the smallest to the largest one. */
const scale = (values: ReadonlyArray<number>, axes: Axes, from: number, to: number) => {
  const transform = axes === "linear" ? (value: number) => value : Math.log
  const low = transform(Math.min(...values))
  const range = transform(Math.max(...values)) - low || 1
  return (value: number) => from + (transform(value) - low) / range * (to - from)
}

/** At most six even steps from 0 to the first one above the values. */
const steps = (values: ReadonlyArray<number>): ReadonlyArray<number> => {
  const most = Math.max(...values, 1e-6)
  const step = [1, 2, 5, 10].map((n) => n * 10 ** Math.floor(Math.log10(most / 5))).find((n) => n * 5 >= most) ?? most
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, i) => i * step)
}

/** 1, 2, 5, 10, 20 and so on, from the last one below the values to the first one above. */
const ticks = (values: ReadonlyArray<number>): ReadonlyArray<number> => {
  const all = Array.from({ length: 54 }, (_, i) => ([1, 2, 5][i % 3] ?? 1) * 10 ** (Math.floor(i / 3) - 6))
  const above = all.findIndex((tick) => tick > Math.min(...values))
  return all.slice(above - 1, all.findIndex((tick) => tick >= Math.max(...values)) + 1)
}

/** Draws a line for each series. */
export const lines = (
  title: string,
  xTitle: string,
  series: ReadonlyArray<Series>,
  axes: Axes = "logarithmic"
): string => {
  const points = series.flatMap(({ points }) => points)
  if (points.length === 0) return svg(height, title, [])
  const [allX, allY] = [points.map(([x]) => x), points.map(([, y]) => y)]
  const xTicks = axes === "linear" ? steps(allX) : Array.from(new Set(allX))
  const yTicks = axes === "linear" ? steps(allY) : ticks(allY)
  const x = scale(xTicks, axes, left, width - right)
  const y = scale(yTicks, axes, height - bottom, top)
  // The names stand beside the last points, in their order, with room for each.
  const labels = series.map(({ name, points }, i) => ({ name, i, at: y(points.at(-1)?.[1] ?? yTicks[0] ?? 1) }))
    .sort((a, b) => a.at - b.at)
  let free = top
  const placed = labels.map(({ at, i, name }) => {
    const place = Math.min(Math.max(at, free), height - bottom - 14 * (labels.length - 1) + (free - top))
    free = place + 14
    return `<g fill="${colour(name, i)}">${text(width - right + 8, place + 4, name)}</g>`
  })
  return svg(height, title, [
    ...yTicks.flatMap((
      tick
    ) => [line(left, y(tick), width - right, y(tick)), text(left - 6, y(tick) + 4, number(tick), "end")]),
    ...xTicks.map((size) => text(x(size), height - bottom + 18, number(size), "middle")),
    text((left + width - right) / 2, height - 12, xTitle, "middle"),
    ...series.map(({ name, points }, i) =>
      `<polyline fill="none" stroke="${colour(name, i)}" stroke-width="2" points="${
        points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ")
      }"/>`
    ),
    ...placed
  ])
}

/** Draws a bar for the value of each series. */
export const bars = (title: string, series: ReadonlyArray<Series>): string => {
  const values = series.map(({ points }) => Math.max(0, points[0]?.[1] ?? 0))
  const from = 190
  const length = (value: number) => value / Math.max(...values, 1e-9) * (width - from - 90)
  return svg(
    top + series.length * 26 + 10,
    title,
    series.flatMap(({ name }, i) => {
      const at = top + i * 26
      const value = values[i] ?? 0
      return [
        text(from - 8, at + 14, name, "end"),
        `<rect x="${from}" y="${at}" width="${length(value).toFixed(1)}" height="18" fill="${colour(name, i)}"/>`,
        text(from + length(value) + 6, at + 14, number(value))
      ]
    })
  )
}
