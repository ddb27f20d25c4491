/** Plots as SVG: lines over logarithmic axes, and bars. */

interface Series {
  readonly name: string
  readonly points: ReadonlyArray<readonly [number, number]>
}

const [width, height, left, top, right, bottom] = [760, 380, 70, 40, 230, 50]
const colours = ["#888888", "#b8860b", "#c2410c", "#7c3aed", "#15803d", "#0891b2", "#be123c", "#1d4ed8"]
const colour = (i: number) => colours[i % colours.length]

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

/** Places a value on a logarithmic axis from the smallest to the largest one. */
const scale = (values: ReadonlyArray<number>, from: number, to: number) => {
  const low = Math.log(Math.min(...values))
  const range = Math.log(Math.max(...values)) - low || 1
  return (value: number) => from + (Math.log(value) - low) / range * (to - from)
}

/** 1, 2, 5, 10, 20 and so on, from the last one below the values to the first one above. */
const ticks = (values: ReadonlyArray<number>): ReadonlyArray<number> => {
  const all = Array.from({ length: 54 }, (_, i) => ([1, 2, 5][i % 3] ?? 1) * 10 ** (Math.floor(i / 3) - 6))
  const above = all.findIndex((tick) => tick > Math.min(...values))
  return all.slice(above - 1, all.findIndex((tick) => tick >= Math.max(...values)) + 1)
}

/** Draws a line for each series over logarithmic axes. */
export const lines = (title: string, xTitle: string, series: ReadonlyArray<Series>): string => {
  const points = series.flatMap(({ points }) => points)
  if (points.length === 0) return svg(height, title, [])
  const xs = Array.from(new Set(points.map(([x]) => x)))
  const yTicks = ticks(points.map(([, y]) => y))
  const x = scale(xs, left, width - right)
  const y = scale(yTicks, height - bottom, top)
  // The names stand beside the last points, in their order, with room for each.
  const labels = series.map(({ name, points }, i) => ({ name, i, at: y(points.at(-1)?.[1] ?? yTicks[0] ?? 1) }))
    .sort((a, b) => a.at - b.at)
  let free = top
  const placed = labels.map(({ at, i, name }) => {
    const place = Math.min(Math.max(at, free), height - bottom - 14 * (labels.length - 1) + (free - top))
    free = place + 14
    return `<g fill="${colour(i)}">${text(width - right + 8, place + 4, name)}</g>`
  })
  return svg(height, title, [
    ...yTicks.flatMap((
      tick
    ) => [line(left, y(tick), width - right, y(tick)), text(left - 6, y(tick) + 4, number(tick), "end")]),
    ...xs.map((size) => text(x(size), height - bottom + 18, number(size), "middle")),
    text((left + width - right) / 2, height - 12, xTitle, "middle"),
    ...series.map(({ points }, i) =>
      `<polyline fill="none" stroke="${colour(i)}" stroke-width="2" points="${
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
        `<rect x="${from}" y="${at}" width="${length(value).toFixed(1)}" height="18" fill="${colour(i)}"/>`,
        text(from + length(value) + 6, at + 14, number(value))
      ]
    })
  )
}
