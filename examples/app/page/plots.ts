/** A small plot of the last minute for each metric of the server. */
import type { Sample } from "../topics.js"
import type { words } from "./words.js"

interface Plot {
  readonly label: "connections" | "deliveries" | "queued" | "dropped" | "resumes" | "pushes"
  /** The height of the line. */
  readonly height: (now: Sample, before: Sample) => number
  readonly value: (now: Sample, before: Sample) => number
  readonly note: (now: Sample, word: (typeof words)["en"]) => string
}

const pushesOf = ({ pushes }: Sample): number => Object.values(pushes).reduce((sum, count) => sum + count, 0)

const plots: ReadonlyArray<Plot> = [
  { label: "connections", height: (now) => now.connections, value: (now) => now.connections, note: () => "" },
  {
    label: "deliveries",
    height: (now, before) => now.delivered - before.delivered,
    value: (now, before) => now.delivered - before.delivered,
    note: () => ""
  },
  { label: "queued", height: (now) => now.queued, value: (now) => now.queued, note: () => "" },
  {
    label: "dropped",
    height: (now, before) => now.dropped - before.dropped,
    value: (now) => now.dropped,
    note: (now, word) => `${word.cutOff}: ${now.cutOff}`
  },
  {
    label: "resumes",
    height: (now, before) => now.resumes - before.resumes,
    value: (now) => now.resumes,
    note: (now, word) => `${word.resyncs}: ${now.resyncs}`
  },
  {
    label: "pushes",
    height: (now, before) => pushesOf(now) - pushesOf(before),
    value: pushesOf,
    note: ({ pushes }) => Object.entries(pushes).map(([outcome, count]) => `${outcome}: ${count}`).join(", ")
  }
]

const seconds = 60
const samples: Array<Sample> = []

const pathOf = (heights: ReadonlyArray<number>): string => {
  const top = Math.max(1, ...heights)
  return heights.map((height, i) => {
    const x = (seconds - heights.length + i) * 100 / (seconds - 1)
    return `${i === 0 ? "M" : "L"}${x.toFixed(1)} ${(30 - 28 * height / top).toFixed(1)}`
  }).join("")
}

export const add = (sample: Sample): void => {
  samples.push(sample)
  if (samples.length > seconds + 1) samples.shift()
}

export const draw = (into: HTMLElement, word: (typeof words)["en"]): void => {
  const number = new Intl.NumberFormat(document.documentElement.lang)
  const [now, before] = [samples.at(-1), samples.at(-2)]
  into.replaceChildren(...plots.map(({ height, label, note, value }) => {
    const heights = samples.slice(1).map((sample, i) => height(sample, samples[i] ?? sample))
    const line = pathOf(heights)
    const figure = document.createElement("figure")
    figure.dataset["plot"] = label
    figure.innerHTML = `<figcaption></figcaption><output></output><small></small>
      <svg viewBox="0 0 100 32" preserveAspectRatio="none" aria-hidden="true">
        <path class="area" d="${
      line === "" ? "" : `${line}L100 32L${((seconds - heights.length) * 100 / (seconds - 1)).toFixed(1)} 32Z`
    }"/>
        <path class="line" d="${line}"/>
      </svg>`
    const [caption, output, small] = ["figcaption", "output", "small"].map((name) => figure.querySelector(name))
    if (caption) caption.textContent = word[label]
    if (output) output.textContent = number.format(now === undefined ? 0 : value(now, before ?? now))
    if (small) small.textContent = now === undefined ? "" : note(now, word)
    return figure
  }))
}
