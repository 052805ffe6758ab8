/**
 * Which of the lab's test files run. All of them take hours on two cores: those that guard data run every time, the others by
 * turns, another part each day. A file that is in no part runs every time.
 */
const PARTS: readonly (readonly string[])[] = [
  ['tls', 'adopt-witness', 'upgrade'],
  ['adopt-operations', 'drills'],
  ['single-steps', 'checks', 'lab'],
  ['settings', 'desired', 'access', 'promote-further', 'repmgrd'],
  ['rolling', 'status', 'switchover-obstacles'],
  ['archive', 'host-security', 'cancel-retry', 'cancel-sweep', 'rejoin-rungs'],
  ['packages', 'topology', 'follow', 'refusals', 'bullseye'],
]

const DAY_MS = 86_400_000

const nameOf = (file: string) => /([^/]+)\.test\.ts$/.exec(file)?.[1] ?? file

/** `files`: of the lab. `day`: since 1970. Returns those of this day, and those that wait for their turn. */
export function turnOf(files: readonly string[], day: number): { now: string[]; later: string[] } {
  const part = PARTS[day % PARTS.length] ?? []
  const waits = (file: string) => {
    const name = nameOf(file)
    return !part.includes(name) && PARTS.some(names => names.includes(name))
  }
  return { now: files.filter(file => !waits(file)), later: files.filter(waits) }
}

export const today = (): number => Math.floor(Date.now() / DAY_MS)
