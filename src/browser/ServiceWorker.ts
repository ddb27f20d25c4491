/**
 * Handlers of a service worker for push messages. They do not import Effect, since a worker starts again for each
 * message.
 *
 * @since 0.1.0
 */
import type { Notification } from "../WebPushPayload.js"
import { cacheName, messageType } from "./internal/workerProtocol.js"

/**
 * Options of `install`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Route that receives `{ oldEndpoint, subscription }` by POST, with cookies, when the browser has replaced a
   * subscription. `subscription` is `null` when the permission is gone. A request that fails (offline, 5xx, 401, 408,
   * 425, 429) is repeated at the next event of the worker, and by Background Sync where the browser has it. After any
   * other 4xx this subscription is not sent again. None by default: the server learns of the change at the next
   * `PushClient.register` of the page.
   */
  readonly resubscribe?: string | undefined
  /**
   * VAPID public key of the server in base64url, for browsers that do not expose the subscription that they dropped
   * (Firefox).
   */
  readonly applicationServerKey?: string | undefined
  /**
   * Posts the payload to the visible pages instead of showing a notification. `PushClient.messages` emits it, and
   * replies. If no page replies within a second, the worker shows the notification. Browsers limit this: Chrome
   * sometimes shows a notification of its own, and Safari withdraws the permission after three messages without a
   * notification, even if the page is visible. `false` by default.
   */
  readonly tellPages?: boolean | undefined
  /**
   * Makes a notification of a payload that is none by itself, such as one of `WebPushPayload.fromSchema`. If it
   * returns undefined, the payload is shown as if there were no `toNotification`: browsers count push messages
   * without a notification against the site.
   */
  readonly toNotification?: ((payload: unknown) => Notification | undefined) | undefined
  /**
   * The open window that a click focuses: `exact` matches the URL, `path` the same path (the window navigates to the
   * other query or hash), `origin` the same origin (the window navigates to the URL). A new window is opened if none
   * matches, if it cannot be focused, or if it cannot navigate, as a window without a worker or with another one.
   * `path` by default.
   */
  readonly match?: "exact" | "path" | "origin" | undefined
}

/**
 * Handles `push`, `notificationclick` and `pushsubscriptionchange`. Call it when the script of a service worker starts.
 *
 * - A push message is shown as the notification of `WebPushPayload.make` or `WebPushPayload.declarative`, and then
 *   sets the badge of the app. Text, and an object without a title, is shown under the name of the host.
 * - A click focuses the window of `data.url` (or of `navigate`, or that of the action), or opens one. The action
 *   `dismiss` opens nothing.
 * - When the browser has dropped a subscription, the worker subscribes again with the same key (or with
 *   `applicationServerKey`), and reports the change to the server.
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
  // Repeats a failed report at each event, without an effect on the event itself.
  const alsoReport = () => optional(() => report(options), 20_000)
  self.addEventListener("push", (event) => event.waitUntil(receive(event.data, options).finally(alsoReport)))
  self.addEventListener("notificationclick", (event) => {
    runReported(() => event.notification.close())
    const url = destination(event.notification.data, event.action)
    event.waitUntil((url === undefined ? Promise.resolve() : show(url, options.match)).finally(alsoReport))
  })
  self.addEventListener("pushsubscriptionchange", (event) => event.waitUntil(change(event, options)))
  self.addEventListener("activate", (event) => event.waitUntil(alsoReport()))
  // Background Sync fires the event again if the promise is rejected.
  self.addEventListener("sync", (event) => event.waitUntil(report(options)))
}

// TypeScript's library for workers declares these, but conflicts with the one for pages.
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
 * Runs a step that the notification does not depend on. Resolves to undefined if the step fails, which is reported to
 * the console, or takes longer than a second, or than `millis`.
 */
const optional = <A>(step: () => A | PromiseLike<A>, millis = 1_000): Promise<A | undefined> =>
  Promise.race([
    new Promise<A>((resolve) => resolve(step())),
    new Promise<undefined>((resolve) => setTimeout(resolve, millis))
  ]).catch((error) => {
    reportError(error)
    return undefined
  })

/** Runs the function. Reports an exception, and returns undefined instead. */
const runReported = <A>(evaluate: () => A): A | undefined => {
  try {
    return evaluate()
  } catch (error) {
    reportError(error)
    return undefined
  }
}

const receive = async (data: PushData | null, { tellPages, toNotification }: Options): Promise<unknown> => {
  const text = runReported(() => data?.text()) ?? ""
  const payload = parse(text)
  if (tellPages !== true || !(await isHandledByPage(payload))) await notify(describe(payload, text, toNotification))
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

const isHandledByPage = async (payload: unknown): Promise<boolean> => {
  const visible = (await optional(windows) ?? []).filter((window) => window.visibilityState === "visible")
  return (await Promise.all(visible.map((window) => optional(() => postPayload(window, payload))))).includes(true)
}

/** Posts the payload, and resolves when the page replies. A visible page may have no listener. */
const postPayload = (window: WindowClient, payload: unknown) =>
  new Promise<boolean>((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => resolve(true)
    window.postMessage({ type: messageType, payload }, [port2])
  })

const notify = async (notification: Notification): Promise<void> => {
  const { body = "", navigate: _, title, ...rest } = notification
  const data = runReported(() => withDestinations(notification))
  // A browser refuses options that it cannot show, such as an icon that is no URL. Then the text alone is shown.
  for (const options of [{ ...rest, body, data }, { body, data }, { body }]) {
    try {
      return await self.registration.showNotification(title, options)
    } catch (error) {
      reportError(error)
    }
  }
}

const describe = (payload: unknown, text: string, toNotification: Options["toNotification"]): Notification => {
  const made: unknown = runReported(() => toNotification?.(payload))
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

// The browser stores only `data` with a notification, so the destinations of the notification and its actions go there.
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
  const valid = typeof url === "string" ? runReported(() => new URL(url, location.href).href) : undefined
  return valid ?? registration.scope
}

const windows = (includeUncontrolled = true) => self.clients.matchAll({ type: "window", includeUncontrolled })

const show = async (url: string, match: Options["match"]): Promise<unknown> => {
  const pageOf = (address: string): string => {
    const { href, origin, pathname } = new URL(address)
    return match === "exact" ? href : match === "origin" ? origin : origin + pathname
  }
  // Only a window that this worker controls can navigate. A click permits one focus or one new window, not both.
  const [open = [], controlled = []] = await Promise.all([optional(windows), optional(() => windows(false))])
  const isMatch = (window: WindowClient) => pageOf(window.url) === pageOf(url)
  // A page that differs only by its own hash does not navigate: to remove the hash it would have to load again.
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

/** A change of the subscription. It is stored, and so outlives the worker, until the server has accepted it. */
interface Change {
  readonly oldEndpoint?: string | undefined
  readonly key?: string | undefined
  readonly subscription?: unknown
  /** The endpoint that the server refused. */
  readonly refused?: unknown
}

const load = () =>
  optional(async (): Promise<Change | undefined> =>
    (await (await caches.open(cacheName)).match("/" + cacheName))?.json()
  )

const save = (change: Change) =>
  optional(async () => (await caches.open(cacheName)).put("/" + cacheName, new Response(JSON.stringify(change))))

const change = async ({ newSubscription, oldSubscription }: SubscriptionChange, options: Options): Promise<unknown> => {
  const key = keyOf(oldSubscription) || options.applicationServerKey
  const known = await load()
  const change = {
    // After several changes without a report, the server knows the first endpoint only.
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
      // The subscription is no longer valid. The response has the current key.
      const answer: unknown = parse(await response.text())
      await (await self.registration.pushManager.getSubscription())?.unsubscribe()
      subscription = await subscribe(
        isRecord(answer) && typeof answer["publicKey"] === "string" ? answer["publicKey"] : key
      )
      response = await post()
    }
    const status = response?.status ?? 0
    if (status >= 400 && status < 500 && ![401, 408, 425, 429].includes(status)) {
      reportError(
        new Error(`ServiceWorker reported a subscription, and the server refused it (${status}): it is not sent again`)
      )
      if (isRecord(subscription)) return void await save({ ...change, subscription, refused: subscription["endpoint"] })
      response = undefined
    }
    // A redirect to a login page succeeds too, but is no response of the route.
    if (response !== undefined && (!response.ok || response.redirected)) throw new Error(`${response.status}`)
    await optional(() => caches.delete(cacheName))
  } catch (error) {
    await optional(() => self.registration.sync?.register(cacheName))
    throw error
  }
}

/**
 * Subscribes. Resolves to `null` if the permission is gone, and to `undefined` if there is no key to subscribe with.
 */
const subscribe = async (applicationServerKey: string | undefined, attempts = 2): Promise<unknown> => {
  const { pushManager } = self.registration
  try {
    const subscription = applicationServerKey
      ? await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey })
      : await pushManager.getSubscription()
    if (!subscription) return undefined
    // Edge may return an endpoint that does not exist, mostly just after another subscription has ended.
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

/** Returns the members of the subscription, with the key that it was made with, if that is a VAPID public key. */
const toJson = (subscription: PushSubscription, key: string | undefined): unknown => {
  const applicationServerKey = keyOf(subscription) || key
  return {
    ...JSON.parse(JSON.stringify(subscription)),
    ...(applicationServerKey?.length === 87 ? { applicationServerKey } : {})
  }
}
