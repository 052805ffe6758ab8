/** Pauses begin, end and are told of: each change of a record and its event in the audit trail are one. */
import type { Cluster } from '../cluster/model.js'
import { announcedFrom, ownersOf, type Pause, pausedBy, pauseInForce, type WantedPause } from '../cluster/pause.js'
import type { ClusterStore } from './clusters.js'
import { type Asker, type EventType, THE_SERVICE } from './event.js'

/** Later than this, whoever reads the event should know that nobody saw it end. */
const LATE_MS = 60_000

/** Throws what `refuse` throws, of the very record that would be changed. Undefined: there is no such cluster. */
export async function pauseCluster(
  clusters: ClusterStore,
  name: string,
  wanted: WantedPause,
  { who, nowMs, refuse }: { who: Asker; nowMs: number; refuse(cluster: Cluster): void },
): Promise<Cluster | undefined> {
  return clusters.amend(name, cluster => {
    refuse(cluster)
    const before = pauseInForce(cluster, nowMs)
    const pause = pausedBy(cluster, wanted, nowMs)
    if (pause === before) return undefined
    const type = before ? 'cluster-pause-extended' : 'cluster-paused'
    return { cluster: { ...cluster, pause }, event: { type, who, detail: `until ${pause.until} ${about(pause)}` } }
  })
}

export async function resumeCluster(
  clusters: ClusterStore,
  name: string,
  {
    who,
    nowMs,
    reference,
    refuse,
  }: { who: Asker; nowMs: number; reference?: string | undefined; refuse(cluster: Cluster): void },
): Promise<Cluster | undefined> {
  return clusters.amend(name, cluster => {
    refuse(cluster)
    const pause = pauseInForce(cluster, nowMs)
    // One that has run out is told of as such.
    if (!pause) return undefined
    const { pause: _ended, ...rest } = cluster
    const asked = reference === undefined ? '' : ` (${reference})`
    return { cluster: rest, event: { type: 'cluster-resumed', who, detail: `${asked}. ${whose(pause)}` } }
  })
}

export interface PauseNews {
  cluster: string
  type: EventType
  pause: Pause
}

/** Ends what has run out, and announces what is about to. Of several processes exactly one tells of each. */
export async function attendPauses(clusters: ClusterStore, nowMs: () => number): Promise<PauseNews[]> {
  const news: PauseNews[] = []
  for (const { name, pause: known } of await clusters.list()) {
    if (!known) continue
    let told: PauseNews | undefined
    const amended = await clusters.amend(name, cluster => {
      const { pause, ...rest } = cluster
      told = undefined
      if (!pause) return undefined
      if (!pauseInForce(cluster, nowMs())) {
        told = { cluster: name, type: 'cluster-pause-expired', pause }
        return { cluster: rest, event: { type: told.type, who: THE_SERVICE, detail: expired(pause, nowMs()) } }
      }
      if (pause.announcedAt !== undefined || nowMs() < announcedFrom(pause)) return undefined
      told = { cluster: name, type: 'cluster-pause-ending', pause }
      const announcedAt = new Date(nowMs()).toISOString()
      return {
        cluster: { ...rest, pause: { ...pause, announcedAt } },
        event: { type: told.type, who: THE_SERVICE, detail: `at ${pause.until} ${about(pause)}` },
      }
    })
    if (amended && told) news.push(told)
  }
  return news
}

const about = ({ reason, reference }: Pause) => `(${reason}${reference === undefined ? '' : `; ${reference}`})`
const whose = (pause: Pause) => `It was asked for by ${ownersOf(pause)} at ${pause.since} ${about(pause)}.`

function expired(pause: Pause, nowMs: number): string {
  const lateMs = nowMs - Date.parse(pause.until)
  const late =
    lateMs > LATE_MS
      ? ` That is told ${Math.round(lateMs / 60_000)} min later: no process of this service saw it end.`
      : ''
  return `${pause.until}.${late} ${whose(pause)}`
}
