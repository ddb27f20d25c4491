/**
 * The reaction of a service worker to push messages. Without Effect and without imports, for it starts anew for each
 * message.
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
   * The route that takes `{ oldEndpoint, subscription }` by POST when the browser has replaced a subscription, and
   * `subscription: null` when the permission is gone. Cookies go with it. A request that fails (offline, 5xx, 401,
   * 408, 425, 429) is repeated at the next event of the worker, and by Background Sync where there is one. After any
   * other 4xx this subscription is not sent again. Left out, the server learns of it when the page next calls
   * `PushClient.register`.
   */
  readonly resubscribe?: string | undefined
  /**
   * The server's VAPID public key in base64url, for browsers that do not say which subscription they dropped (Firefox).
   */
  readonly applicationServerKey?: string | undefined
  /**
   * Sends the payload to the visible pages instead of showing a notification: `PushClient.messages` emits it, and
   * answers. If no page answers within a second, the notification is shown after all. Browsers allow that only so
   * far: Chrome shows a notification of its own now and then, and Safari withdraws the permission after three
   * messages without a notification, visible page or not. Default `false`.
   */
  readonly tellPages?: boolean | undefined
  /**
   * Makes a notification of a payload that is none by itself, such as one of `WebPushPayload.fromSchema`. A payload
   * that it leaves undefined is shown as if there were no `toNotification`, since a push message without a
   * notification counts against the site.
   */
  readonly toNotification?: ((payload: unknown) => Notification | undefined) | undefined
  /**
   * The open window that a click focuses: one that shows exactly the URL, one with the same path (it is taken to the
   * other query or hash), or any of the same origin (it is taken to the URL). A new one is opened if there is no such
   * window, if it cannot be focused, or if it cannot be taken to the URL, as a window that another worker controls,
   * or none. Default `path`.
   */
  readonly match?: "exact" | "path" | "origin" | undefined
}

/**
 * Handles `push`, `notificationclick` and `pushsubscriptionchange`. To be called when the script of a service worker
 * starts:
 *
 * - shows the notification of `WebPushPayload.make` or `WebPushPayload.declarative`, then sets the badge of the app.
 *   Text is shown under the name of the host, as is an object without a title,
 * - on a click, focuses the window of `data.url` (or `navigate`, or that of the action), or opens one. The action
 *   `dismiss` opens nothing,
 * - subscribes anew with the same key (or `applicationServerKey`) when the browser has dropped a subscription, and
 *   reports it to the server.
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
  // Beside the purpose of the event.
  const alsoReport = () => optional(() => report(options), 20_000)
  self.addEventListener("push", (event) => event.waitUntil(receive(event.data, options).finally(alsoReport)))
  self.addEventListener("notificationclick", (event) => {
    attempt(() => event.notification.close())
    const url = destination(event.notification.data, event.action)
    event.waitUntil((url === undefined ? Promise.resolve() : show(url, options.match)).finally(alsoReport))
  })
  self.addEventListener("pushsubscriptionchange", (event) => event.waitUntil(change(event, options)))
  self.addEventListener("activate", (event) => event.waitUntil(alsoReport()))
  // A rejection is what makes the browser fire it again.
  self.addEventListener("sync", (event) => event.waitUntil(report(options)))
}

// The library of types that has these cannot be loaded beside the one of pages.
interface ExtendableEvent {
  readonly waitUntil: (work: Promise<unknown>) => void
}

interface PushData {
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
  readonly navigate: (url: string) => Promise<unknown>
  readonly postMessage: (message: unknown, transfer: Array<Transferable>) => void
}

interface Worker {
  readonly location: Location
  readonly navigator: { readonly setAppBadge?: (count?: number) => Promise<void> }
  readonly registration: {
    readonly scope: string
    readonly pushManager: PushManager
    readonly sync?: { readonly register: (tag: string) => Promise<void> }
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
  addEventListener(type: "activate" | "sync", listener: (event: ExtendableEvent) => void): void
  addEventListener(type: "pushsubscriptionchange", listener: (event: SubscriptionChange) => void): void
}

declare const self: Worker

/**
 * Runs a step that the notification does not depend on: for a second, unless it may take longer. Its failure is only
 * reported.
 */
const optional = <A>(step: () => A | PromiseLike<A>, millis = 1_000): Promise<A | undefined> =>
  Promise.race([
    new Promise<A>((resolve) => resolve(step())),
    new Promise<undefined>((resolve) => setTimeout(resolve, millis))
  ]).catch((error) => {
    reportError(error)
    return undefined
  })

const attempt = <A>(evaluate: () => A): A | undefined => {
  try {
    return evaluate()
  } catch (error) {
    reportError(error)
    return undefined
  }
}

const receive = async (data: PushData | null, { tellPages, toNotification }: Options): Promise<unknown> => {
  const text = attempt(() => data?.text()) ?? ""
  const payload = parse(text)
  if (tellPages !== true || !(await isTaken(payload))) await notify(describe(payload, text, toNotification))
  const badge = isDeclarative(payload) ? payload["app_badge"] : undefined
  return typeof badge === "number" ? optional(() => self.navigator.setAppBadge?.(badge)) : undefined
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

const isTaken = async (payload: unknown): Promise<boolean> => {
  const visible = (await optional(windows) ?? []).filter((window) => window.visibilityState === "visible")
  return (await Promise.all(visible.map((window) => optional(() => tell(window, payload))))).includes(true)
}

/** Resolves when the window answers: a page that is visible need not be one that listens. */
const tell = (window: WindowClient, payload: unknown) =>
  new Promise<boolean>((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => resolve(true)
    window.postMessage({ type: "effect-realtime/push", payload }, [port2])
  })

const notify = async (notification: Notification): Promise<void> => {
  const { body = "", navigate: _, title, ...rest } = notification
  const data = attempt(() => withDestinations(notification))
  // A browser refuses what it cannot show, such as an icon that is no address. The text alone is better than nothing.
  for (const options of [{ ...rest, body, data }, { body, data }, { body }]) {
    try {
      return await self.registration.showNotification(title, options)
    } catch (error) {
      reportError(error)
    }
  }
}

const describe = (payload: unknown, text: string, toNotification: Options["toNotification"]): Notification => {
  const made: unknown = attempt(() => toNotification?.(payload))
  if (isRecord(made)) return titled(made)
  if (!isRecord(payload)) return titled({ body: typeof payload === "string" ? payload : text })
  const inner = isDeclarative(payload) || !isNotification(payload) ? payload["notification"] : undefined
  return titled(isRecord(inner) ? inner : payload)
}

const titled = (value: Record<string, unknown>): Notification => {
  const title = self.location.host
  const notification: Record<string, unknown> = isNotification(value) ? value : { ...value, title }
  return isNotification(notification) ? notification : { title }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const isNotification = (value: Record<string, unknown>): value is Notification => typeof value["title"] === "string"

const isDeclarative = (value: unknown): value is Record<string, unknown> =>
  isRecord(value) && value["web_push"] === 8030

// A notification that is shown keeps its data alone, and not where it and its actions lead.
const withDestinations = ({ actions, data, navigate }: Notification): unknown => {
  const urlByAction = Object.fromEntries(
    (Array.isArray(actions) ? actions : []).flatMap(({ action, navigate }) =>
      navigate === undefined ? [] : [[action, navigate]]
    )
  )
  const destinations = {
    ...(navigate === undefined ? {} : { url: navigate }),
    ...(Object.keys(urlByAction).length === 0 ? {} : { urlByAction })
  }
  return Object.keys(destinations).length > 0 && (isRecord(data) || data === undefined || data === null)
    ? { ...destinations, ...data }
    : data
}

const destination = (data: unknown, action: string): string | undefined => {
  const { url: own, urlByAction } = isRecord(data) ? data : {}
  const isMapped = isRecord(urlByAction) && Object.hasOwn(urlByAction, action)
  if (action === "dismiss" && !isMapped) return undefined
  const url = isMapped ? urlByAction[action] : own
  const { location, registration } = self
  const valid = typeof url === "string" ? attempt(() => new URL(url, location.href).href) : undefined
  return valid ?? registration.scope
}

const windows = (includeUncontrolled = true) => self.clients.matchAll({ type: "window", includeUncontrolled })

const show = async (url: string, match: Options["match"]): Promise<unknown> => {
  const pageOf = (address: string): string => {
    const { href, origin, pathname } = new URL(address)
    return match === "exact" ? href : match === "origin" ? origin : origin + pathname
  }
  // Only a window that this worker controls can be taken elsewhere. The others are not focused: a click may focus a
  // window or open one.
  const [open = [], controlled = []] = await Promise.all([optional(windows), optional(() => windows(false))])
  const isMatch = (window: WindowClient) => pageOf(window.url) === pageOf(url)
  // A page that is at the same place but for its own hash stays there: to lose the hash it would have to load again.
  const isThere = (window: WindowClient) => window.url === url || window.url.split("#")[0] === url
  const window = open.find((window) => window.url === url) ?? controlled.find(isMatch) ??
    open.find((window) => isMatch(window) && isThere(window))
  if (window === undefined || !(await optional(() => window.focus().then(() => true)))) {
    return self.clients.openWindow(url)
  }
  if (isThere(window)) return undefined
  const navigate = async () => window.navigate(url)
  return optional(() => navigate().catch(() => self.clients.openWindow(url)))
}

// A change that the server does not know of yet outlives the worker.
interface Change {
  readonly oldEndpoint?: string | undefined
  readonly key?: string | undefined
  readonly subscription?: unknown
  /** The endpoint that the server refused. */
  readonly refused?: unknown
}

const name = "effect-realtime"

const load = () =>
  optional(async (): Promise<Change | undefined> => (await (await caches.open(name)).match("/" + name))?.json())

const save = (change: Change) =>
  optional(async () => (await caches.open(name)).put("/" + name, new Response(JSON.stringify(change))))

const change = async ({ newSubscription, oldSubscription }: SubscriptionChange, options: Options): Promise<unknown> => {
  const key = keyOf(oldSubscription) || options.applicationServerKey
  const known = await load()
  const change = {
    // The server knows the first endpoint of a series of changes that it has not learned of.
    oldEndpoint: known?.oldEndpoint ?? oldSubscription?.endpoint,
    refused: known?.refused,
    key,
    subscription: newSubscription ? toJson(newSubscription, key) : undefined
  }
  await save(change)
  return report(options, change)
}

const report = async ({ resubscribe }: Options, pending?: Change): Promise<void> => {
  const change = pending ?? await load()
  if (change === undefined) return
  try {
    const { key, oldEndpoint, refused } = change
    let subscription = change.subscription ?? await subscribe(key)
    if (refused !== undefined && isRecord(subscription) && refused === subscription["endpoint"]) {
      return void await save({ ...change, subscription })
    }
    const post = async () => {
      if (resubscribe === undefined || subscription === undefined) return
      await save({ ...change, subscription })
      return fetch(resubscribe, {
        method: "POST",
        headers: { "content-type": "application/json" },
        credentials: "include",
        signal: AbortSignal.timeout(10_000),
        body: JSON.stringify({ oldEndpoint, subscription })
      })
    }
    let response = await post()
    if (response?.status === 410 || response?.status === 409) {
      // The server says that this subscription can only be made anew, and with which key.
      const answer: unknown = parse(await response.text())
      await (await self.registration.pushManager.getSubscription())?.unsubscribe()
      subscription = await subscribe(
        isRecord(answer) && typeof answer["publicKey"] === "string" ? answer["publicKey"] : key
      )
      response = await post()
    }
    const status = response?.status ?? 0
    if (status >= 400 && status < 500 && ![401, 408, 425, 429].includes(status)) {
      reportError(new Error(`ServiceWorker reported a subscription and was refused (${status}): it is not sent again`))
      if (isRecord(subscription)) return void await save({ ...change, subscription, refused: subscription["endpoint"] })
      response = undefined
    }
    // A page that asks to log in is an answer too, but not of the route.
    if (response !== undefined && (!response.ok || response.redirected)) throw new Error(`${response.status}`)
    await optional(() => caches.delete(name))
  } catch (error) {
    await optional(() => self.registration.sync?.register(name))
    throw error
  }
}

/**
 * Subscribes, and resolves to `null` if the permission is gone, and to `undefined` if there is no key to subscribe
 * with.
 */
const subscribe = async (applicationServerKey: string | undefined, attempts = 2): Promise<unknown> => {
  const { pushManager } = self.registration
  try {
    const subscription = applicationServerKey
      ? await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey })
      : await pushManager.getSubscription()
    if (!subscription) return undefined
    // Edge gives out an address that does not exist, above all just after another subscription has ended.
    if (!/"https:\/\/[^/"]*\.invalid[/:"]/.test(JSON.stringify(subscription))) {
      return toJson(subscription, applicationServerKey)
    }
    await subscription.unsubscribe()
    if (attempts < 2) throw new Error("The endpoint does not exist")
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotAllowedError") return null
    throw error
  }
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  return subscribe(applicationServerKey, attempts - 1)
}

const keyOf = (subscription: PushSubscription | null | undefined): string | undefined => {
  const key: ArrayBuffer | string | null | undefined = subscription?.options?.applicationServerKey
  return key && typeof key !== "string"
    ? btoa(String.fromCharCode(...new Uint8Array(key))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")
    : key ?? undefined
}

/** The members of the subscription, and the key that it was made with, if that is one. */
const toJson = (subscription: PushSubscription, key: string | undefined): unknown => {
  const applicationServerKey = keyOf(subscription) || key
  return {
    ...JSON.parse(JSON.stringify(subscription)),
    ...(applicationServerKey?.length === 87 ? { applicationServerKey } : {})
  }
}
