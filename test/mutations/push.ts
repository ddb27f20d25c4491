import type { Mutation } from "./mutation.js"

const client = { file: "src/node/PushHttpClient.ts", test: "test/node/PushHttpClient.test.ts" }
const http1 = { ...client, file: "src/node/internal/http1.ts" }
const http2 = { ...client, file: "src/node/internal/http2.ts" }
const proxy = { ...client, file: "src/node/internal/proxy.ts" }
const addresses = { file: "src/node/internal/addressPolicy.ts", test: "test/node/addressPolicy.test.ts" }
const endpoints = { file: "src/WebPush/internal/endpoint.ts", test: "test/WebPush.test.ts" }
const answers = {
  file: "src/WebPush/internal/response.ts",
  test: "test/WebPush/wire.test.ts",
  name: "has the meaning of the table"
}
const errors = { file: "src/WebPushError.ts", test: "test/WebPush.test.ts" }
const sender = { file: "src/WebPush.ts", test: "test/WebPush.test.ts" }
const delivery = { ...sender, file: "src/WebPush/internal/delivery.ts" }

const pool = { file: "src/node/internal/encryptionPool.ts", test: "test/node/NodeWebPushCrypto.test.ts" }

const pacing = { file: "src/WebPush/internal/pacing.ts", test: "test/WebPush/pacing.test.ts" }

export default [
  {
    ...sender,
    promise: "The Effect that makes a message has a time limit",
    name: "that does not end in time",
    find: `Effect.timeoutFail({ duration: prepared.timeout, onTimeout: () => tooLate })`,
    replace: `(message) => message`
  },
  {
    ...sender,
    promise: "A message that is not made in time may be tried again",
    name: "that does not end in time",
    find: `reason: isLate ? "Unavailable" : "Rejected"`,
    replace: `reason: "Rejected"`
  },
  {
    ...pacing,
    promise: "A change of the time of day does not stop a pace",
    find: `Effect.map(Effect.clock, monotonicMillis)`,
    replace: `Effect.map(Effect.clock, (clock) => monotonicMillis(clock) && clock.unsafeCurrentTimeMillis())`
  },
  {
    ...pacing,
    promise: "A call without a pace does not delete the place of a paced one",
    find: `service.restartAt === undefined && service.nextAt <= now`,
    replace: `service.restartAt === undefined`
  },
  {
    ...pacing,
    promise: "A pause lasts a day at most",
    find: `Math.min(asked, longestPauseMillis)`,
    replace: `asked + 0 * longestPauseMillis`
  },
  {
    ...pool,
    promise: "Keys that cannot be sent to a thread concern their message only",
    find: `Effect.flatMap(readKeys(keys), (keys) => encrypt(message, keys, padding))`,
    replace: `encrypt(message, keys, padding)`
  },
  {
    ...addresses,
    promise: "An address behind NAT64 is judged by the IPv4 address that it holds",
    find: `if (holdsIpv4(address)) return !isForbidden(ipv4In(address))`,
    replace: ``
  },
  {
    ...addresses,
    promise: "No allowed subnet opens a way to private addresses behind NAT64",
    find: `if (holdsIpv4(address)) return !isForbidden(ipv4In(address))`,
    replace: `if (holdsIpv4(address)) return isAllowed(address) || !isForbidden(ipv4In(address))`
  },
  {
    ...addresses,
    promise: "An ISATAP address is not public",
    find: `isForbidden(address) || isTunnel(address)`,
    replace: `isForbidden(address)`
  },
  {
    ...errors,
    promise: "A Blocked that comes from name resolution is not final",
    test: "test/node/PushHttpClient.test.ts",
    name: "are all checked, for each resolution",
    find: "? this.detail === undefined || isAddress.test(this.endpointId)",
    replace: "? true"
  },
  {
    ...http2,
    promise: "A session that was silent is checked before it is used again",
    name: "is detected before any of 20 messages is lost over HTTP/2 (concurrency: unbounded)",
    find: `const silentMillis = 1000`,
    replace: `const silentMillis = 1_000_000`
  },
  {
    ...http2,
    promise: "A session that was silent is probed",
    name: "is distinguished from a silent one",
    find: `connection.checking === undefined && !isSilent`,
    replace: `connection.checking === undefined`
  },
  {
    ...http2,
    promise: "GOAWAY with an error concerns the streams after its last stream id",
    name: "sends GOAWAY with an error and drops the request",
    find: `connection.lastStreamId = lastStreamId`,
    replace: ``
  },
  {
    ...http2,
    promise: "GOAWAY with REFUSED_STREAM does not concern the requests that were processed",
    name: "REFUSED_STREAM after it has processed the request",
    find: `connection.goawayCode = code`,
    replace: ``
  },
  {
    ...http1,
    promise: "A request over an established connection counts as sent",
    name: "that speaks no HTTP causes a failure",
    find: `} else addSent(exchange, 1)`,
    replace: `}`
  },
  {
    ...http1,
    promise: "A request that meets the end of an idle connection is sent once more",
    name: "is replaced, and the request sent once more",
    find: `if (wasIdle && !isSecondAttempt`,
    replace: `if (wasIdle && isSecondAttempt`
  },
  {
    ...http1,
    promise: "A request is sent no third time, and not after its response has begun",
    name: "not when the answer has begun",
    find: `const wasIdle = request.reusedSocket && bytesRead() === bytesBefore`,
    replace: `const wasIdle = request.reusedSocket`
  },
  {
    ...http1,
    promise: "An idle connection that loses a message closes the other idle ones",
    name: "loses one message over HTTP/1.1",
    find: `if (request.reusedSocket && bytesRead() === bytesBefore) dropIdle(agent, url)`,
    replace: ``
  },
  {
    ...client,
    file: "src/node/internal/publicLookup.ts",
    promise: "A resolver that throws does not end the process",
    name: "that throws causes a failure of the message",
    find: `once(() => callback(transportError("ERR_LOOKUP_FAILED", cause), []))`,
    replace: `throw cause`
  },
  {
    ...client,
    file: "src/node/internal/exchange.ts",
    promise: "A response is read to 8 KiB and no further",
    name: "uses no memory",
    find: `    if (size > maxResponseBytes) {`,
    replace: `    if (size < 0) {`
  },
  {
    ...http1,
    promise: "421 closes the connection of HTTP/1.1",
    name: "(421)",
    find: `if (response.statusCode === 421) request.shouldKeepAlive = false`,
    replace: ``
  },
  {
    ...http2,
    promise: "421 retires the connection of HTTP/2",
    name: "(421)",
    find: `if (status === 421) retire(connection)`,
    replace: ``
  },
  {
    ...client,
    promise: "An invalid option dies when the client is built",
    name: "dies if an option is invalid",
    find: `    : !allowedAddresses.every(AddressPolicy.isSubnet)`,
    replace: `    : !allowedAddresses.some(AddressPolicy.isSubnet)`
  },
  {
    ...client,
    file: "src/node/internal/pushTransport.ts",
    promise: "A proxy is not asked for a private address that stands in the URL",
    name: "is not asked for a private address",
    find: `if (Net.isIP(host) !== 0 && !isAllowed(host))`,
    replace: `if (proxy === undefined && Net.isIP(host) !== 0 && !isAllowed(host))`
  },
  {
    ...proxy,
    promise: "The names of NO_PROXY are reached without the proxy",
    name: "of the environment is used only when asked",
    find: `host === name || host.endsWith`,
    replace: `host.endsWith`
  },
  {
    ...proxy,
    promise: "The refusal of a proxy is a failure with its status",
    name: "that fails causes a failure with a detail",
    find: `statusCode < 200 || statusCode > 299`,
    replace: `statusCode < 200`
  },
  {
    ...http1,
    promise: "All connections of HTTP/1.1 go through the proxy",
    name: "carries messages over http/1.1",
    find: `    return stop === undefined ? super.createConnection(options, callback) : undefined`,
    replace: `    stop?.()\n    return super.createConnection(options, callback)`
  },
  {
    ...answers,
    promise: "FCM's MismatchSenderId is a KeyMismatch",
    find: `VapidPkHashMismatch|MismatchSenderId|`,
    replace: `VapidPkHashMismatch|`
  },
  {
    ...answers,
    promise: "408, 421 and 425 are retryable",
    find: `    case 408:\n`,
    replace: ``
  },
  {
    ...answers,
    promise: "Apple's reason is in detail",
    find: `  "BadDeviceToken",\n  "BadEnvironmentKeyIdInToken",`,
    replace: `  "BadEnvironmentKeyIdInToken",`
  },
  {
    ...errors,
    promise: "The report has the subscriptions that accept no message",
    name: "reports the endpoints that accept no message",
    find: `unusableEndpoint.has(this.detail ?? "")`,
    replace: `unusableEndpoint.has("")`
  },
  {
    ...endpoints,
    promise: "A reserved domain is not public",
    name: "allows each public name",
    find: `[a-z0-9]$/.test(domain) && !reservedDomain.test(domain)`,
    replace: `[a-z0-9]$/.test(domain)`
  },
  {
    ...endpoints,
    promise: "A label of more than 63 characters is refused",
    name: "blocks all endpoints outside",
    find: `/[^.]{64}/`,
    replace: `/[^.]{640}/`
  },
  {
    ...endpoints,
    promise: "A name of more than 253 characters is refused",
    name: "is extended by the hosts",
    find: `name.length > 253`,
    replace: `name.length > 2530`
  },
  {
    file: "src/WebPushSubscription.ts",
    test: "test/WebPush.test.ts",
    promise: "An endpoint of more than 4,096 characters is refused",
    name: "blocks all endpoints outside",
    find: `const maxEndpointLength = 4096`,
    replace: `const maxEndpointLength = 40_960`
  },
  {
    ...sender,
    promise: "Retry-After is honoured up to an hour",
    name: "waits for the delay of Retry-After: an hour",
    find: `Duration.hours(1))`,
    replace: `Duration.minutes(59))`
  },
  {
    ...sender,
    promise: "Retry-After is not honoured beyond an hour",
    name: "does not retry after a delay of more than an hour: 3601",
    find: `Duration.hours(1))`,
    replace: `Duration.hours(2))`
  },
  {
    file: "src/WebPush/internal/response.ts",
    test: "test/WebPush.test.ts",
    promise: "A Retry-After of any number of digits is a finite delay",
    name: "does not retry after a delay of more than an hour: 9999999999",
    find: `Math.min(wait, longestWait)`,
    replace: `wait`
  },
  {
    ...delivery,
    file: "src/WebPush/internal/deadline.ts",
    promise: "A defect of the client is logged by no fiber",
    test: "test/WebPush/wire.test.ts",
    name: "occur in no error",
    find: `Effect.forkScoped(Effect.interruptible(Effect.exit(run(limit))))`,
    replace: `Effect.forkScoped(Effect.map(run(limit), Exit.succeed))`
  },
  {
    ...delivery,
    file: "src/WebPush/internal/deadline.ts",
    promise: "A message fails at its deadline",
    name: "fails after its timeout",
    find: `one.fiber.unsafeInterruptAsFork(FiberId.none)`,
    replace: ``
  },
  {
    promise: "A deadline ends its message, and not the others of the call",
    file: "src/WebPush/internal/crowd.ts",
    test: "test/WebPush.test.ts",
    name: "sends the messages after one that timed out",
    find: `if (failure !== undefined) return run(`,
    replace: `if (failure !== undefined && queued < 0) return run(`
  },
  {
    ...delivery,
    file: "src/WebPush/internal/deadline.ts",
    promise: "A deadline exists in an uninterruptible region too",
    name: "ends in an uninterruptible region",
    find: `Effect.interruptible(Effect.forever(expire))`,
    replace: `Effect.forever(expire)`
  },
  {
    ...delivery,
    file: "src/WebPush/internal/deadline.ts",
    promise: "A deadline interrupts no fiber of the caller",
    name: "interrupts no fiber of the caller at its timeout",
    find: `Effect.forkScoped(Effect.interruptible(Effect.exit(run(limit))))`,
    replace: `Effect.map(Effect.exit(run(limit)), (exit) => ({ await: Effect.succeed(Exit.succeed(exit)) }))`
  },
  {
    ...sender,
    promise: "A message of a crowd has a span only when asked",
    name: "are one for each call with its counts",
    find: `call.messageSpans === true
`,
    replace: `call.messageSpans !== undefined
`
  },
  {
    ...delivery,
    promise: "The timeout of a message begins after its encryption",
    name: "excludes the encryption of other messages",
    find: `      let endLimit = () => {}`,
    replace: `      let endLimit = limit.begin(fiber, () => failure("Timeout"))`
  },
  {
    ...sender,
    file: "src/internal/encryptionTurns.ts",
    promise: "A turn of the event loop encrypts a few messages",
    name: "does not block the event loop",
    find: `const encryptionsPerTurn = 8`,
    replace: `const encryptionsPerTurn = 80`
  },
  {
    ...sender,
    promise: "An invalid option dies when the layer is built",
    name: "of a call, and of the layer",
    find: `    yield* checkOptions(options, crypto)`,
    replace: ``
  },
  {
    ...sender,
    file: "src/WebPush/internal/vapidToken.ts",
    test: "test/WebPushCrypto.test.ts",
    promise: "Concurrent first sends sign one token, also where signing is asynchronous",
    name: "with one token for 50 concurrent first sends",
    find: `    }, withPermits(1))`,
    replace: `    })`
  },
  {
    file: "src/node/NodeWebPush.ts",
    test: "test/WebPushCrypto.test.ts",
    promise: "NodeWebPush takes an engine",
    name: "is refused by NodeWebPush whose engine is the package",
    find: `options.engine ?? NodeWebPushCrypto.layer`,
    replace: `NodeWebPushCrypto.layer`
  },
  {
    file: "src/internal/body.ts",
    test: "test/WebPushCrypto.test.ts",
    promise: "A response without a body does not put the endpoint into a log",
    name: "WebPushCrypto shows no secret in an error, a log line or a span",
    find: `      Effect.withUnhandledErrorLogLevel(Option.none()),`,
    replace: ``
  },
  {
    file: "src/WebPushCrypto/internal/webCrypto.ts",
    test: "test/WebPushCrypto.test.ts",
    promise: "Web Crypto pads a message to its length",
    name: "encrypts messages that node:crypto",
    find: `Math.max(plaintext.length, paddedBytes) + 1`,
    replace: `plaintext.length + 1`
  },
  {
    ...sender,
    test: "test/WebPushCrypto.test.ts",
    promise: "A padding that the engine cannot give is refused, and not left out",
    name: "padding that web-push cannot give",
    find: `if (padding > 0 && !supportsPadding)`,
    replace: `if (padding > 1e9 && !supportsPadding)`
  },
  {
    file: "src/web-push/WebPushLibrary.ts",
    test: "test/WebPushCrypto.test.ts",
    promise: "The port over web-push refuses a padding",
    name: "is refused by the port",
    find: `if (padding > 0)`,
    replace: `if (padding > 1e9)`
  },
  {
    file: "src/web-push/WebPushLibrary.ts",
    test: "test/WebPushCrypto.test.ts",
    promise: "web-push encrypts a few messages in a turn of the event loop",
    name: "an engine that blocks the event loop",
    find: `return turn(() =>`,
    replace: `return Effect.suspend(() =>`
  },
  {
    file: "src/internal/p256.ts",
    test: "test/WebPushCrypto.test.ts",
    promise: "A secret that is no auth of RFC 8291 is refused by each engine",
    name: "fails with InvalidSubscription for a long secret",
    find: `|| auth.length !== 16`,
    replace: ``
  },
  {
    file: "src/node/internal/aes128gcm.js",
    test: "test/WebPushCrypto.test.ts",
    promise: "A point that no browser decrypts for is refused by node:crypto",
    name: "fails with InvalidSubscription for a compressed point",
    find: `receiverKey.length !== 65 || receiverKey[0] !== 4 || `,
    replace: ``
  },
  {
    file: "src/internal/p256.ts",
    test: "test/WebPushCrypto.test.ts",
    promise: "A point that no browser decrypts for is refused by each engine",
    name: "fails with InvalidSubscription for a hybrid point",
    find: `|| p256dh[0] !== 4`,
    replace: ``
  },
  {
    file: "src/internal/authorization.ts",
    test: "test/WebPushCrypto.test.ts",
    promise: "A token expires in seconds",
    name: "signs the token of RFC 8292",
    find: `Math.floor(expiresAt / 1000)`,
    replace: `expiresAt`
  },
  {
    file: "src/internal/p256.ts",
    test: "test/VapidKeys.test.ts",
    promise: "The order of the curve is no private key",
    name: "derives the public key as another implementation",
    find: `d >= n`,
    replace: `d > n`
  },
  {
    file: "src/VapidKeys.ts",
    test: "test/VapidKeys.test.ts",
    promise: "A key in encrypted PEM is refused by name",
    name: "fails with the rule that a private key breaks",
    find: `|| /ENCRYPTED/.test(body)`,
    replace: ``
  },
  {
    ...delivery,
    promise: "A failure before the connection is established is retryable, with any client",
    name: "is retryable if its code",
    find: `/^(connect|getaddrinfo|query\\w*)$/`,
    replace: `/^(getaddrinfo|query\\w*)$/`
  },
  {
    promise: "An address in the endpoint itself is blocked permanently",
    file: "src/WebPushError.ts",
    find: "this.detail === undefined || isAddress.test(this.endpointId)",
    replace: "this.detail === undefined",
    test: "test/node/PushHttpClient.test.ts",
    name: "blocked permanently"
  },
  {
    promise: "An excluded device gets no push",
    file: "src/Notifier.ts",
    find: "!exclude.includes(endpoint) && ",
    replace: "",
    test: "test/Notifier.test.ts",
    name: "pushes to no device that is excluded"
  },
  {
    promise: "An excluded device gets no push from a later attempt of the outbox",
    file: "src/NotificationOutbox/internal/attempt.ts",
    find: "withoutExcluded(devices, entry.message.options.exclude ?? [])",
    replace: "withoutExcluded(devices, [])",
    test: "test/NotificationOutbox.test.ts",
    name: "sends to no excluded device"
  },
  {
    promise: "A payload that is too long to be sent is refused where it is made",
    file: "src/WebPushPayload.ts",
    find: "bytes.length <= maxBytes, () => tooLarge",
    replace: "bytes.length <= 2 * maxBytes, () => tooLarge",
    test: "test/WebPushPayload.test.ts",
    name: "too long to be sent"
  },
  {
    promise: "the endpoint is in no log of a store that dies",
    file: "src/Notifier.ts",
    find: "(${reasonOf(cause)})",
    replace: "(${cause})",
    test: "test/Notifier.test.ts",
    name: "logs only the reason when a store dies"
  },
  {
    ...pool,
    promise: "Messages of one turn travel to a thread together",
    name: "sends messages of one turn together",
    find: `if (jobs.push(job) === size || isAlone) break`,
    replace: `jobs.push(job); break`
  },
  {
    ...pool,
    promise: "A thread has at most two batches",
    name: "sends messages of one turn together",
    find: `const batchesPerThread = 2`,
    replace: `const batchesPerThread = 3`
  },
  {
    ...pool,
    promise: "A few messages are divided among the threads",
    name: "divides a few messages",
    find: `Math.min(batch, Math.ceil(waiting.size / workers))`,
    replace: `batch`
  },
  {
    ...pool,
    promise: "A message that waits for a thread can be interrupted",
    name: "does not send a message that is interrupted",
    find: `        waiting.delete(job)
      })`,
    replace: `      })`
  },
  {
    ...pool,
    promise: "The messages of a thread that dies are encrypted by another one",
    name: "loses no message when a thread is terminated",
    find: `      recover(thread.batches, error, code)
`,
    replace: ``
  },
  {
    ...pool,
    promise: "A message that threads die of takes no other with it",
    name: "ends a message of which three threads have died",
    find: `const isAlone = job.losses > 0`,
    replace: `const isAlone = false`
  },
  {
    ...pool,
    promise: "Messages wait for no thread that has died",
    name: "when all messages of a thread that dies are interrupted",
    find: `      recover(thread.batches, error, code)
      schedule()`,
    replace: `      recover(thread.batches, error, code)`
  },
  {
    ...pool,
    promise: "The layer is not built if no thread runs",
    name: "dies when the layer is built and no thread runs",
    find: `Effect.tap(({ encrypt }) =>`,
    replace: `Effect.tap(() => Effect.void), Effect.tap(({ encrypt }) => () =>`
  },
  {
    ...pool,
    promise: "No thread outlives the scope",
    name: "ends its threads with the scope",
    find: `Promise.all(running.map(({ worker }) => worker.terminate()))`,
    replace: `Promise.resolve()`
  },
  {
    ...pool,
    promise: "A message that is awaited when the scope is closed is interrupted",
    name: "ends its threads with the scope",
    find: `job.resume(Effect.interrupt)
    waiting`,
    replace: `void job
    waiting`
  },
  {
    ...sender,
    promise: "A constant message that is none is refused",
    name: "a constant message that is none",
    find: `bytes: toMessageBytes(message),
    padding`,
    replace: `bytes: toBytes(message),
    padding`
  },
  {
    ...sender,
    promise: "A subscription that was not decoded is refused before anything is sent",
    name: "a subscription that was not decoded",
    find: `if (!inputs.every(isDecoded)) return yield* undecoded("WebPush")`,
    replace: ``
  },
  {
    file: "src/testing/TestPushService.ts",
    test: "test/testing/TestPushService.test.ts",
    promise: "Tokens are checked against the clock of the layer",
    name: "begins in 1970",
    find: `clock.unsafeCurrentTimeMillis()`,
    replace: `Date.now()`
  },
  {
    promise: "A message is sent again after its circuit has closed, whatever the schedule says",
    file: "src/WebPush/internal/crowd.ts",
    find: "Intervals.start(decision.intervals) - now, circuitMillis(error))",
    replace: "Intervals.start(decision.intervals) - now, 0)",
    test: "test/WebPush/pacing.test.ts",
    name: "by a schedule without delays"
  },
  {
    promise: "A message that waits for its retry occupies no place",
    file: "src/WebPush/internal/crowd.ts",
    find:
      "          fork(Effect.sleep(delay), (exit) => {\n            retrying--\n            if (Exit.isSuccess(exit)) add(job)\n          })\n          return Effect.void\n",
    replace:
      "          return Effect.map(Effect.sleep(delay), () => {\n            retrying--\n            add(job)\n          })\n",
    test: "test/WebPush/pacing.test.ts",
    name: "occupies no place meanwhile"
  },
  {
    promise: "A service that limits is paused",
    file: "src/WebPush/internal/pacing.ts",
    find: "        service.pausedUntil = Math.max(service.pausedUntil, now + pause)\n",
    replace: "",
    test: "test/WebPush/pacing.test.ts",
    name: "is paused, restarts slowly"
  },
  {
    promise: "A service restarts slowly after a pause",
    file: "src/WebPush/internal/pacing.ts",
    find: "        service.restartAt = service.pausedUntil\n",
    replace: "",
    test: "test/WebPush/pacing.test.ts",
    name: "is paused, restarts slowly"
  },
  {
    promise: "Messages keep the pace of their service",
    file: "src/WebPush/internal/pacing.ts",
    find: "service.nextAt = at + interval",
    replace: "service.nextAt = at",
    test: "test/WebPush/pacing.test.ts",
    name: "at equal distances"
  },
  {
    promise: "A circuit opens after ten time-outs in a row",
    file: "src/WebPush/internal/pacing.ts",
    find: "if (circuit.timeouts >= maxTimeouts) circuit.openUntil = now + openMillis\n",
    replace: "\n",
    test: "test/WebPush/pacing.test.ts",
    name: "gets one probe after 30 seconds"
  },
  {
    promise: "Reading stops when too many subscriptions wait",
    file: "src/WebPush/internal/crowd.ts",
    find: "queued + retrying >= maxWaiting || ",
    replace: "",
    test: "test/WebPush/pacing.test.ts",
    name: "reading stops when"
  },
  {
    promise: "A message that is held back counts in the metric",
    file: "src/WebPush/internal/crowd.ts",
    find: "          count(sender.endpoint, result, labels)\n",
    replace: "",
    test: "test/WebPush/pacing.test.ts",
    name: "gets one probe after 30 seconds"
  },
  {
    promise: "A subscription whose message could not be made counts in the metric",
    file: "src/WebPush/internal/crowd.ts",
    find: "onFailure: (error) => settle(lane, job, Either.left(error)),",
    replace: "onFailure: (error) => emit(subscription, Either.left(error)),",
    test: "test/WebPush.test.ts",
    name: "that throws, dies or is no message"
  },
  {
    promise: "A pace that is none is refused by name",
    file: "src/WebPush/internal/pacing.ts",
    find: "  if (!Predicate.isRecord(pace)) return undefined\n",
    replace: "",
    test: "test/WebPush/pacing.test.ts",
    name: "that is no rate"
  },
  {
    promise: "The concurrency of many notifications is checked",
    file: "src/Notifier.ts",
    find: "Number.isSafeInteger(concurrency) && concurrency >= 1",
    replace: "concurrency === concurrency",
    test: "test/Notifier.test.ts",
    name: "refuses a policy"
  }
] satisfies ReadonlyArray<Mutation>
