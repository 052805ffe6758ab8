/** How fast a copy comes on, from what was seen of it lately. Pure: the clock is the caller's. */
import type { Progress } from './step.js'

export interface Sample {
  /** On a clock that never goes back, in milliseconds. */
  atMs: number
  doneBytes: number
}

/** Long enough for a checkpoint or a burst of others' work not to shake the figure, short enough to see a change. */
export const WINDOW_MS = 30_000
/** Of less, a rate says nothing. */
const SHORTEST_MS = 500

/**
 * The samples that count, oldest first, with the newest among them: those of the last half minute, and the one before
 * them, so that the window is whole. A copy that has begun anew leaves its past behind.
 */
export function recentSamples(samples: readonly Sample[], newest: Sample): Sample[] {
  const last = samples.at(-1)
  if (last && newest.doneBytes < last.doneBytes) return [newest]
  const inWindow = samples.findIndex(({ atMs }) => atMs > newest.atMs - WINDOW_MS)
  const from = inWindow === -1 ? samples.length - 1 : inWindow - 1
  return [...samples.slice(Math.max(0, from)), newest]
}

/** Rate over the whole of the samples, and what is left at that rate. Both absent where there is too little to go by. */
export function paceOf(
  samples: readonly Sample[],
  totalBytes: number | undefined,
): Pick<Progress, 'rateBytesPerSecond' | 'remainingSeconds'> {
  const [first] = samples
  const last = samples.at(-1)
  if (!first || !last || last.atMs - first.atMs < SHORTEST_MS) return {}
  const rate = ((last.doneBytes - first.doneBytes) * 1000) / (last.atMs - first.atMs)
  const leftBytes = totalBytes === undefined ? undefined : Math.max(0, totalBytes - last.doneBytes)
  return {
    rateBytesPerSecond: Math.round(rate),
    ...(leftBytes === undefined || (rate <= 0 && leftBytes > 0)
      ? {}
      : { remainingSeconds: leftBytes === 0 ? 0 : Math.ceil(leftBytes / rate) }),
  }
}
