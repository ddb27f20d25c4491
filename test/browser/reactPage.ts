/** Script of a page with a React component that shows the events of a URL. */
import { useEvents } from "effect-realtime/react"
import { createElement, StrictMode, useInsertionEffect, useState, version } from "react"
import { createRoot } from "react-dom/client"
import { renderToString } from "react-dom/server"

import type { Counter } from "./topic.js"

interface Props {
  readonly url: string
  readonly factor: number
  readonly enabled?: boolean
}

/** The texts that the page has shown, in their order. */
const texts: Array<string> = []

const Total = ({ enabled, factor, url }: Props) => {
  const [total, setTotal] = useState(0)
  const { error, status } = useEvents<typeof Counter>(url, {
    counter: ({ n }) => setTotal((total) => total + factor * n)
  }, { enabled })
  const text = `${status} ${error?.reason ?? "-"} ${total}`
  useInsertionEffect(() => {
    texts.push(text)
  }, [text])
  return createElement("output", null, text)
}

const root = createRoot(document.body.appendChild(document.createElement("main")))

export const reactApi = {
  render: (props: Props) => root.render(createElement(StrictMode, null, createElement(Total, props))),
  unmount: () => root.unmount(),
  renderToString: (props: Props) => renderToString(createElement(Total, props)),
  version,
  texts,
  text: () => document.querySelector("output")?.textContent
}

declare global {
  var reactApi: ReactApi
}

type ReactApi = typeof reactApi
