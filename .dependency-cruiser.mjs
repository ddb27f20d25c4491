// The house from the ground up: a module imports only what stands above it in this list.
const modules = [
  "internal",
  "Metrics",
  "AccessTicket",
  "ServerSentEvent",
  "EventStream",
  "Topic",
  "EventLog",
  "EventBroker",
  "ResumableStream",
  "VapidKeys",
  "WebPushSubscription",
  "WebPushPayload",
  "WebPushError",
  "WebPushCrypto",
  "WebPush",
  "SubscriptionStore",
  "WebPushApi",
  "Campaign",
  "Notifier",
  "NotificationOutbox",
  "index",
  "browser",
  "client",
  "ai-sdk",
  "react",
  "node",
  "redis",
  "sql",
  "web-push",
  "testing",
  "cli"
]

const sse = "ServerSentEvent|EventStream|Topic|EventLog|EventBroker|ResumableStream"
const push = "VapidKeys|WebPush\\w*|SubscriptionStore|Campaign"

const path = (names) => `^src/(${names})(/|\\.ts$)`

/** @type {import("dependency-cruiser").IConfiguration} */
export default {
  forbidden: [
    { name: "no-circle", severity: "error", from: {}, to: { circular: true } },
    ...modules.slice(0, -1).map((name, i) => ({
      name: `no-upward-import-from-${name}`,
      severity: "error",
      from: { path: path(name) },
      to: { path: path(modules.slice(i + 1).join("|")) }
    })),
    {
      name: "every-module-is-in-the-list",
      severity: "error",
      from: { path: "^src/", pathNot: path(modules.join("|")) },
      to: {}
    },
    {
      name: "no-reach-into-internal",
      severity: "error",
      from: { path: "^src/([^/.]+)", pathNot: path("EventBroker") },
      to: { path: "^src/[^/]+/internal/", pathNot: "^src/$1/internal/" }
    },
    {
      // One loop over the connections for each event, instead of one fiber for each connection, has this price.
      name: "no-reach-into-internal-of-more-than-EventStream",
      severity: "error",
      from: { path: path("EventBroker") },
      to: { path: "^src/[^/]+/internal/", pathNot: "^src/(EventBroker|EventStream)/internal/" }
    },
    { name: "sse-knows-nothing-of-push", severity: "error", from: { path: path(sse) }, to: { path: path(push) } },
    { name: "push-knows-nothing-of-sse", severity: "error", from: { path: path(push) }, to: { path: path(sse) } },
    {
      name: "core-and-browser-import-nothing-of-node",
      severity: "error",
      from: { path: "^src/", pathNot: path("node|redis|sql|testing|cli") },
      to: { dependencyTypes: ["core"], dependencyTypesNot: ["type-only"] }
    }
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    doNotFollow: { path: "node_modules" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "types", "default"] }
  }
}
