/**
 * What a service worker does with push messages. Without Effect and without imports, for it starts anew for each message.
 *
 * @since 0.1.0
 */
import type { Notification } from "../WebPushPayload.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The route that takes `{ oldEndpoint, subscription }` by POST when the browser has replaced a subscription. Cookies go with it.
   * Left out, the server learns of it when the page next calls `PushClient.subscribe`.
   */
  readonly resubscribe?: string | undefined
  /**
   * The server's VAPID public key in base64url, for browsers that do not tell which subscription they dropped (Firefox).
   */
  readonly applicationServerKey?: string | undefined
  /**
   * Whether a page that is visible is told instead of a notification being shown: `PushClient.messages` gets it, and answers. If no page
   * does within a second, the notification is shown after all. Browsers allow
   * that only so far: Chrome shows a notification of its own now and then, and Safari withdraws the permission after three
   * messages without a notification, visible page or not. Off by default.
   */
  readonly tellPages?: boolean | undefined
  /**
   * Makes a notification of a payload that is none by itself, such as one of `WebPushPayload.fromSchema`. What it leaves undefined
   * is shown under the name of the host, since a push message without a notification counts against the site.
   */
  readonly toNotification?: ((payload: unknown) => Notification | undefined) | undefined
}

/**
 * Handles `push`, `notificationclick` and `pushsubscriptionchange`. To be called when the script of a service worker starts:
 *
 * - shows what `WebPushPayload.make` and `WebPushPayload.declarative` describe, and sets the badge of the app,
 * - on a click, focuses the window that shows `data.url` (or `navigate`, or that of the action), or opens one,
 * - subscribes anew with the same key (or `applicationServerKey`) when the browser has dropped a subscription, and tells the server.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ServiceWorker } from "effect-realtime/browser"
 *
 * const main = () => ServiceWorker.install({ resubscribe: "/push/resubscribe", tellPages: true })
 * ```
 */
export const install = (options: Options = {}): void => {
  self.addEventListener("push", (event) => event.waitUntil(receive(event.data, options)))
  self.addEventListener("notificationclick", (event) => {
    event.notification.close()
    event.waitUntil(show(destination(event.notification.data, event.action)))
  })
  self.addEventListener("pushsubscriptionchange", (event) => event.waitUntil(resubscribe(event, options)))
}

// The library of types that has these cannot be loaded beside the one of pages.
interface ExtendableEvent {
  readonly waitUntil: (work: Promise<unknown>) => void
}

interface PushData {
  readonly json: () => unknown
  readonly text: () => string
}

interface SubscriptionChange extends ExtendableEvent {
  readonly oldSubscription?: PushSubscription | null
  readonly newSubscription?: PushSubscription | null
}

interface WindowClient {
  readonly url: string
  readonly visibilityState: DocumentVisibilityState
  readonly focus: () => Promise<unknown>
  readonly postMessage: (message: unknown, transfer: Array<Transferable>) => void
}

interface Worker {
  readonly location: Location
  readonly navigator: { readonly setAppBadge?: (count?: number) => Promise<void> }
  readonly registration: {
    readonly scope: string
    readonly pushManager: PushManager
    readonly showNotification: (title: string, options: Omit<Notification, "title" | "navigate">) => Promise<void>
  }
  readonly clients: {
    readonly matchAll: (
      options: { readonly type: "window"; readonly includeUncontrolled: boolean }
    ) => Promise<ReadonlyArray<WindowClient>>
    readonly openWindow: (url: string) => Promise<unknown>
  }
  addEventListener(type: "push", listener: (event: ExtendableEvent & { readonly data: PushData | null }) => void): void
  addEventListener(
    type: "notificationclick",
    listener: (
      event: ExtendableEvent & {
        readonly action: string
        readonly notification: { readonly data: unknown; readonly close: () => void }
      }
    ) => void
  ): void
  addEventListener(type: "pushsubscriptionchange", listener: (event: SubscriptionChange) => void): void
}

declare const self: Worker

const receive = async (data: PushData | null, { tellPages, toNotification }: Options): Promise<unknown> => {
  const payload = parse(data)
  const { appBadge, notification } = describe(payload, toNotification)
  if (typeof appBadge === "number") await self.navigator.setAppBadge?.(appBadge).catch(() => {})
  if (tellPages === true) {
    const visible = (await windows()).filter((window) => window.visibilityState === "visible")
    if ((await Promise.all(visible.map((window) => tell(window, payload)))).includes(true)) return
  }
  const { navigate: _, title, ...rest } = notification
  try {
    await self.registration.showNotification(title, { ...rest, data: withDestinations(notification) })
  } catch {
    // A browser refuses what it cannot show, such as an icon that is no address. The title alone is better than nothing.
    await self.registration.showNotification(title, { data: withDestinations(notification) })
  }
}

/** Whether the window took it: a page that is visible need not be one that listens. */
const tell = (window: WindowClient, payload: unknown) =>
  new Promise<boolean>((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => resolve(true)
    setTimeout(() => resolve(false), 1_000)
    window.postMessage({ type: "effect-realtime/push", payload }, [port2])
  })

const parse = (data: PushData | null): unknown => {
  try {
    return data?.json()
  } catch {
    return data?.text()
  }
}

/** What cannot be made is reported, and does without: a push message must end in a notification. */
const attempt = <A>(evaluate: () => A): A | undefined => {
  try {
    return evaluate()
  } catch (error) {
    reportError(error)
    return undefined
  }
}

const describe = (
  payload: unknown,
  toNotification: Options["toNotification"]
): { readonly notification: Notification; readonly appBadge?: unknown } => {
  const given = attempt(() => toNotification?.(payload))
  if (given !== undefined) return { notification: given }
  if (isRecord(payload) && payload["web_push"] === 8030 && isNotification(payload["notification"])) {
    return { notification: payload["notification"], appBadge: payload["app_badge"] }
  }
  return { notification: isNotification(payload) ? payload : { title: self.location.host } }
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null

const isNotification = (value: unknown): value is Notification => isRecord(value) && typeof value["title"] === "string"

// A notification that is shown keeps its data alone, and not where it and its actions lead.
const withDestinations = ({ actions, data, navigate }: Notification): unknown => {
  const urlByAction = Object.fromEntries(
    (actions ?? []).flatMap(({ action, navigate }) => navigate === undefined ? [] : [[action, navigate]])
  )
  const destinations = {
    ...(navigate === undefined ? {} : { url: navigate }),
    ...(Object.keys(urlByAction).length === 0 ? {} : { urlByAction })
  }
  return Object.keys(destinations).length > 0 && (isRecord(data) || data === undefined || data === null)
    ? { ...destinations, ...data }
    : data
}

const destination = (data: unknown, action: string): string => {
  const { url: own, urlByAction } = isRecord(data) ? data : {}
  const url = isRecord(urlByAction) && Object.hasOwn(urlByAction, action) ? urlByAction[action] : own
  const { location, registration } = self
  const valid = typeof url === "string" ? attempt(() => new URL(url, location.href).href) : undefined
  return valid ?? registration.scope
}

const windows = () => self.clients.matchAll({ type: "window", includeUncontrolled: true })

const show = async (url: string): Promise<unknown> => {
  const open = (await windows()).find((window) => window.url === url)
  return open === undefined ? self.clients.openWindow(url) : open.focus()
}

const resubscribe = async (change: SubscriptionChange, options: Options): Promise<unknown> => {
  const old = change.oldSubscription
  const applicationServerKey = old?.options.applicationServerKey ?? options.applicationServerKey
  const subscription = change.newSubscription ?? (
    applicationServerKey
      ? await self.registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey })
      : await self.registration.pushManager.getSubscription()
  )
  if (options.resubscribe === undefined || subscription === null) return
  return fetch(options.resubscribe, {
    method: "POST",
    headers: { "content-type": "application/json" },
    credentials: "include",
    body: JSON.stringify({ oldEndpoint: old?.endpoint, subscription })
  })
}
