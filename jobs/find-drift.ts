/** Looks at everything that an operation would make of a cluster, and says what of it is not so. Changes nothing. */
import { type Drift, type DriftItem, endingCertificate, movedPackages } from '../src/cluster/drift.js'
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import { tlsOf } from '../src/cluster/tls.js'
import { OperationError } from '../src/operations/errors.js'
import type { CheckContext, Step } from '../src/operations/step.js'
import { wantedPackages } from '../src/postgres/packages.js'
import { readMetadata } from '../src/repmgr/metadata.js'
import { makePassword, nextRepmgrPassword, repmgrPassword } from '../src/store/secrets.js'
import { withAcceptedPassword } from './accepted-password.js'
import { type Bench, openBench, withoutOwnAddress } from './bench.js'
import { planCluster } from './bootstrap-cluster.js'
import { findPrimary } from './find-primary.js'
import { openTls } from './open-tls.js'
import type { PlanContext } from './plan-operation.js'
import { endOfCertificate } from './steps/tls-files.js'

const LOOK_AGAIN = 'Nobody could look. Ask again once it answers.'

export async function findDrift(
  { store, pool, controllers = [], worker = true }: PlanContext,
  cluster: Cluster,
  signal: AbortSignal,
): Promise<Drift> {
  // Nothing is written: where there is no password yet, any will do, and the server says that it is another one.
  const password = (await store.secrets.get(repmgrPassword(cluster.name))) ?? makePassword()
  const surveyed = await openBench(
    cluster,
    password,
    pool,
    () => true,
    signal,
    await openTls(store.secrets, cluster, cluster, false),
    controllers,
  )
  const opened = worker ? surveyed : withoutOwnAddress(surveyed, controllers)
  const bench = await withAcceptedPassword(opened, await store.secrets.get(nextRepmgrPassword(cluster.name)), signal)
  const away = [...bench.absent].map(
    ([node, detail]): DriftItem => ({ kind: 'unreachable', node, detail, remedy: LOOK_AGAIN }),
  )
  const { items, checkedSteps } = await compare(bench, { signal, log: () => undefined })
  const all = [...away, ...items, ...packageDrift(bench), ...(await certificateDrift(bench, signal))]
  return {
    cluster: cluster.name,
    inSync: all.length === 0,
    items: all,
    checkedSteps,
    observedAt: new Date().toISOString(),
  }
}

/** Runs the check of every step that would build the cluster as it is described. */
async function compare(bench: Bench, context: CheckContext): Promise<Pick<Drift, 'items' | 'checkedSteps'>> {
  try {
    const plan = planCluster(bench)
    const tracks = plan.flatMap(stage => stage.tracks)
    const found = (await Promise.all(tracks.map(track => checkTrack(track, context)))).flat()
    return {
      items: [...found, ...(await strangers(bench, findPrimary(bench), context.signal))],
      checkedSteps: tracks.flat().filter(({ kind }) => kind === 'change').length,
    }
  } catch (error) {
    if (!(error instanceof OperationError)) throw error
    return { items: [{ kind: 'undecided', detail: error.message, remedy: error.remedy }], checkedSteps: 0 }
  }
}

/** Of one node, in order: what cannot be answered because something before it is not so, is no drift of its own. */
async function checkTrack(track: readonly Step[], context: CheckContext): Promise<DriftItem[]> {
  const items: DriftItem[] = []
  for (const step of track) {
    if (step.kind === 'verify') continue
    const place = { step: step.id, ...(step.node === undefined ? {} : { node: step.node }) }
    try {
      const found = await step.check(context)
      if (found.done) continue
      items.push({
        kind: 'changed',
        ...place,
        detail: `"${step.title}" is not so: ${found.reason}.`,
        remedy: 'PUT the description of the cluster puts it right; with ?dryRun=true it shows how.',
      })
    } catch (error) {
      if (!(error instanceof OperationError)) throw error
      if (items.length > 0) continue
      items.push({ kind: 'undecided', ...place, detail: error.message, remedy: error.remedy })
    }
  }
  return items
}

/** Rows of repmgr.nodes that the record does not know. */
async function strangers(bench: Bench, primary: ClusterNode, signal: AbortSignal): Promise<DriftItem[]> {
  if (bench.absent.has(primary.name) || !bench.found(primary).server.running) return []
  try {
    const rows = (await bench.ask(primary, { signal }, readMetadata)) ?? []
    return rows
      .filter(row => !bench.cluster.nodes.some(({ nodeId }) => nodeId === row.nodeId))
      .map(row => ({
        kind: 'metadata',
        detail: `repmgr.nodes has a ${row.type} ${row.name} (node ${row.nodeId}) that the record of ${bench.cluster.name} does not have.`,
        remedy: `If it is no node of this cluster any more: repmgr ${row.type} unregister --node-id=${row.nodeId}. If it is one, describe it.`,
      }))
  } catch (error) {
    // That the service is not let in has an item of its own.
    if (error instanceof OperationError) return []
    throw error
  }
}

/** The versions that are named, and otherwise those that an operation saw last, against those that are installed now. */
function packageDrift(bench: Bench): DriftItem[] {
  const present = bench.cluster.nodes.filter(({ name }) => !bench.absent.has(name))
  const wanted = wantedPackages(bench.layout, bench.cluster.packages).filter(({ name }) =>
    bench.layout.packages.includes(name),
  )
  return present.flatMap(node => movedPackages(node, wanted, bench.found(node).server.packages))
}

/** One of our own is made anew by its step, which is drift then. Of another one it can only be said. */
async function certificateDrift(bench: Bench, signal: AbortSignal): Promise<DriftItem[]> {
  if (tlsOf(bench.cluster).mode !== 'files') return []
  const present = bench.cluster.nodes.filter(({ name }) => !bench.absent.has(name))
  const found = await Promise.all(
    present.map(async (node): Promise<DriftItem[]> => {
      const end = await endOfCertificate(bench, node, signal)
      return endingCertificate(node, end)
    }),
  )
  return found.flat()
}
