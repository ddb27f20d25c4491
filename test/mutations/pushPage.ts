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
    name: "SQLite makes room by the time"
  },
  {
    promise: "a subscription that was pruned is refused",
    file: "src/sql/SqlSubscriptionStore.ts",
    find: "if (pruned.length > 0) {",
    replace: "if (pruned.length > 1) {",
    test: "test/SubscriptionStore.test.ts",
    name: "SQLite remembers what was pruned"
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
    name: "HttpRouter keeps the key"
  },
  {
    promise: "a key that the server does not have is refused",
    file: "src/WebPushApi.ts",
    find: "if (!publicKeys.includes(",
    replace: "if (publicKeys.length === 0 && !publicKeys.includes(",
    test: "test/WebPushApi.test.ts",
    name: "HttpRouter answers 410 and its key"
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
    promise: "a private key that has lost its leading zeros is taken",
    file: "src/VapidKeys.ts",
    find: "scalar.set(significant, 32 - significant.length)",
    replace: "scalar.set(significant)",
    test: "test/VapidKeys.test.ts",
    name: "takes a scalar"
  },
  {
    promise: "a private key on another curve is refused",
    file: "src/VapidKeys.ts",
    find: "key.asymmetricKeyDetails?.namedCurve === \"prime256v1\"",
    replace: "key.asymmetricKeyDetails?.namedCurve !== undefined",
    test: "test/VapidKeys.test.ts",
    name: "says why a private key"
  },
  {
    promise: "a device that reads only aesgcm is refused at decode",
    file: "src/WebPushSubscription.ts",
    find: "includes(\"aes128gcm\")",
    replace: "includes(\"aesgcm\")",
    test: "test/WebPushSubscription.test.ts",
    name: "refuses a device"
  }
] satisfies ReadonlyArray<Mutation>
