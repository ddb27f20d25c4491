import type { Mutation } from "./mutation.js"

export default [
  {
    promise: "an owner with a lone surrogate is refused by each store",
    file: "src/SubscriptionStore.ts",
    find: "(text.isWellFormed() && !text.includes(\"\\0\"))",
    replace: "!text.includes(\"\\0\")",
    test: "test/SubscriptionStore.test.ts",
    name: "memory refuses text"
  },
  {
    promise: "an owner with a NUL is refused by each store",
    file: "src/SubscriptionStore.ts",
    find: "(text.isWellFormed() && !text.includes(\"\\0\"))",
    replace: "text.isWellFormed()",
    test: "test/SubscriptionStore.test.ts",
    name: "memory refuses text"
  },
  {
    promise: "the device that subscribed the longest ago makes room, by updated_at",
    file: "src/sql/SqlSubscriptionStore.ts",
    find: "ORDER BY endpoint_hash = ${endpointHash} DESC, updated_at DESC",
    replace: "ORDER BY endpoint_hash = ${endpointHash} DESC, created_at DESC",
    test: "test/SubscriptionStore.test.ts",
    name: "SQLite replaces by the time"
  },
  {
    promise: "a subscription that was pruned is refused",
    file: "src/sql/SqlSubscriptionStore.ts",
    find: "if (pruned.length > 0) return",
    replace: "if (pruned.length > 1) return",
    test: "test/SubscriptionStore.test.ts",
    name: "SQLite remembers a pruned subscription"
  },
  {
    promise: "the memory of pruned subscriptions is bounded",
    file: "src/SubscriptionStore.ts",
    find: "if (pruned.size <= maxPruned) break",
    replace: "if (pruned.size >= 0) break",
    test: "test/SubscriptionStore.test.ts",
    name: "memory remembers the last 10,000"
  },
  {
    promise: "a subscription without a key has that of the device in whose place it comes",
    file: "src/WebPushApi.ts",
    find: "keyOf(replaces) ?? publicKey",
    replace: "publicKey",
    test: "test/WebPushApi.test.ts",
    name: "HttpRouter stores the key"
  },
  {
    promise: "a key that the server does not have is refused",
    file: "src/WebPushApi.ts",
    find: "if (!publicKeys.includes(",
    replace: "if (publicKeys.length === 0 && !publicKeys.includes(",
    test: "test/WebPushApi.test.ts",
    name: "HttpRouter answers 410 with its own key"
  },
  {
    promise: "a body must arrive in time",
    file: "src/WebPushApi.ts",
    find: "const maxBodyTime = \"10 seconds\"",
    replace: "const maxBodyTime = \"10 days\"",
    test: "test/WebPushApi.test.ts",
    name: "10 seconds"
  },
  {
    promise: "an HttpApi without the group is refused when the layer is built",
    file: "src/WebPushApi.ts",
    find: "group?.identifier === \"webPush\"",
    replace: "group?.identifier !== \"\"",
    test: "test/WebPushApi.test.ts",
    name: "throws if the API has no such group"
  },
  {
    promise: "an error of the configuration names the variable",
    file: "src/VapidKeys.ts",
    find: "return pathOf(config.original)",
    replace: "return []",
    test: "test/VapidKeys.test.ts",
    name: "fails with the path of the config"
  },
  {
    promise: "the command line prints a private key as PEM",
    file: "src/cli/vapid.ts",
    find: "type: \"pkcs8\"",
    replace: "type: \"sec1\"",
    test: "test/cli.test.ts",
    name: "prints a private key as PEM"
  },
  {
    promise: "a private key that has lost its leading zeros is taken",
    file: "src/VapidKeys.ts",
    find: "scalar.set(significant, 32 - significant.length)",
    replace: "scalar.set(significant)",
    test: "test/VapidKeys.test.ts",
    name: "accepts a scalar"
  },
  {
    promise: "a private key on another curve is refused",
    file: "src/VapidKeys/internal/der.ts",
    find: "? isInPkcs8 : isObject(elementsOf(curve.content)?.[0], prime256v1)",
    replace: "? isInPkcs8 : true",
    test: "test/VapidKeys.test.ts",
    name: "fails with the rule that a private key"
  },
  {
    promise: "a device that reads only aesgcm is refused at decode",
    file: "src/WebPushSubscription.ts",
    find: "includes(\"aes128gcm\")",
    replace: "includes(\"aesgcm\")",
    test: "test/WebPushSubscription.test.ts",
    name: "refuses a device"
  },
  {
    promise: "text that is no notification is shown",
    file: "src/browser/ServiceWorker.ts",
    find: "titled({ body: typeof payload === \"string\" ? payload : text })",
    replace: "titled({})",
    test: "test/browser/PushClient.test.ts",
    name: "shows the text"
  },
  {
    promise: "an object without a title keeps its members",
    file: "src/browser/ServiceWorker.ts",
    find: "{ ...value, title }",
    replace: "{ title }",
    test: "test/browser/PushClient.test.ts",
    name: "shows the text"
  },
  {
    promise: "the notification does not wait for the badge",
    file: "src/browser/ServiceWorker.ts",
    find: "optional(() => self.navigator.setAppBadge?.(badge))",
    replace: "self.navigator.setAppBadge?.(badge)",
    test: "test/browser/PushClient.test.ts",
    name: "shows the notification first"
  },
  {
    promise: "an optional step of the worker has a timeout",
    file: "src/browser/ServiceWorker.ts",
    find: "setTimeout(resolve, millis)",
    replace: "setTimeout(resolve, millis * 1_000)",
    test: "test/browser/PushClient.test.ts",
    name: "shows the notification first"
  },
  {
    promise: "dismiss opens nothing",
    file: "src/browser/ServiceWorker.ts",
    find: "if (action === \"dismiss\" && !isMapped) return undefined",
    replace: "if (action === \"dismiss!\" && !isMapped) return undefined",
    test: "test/browser/PushClient.test.ts",
    name: "opens one: "
  },
  {
    promise: "a window that cannot be focused is replaced by a new one",
    file: "src/browser/ServiceWorker.ts",
    find: "(await optional(() => window.focus().then(() => true)))",
    replace: "(await optional(() => window.focus().then(() => true)), true)",
    test: "test/browser/PushClient.test.ts",
    name: "opens one: ?match=origin"
  },
  {
    promise: "a window that no worker controls does not navigate: a new one is opened",
    file: "src/browser/ServiceWorker.ts",
    find: "controlled.find(isMatch)",
    replace: "open.find(isMatch)",
    test: "test/browser/PushClient.test.ts",
    name: "opens a window if no open one can"
  },
  {
    promise: "a window that refuses the URL is replaced by a new one",
    file: "src/browser/ServiceWorker.ts",
    find: "navigate().catch(() => self.clients.openWindow(url))",
    replace: "navigate()",
    test: "test/browser/PushClient.test.ts",
    name: "opens a window if no open one can"
  },
  {
    promise: "a lasting refusal of a subscription ends its reports",
    file: "src/browser/ServiceWorker.ts",
    find: "status >= 400 && status < 500 && ",
    replace: "status >= 400 && status < 400 && ",
    test: "test/browser/PushClient.test.ts",
    name: "does not repeat the report"
  },
  {
    promise: "a subscription that the server could not take for now is reported again",
    file: "src/browser/ServiceWorker.ts",
    find: "![401, 408, 425, 429].includes(status)",
    replace: "![401, 408, 425].includes(status)",
    test: "test/browser/PushClient.test.ts",
    name: "does not repeat the report"
  },
  {
    promise: "a report that failed is repeated",
    file: "src/browser/ServiceWorker.ts",
    find: "!response.ok || response.redirected",
    replace: "response.redirected",
    test: "test/browser/PushClient.test.ts",
    name: "repeats a failed report"
  },
  {
    promise: "a login page is no response of the route",
    file: "src/browser/ServiceWorker.ts",
    find: "!response.ok || response.redirected",
    replace: "!response.ok",
    test: "test/browser/PushClient.test.ts",
    name: "repeats a failed report"
  },
  {
    promise: "the worker sends the key of the subscription",
    file: "src/browser/ServiceWorker.ts",
    find: "applicationServerKey?.length === 87 ? {",
    replace: "applicationServerKey?.length === 86 ? {",
    test: "test/browser/PushClient.test.ts",
    name: "repeats a failed report"
  },
  {
    promise: "register says that its body is JSON",
    file: "src/browser/PushClient.ts",
    find: "headers: { \"content-type\": \"application/json\" },",
    replace: "headers: {},",
    test: "test/browser/PushClient.test.ts",
    name: "documented"
  },
  {
    promise: "register checks the response",
    file: "src/browser/PushClient.ts",
    find: "answer.status === 201 ? memberOf(answer, \"endpointId\") : undefined",
    replace: "memberOf(answer, \"endpointId\") ?? \"\"",
    test: "test/browser/PushClient.test.ts",
    name: "documented"
  },
  {
    promise: "register renews a subscription that is gone",
    file: "src/browser/PushClient.ts",
    find: "answer.status === 410 || answer.status === 409",
    replace: "answer.status === 409",
    test: "test/browser/PushClient.test.ts",
    name: "documented"
  },
  {
    promise: "the endpoint is deleted when the permission is gone",
    file: "src/browser/PushClient.ts",
    find: "Option.isNone(last) ? Effect.void : Effect.ignore(deleteEndpoint(url, last.value))",
    replace: "Effect.void",
    test: "test/browser/PushClient.test.ts",
    name: "documented"
  },
  {
    promise: "an endpoint that does not exist is not registered",
    file: "src/browser/PushClient.ts",
    find: "protocol === \"https:\" && !hostname.endsWith(\".invalid\")",
    replace: "protocol === \"https:\"",
    test: "test/browser/PushClient.test.ts",
    name: "supports browsers"
  },
  {
    promise: "a subscription that does not expose its key has the key that was passed",
    file: "src/browser/PushClient.ts",
    find: "? toBase64Url(key) : passedKey",
    replace: "? toBase64Url(key) : \"\"",
    test: "test/browser/PushClient.test.ts",
    name: "supports browsers"
  }
] satisfies ReadonlyArray<Mutation>
