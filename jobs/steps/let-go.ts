/** What is left of a node that leaves the cluster and keeps its data; and what is said of one that does not answer. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { act, putFile } from '../../src/host/actions.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Check, Step } from '../../src/operations/step.js'
import { readMetadata } from '../../src/repmgr/metadata.js'
import type { Bench } from '../bench.js'
import { markerFile } from './data-directory.js'
import { askServer } from './local-sql.js'

/** Marked as what it is, so that nothing here takes it for a member again; and no boot starts it. */
export function keepAside(bench: Bench, node: ClusterNode): Step {
  const { layout, cluster } = bench
  const startConf = { path: layout.startConf, content: 'manual\n', owner: 'postgres:postgres', mode: '0644' }
  return {
    id: `${node.name}/keep-aside`,
    kind: 'change',
    title: 'mark its data as removed from the cluster, and keep them',
    node: node.name,
    actions: [
      putFile(bench.host(node), cluster.name, startConf),
      putFile(bench.host(node), cluster.name, markerFile(bench, node, 'removed')),
    ],
    async check({ signal }): Promise<Check> {
      const { marker } = await bench.inspect(node, signal)
      if (marker === undefined) return { done: true, note: 'there is nothing of it' }
      return marker.state === 'removed'
        ? { done: true, note: `its data stay in ${layout.dataDirectory}` }
        : { done: false, reason: `it is marked as ${marker.state}` }
    },
  }
}

/** Said in the journal, so that nobody has to guess what is on a host that could not be asked. */
export function tellWhatStays(bench: Bench, node: ClusterNode): Step {
  const { layout } = bench
  const what = `its server may still run there: ${layout.dataDirectory}, ${layout.configDirectory}, ${layout.repmgrConf}, ${layout.passFile} and /var/lib/understudy are as they were`
  return {
    id: `${node.name}/stays`,
    kind: 'verify',
    title: 'left as it is: it did not answer',
    node: node.name,
    actions: [
      act(`once ${node.name} is back, stop and drop its server there (pg_dropcluster --stop)`, async ({ note }) => {
        note(`${bench.absent.get(node.name)} On ${node.name} ${what}. Stop and drop it there, once it is back.`)
      }),
    ],
  }
}

/** The same of a member that did not answer. */
export const tellWhoStillKnows = (member: string, reason: string, gone: ClusterNode): Step => ({
  id: `${member}/absent`,
  kind: 'verify',
  title: `left out: it did not answer, and still lets ${gone.name} in`,
  node: member,
  actions: [
    act(`once ${member} is back, POST …/nodes/${member}/provision puts its files right`, async ({ note }) => {
      note(`${reason} Once it is back, POST …/nodes/${member}/provision puts its files right.`)
    }),
  ],
})

/** Thrown when a node was taken out, and something of it is still in the cluster. */
export class StillThere extends OperationError {
  constructor(node: string, what: string) {
    super(`${node} was taken out, and ${what}.`, {
      code: 'still-there',
      outcome: 'failed_partial',
      remedy: 'Somebody, or repmgrd, brought it back meanwhile. Repeat the call.',
    })
  }
}

export function proveGone(bench: Bench, primary: ClusterNode, gone: ClusterNode): Step {
  return {
    id: 'cluster/gone',
    kind: 'verify',
    title: `see that nothing of ${gone.name} is left on ${primary.name}`,
    actions: [
      act('look at its registration, its slot and its stream', async ({ signal, note }) => {
        const rows = (await bench.ask(primary, { signal }, readMetadata)) ?? []
        if (rows.some(({ nodeId }) => nodeId === gone.nodeId))
          throw new StillThere(gone.name, 'repmgr.nodes has it again')
        const left = await askServer(
          bench,
          primary,
          signal,
          `SELECT 'the slot ' || slot_name || ' is there again' FROM pg_replication_slots WHERE slot_name = '${slotName(gone.nodeId)}'
           UNION ALL SELECT 'it streams again' FROM pg_stat_replication WHERE application_name = '${gone.name}'`,
        )
        if (left !== '') throw new StillThere(gone.name, left.replaceAll('\n', ' and '))
        note('no registration, no slot, no stream')
      }),
    ],
  }
}
