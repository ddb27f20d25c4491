import { isPattern, shapeOf } from "../../internal/channel.js"

/** Who is present at this node, and how much of it Redis has not been told. */
export class Attendance {
  readonly id: string
  private readonly counts = new Map<string, number>()
  private untold = new Set<string>()

  constructor(id: string) {
    this.id = id
  }

  get isTold(): boolean {
    return this.untold.size === 0
  }

  set(channel: string, count: number): void {
    if (count === 0) this.counts.delete(channel)
    else this.counts.set(channel, count)
    this.untold.add(channel)
  }

  /** Where the wildcards of the patterns are. */
  shapes(): Set<string> {
    return new Set(Array.from(this.counts.keys()).filter(isPattern).map(shapeOf))
  }

  /** What has changed since it was last asked. */
  takeUntold(): Array<readonly [string, number]> {
    const untold = this.untold
    this.untold = new Set()
    return Array.from(untold, (channel) => [channel, this.counts.get(channel) ?? 0])
  }

  /** Redis knows nothing of it, or it is not known what: not even whether it was told last who has gone. */
  forget(told: ReadonlyArray<readonly [string, number]> = []): void {
    this.untold = new Set([...this.untold, ...told.map(([channel]) => channel), ...this.counts.keys()])
  }
}
