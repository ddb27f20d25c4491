/** Returns the rule that a padding breaks if the engine of `WebPush` supports none, or nothing. */
export const ruleOfPadding = (
  { supportsPadding }: { readonly supportsPadding?: boolean | undefined },
  padding = 0
): string | undefined =>
  supportsPadding === false && padding > 0 ? "padding must be 0 with this layer of WebPushCrypto" : undefined
