/** Whom a server that is stopped streams from once it is started: in its postgresql.auto.conf. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { act, changing } from '../../src/host/actions.js'
import { readFile, writeFile } from '../../src/host/files.js'
import type { ChangeStep, Check } from '../../src/operations/step.js'
import { withSettings } from '../../src/postgres/auto-conf.js'
import type { Bench } from '../bench.js'
import { streamConninfo } from './stream-source.js'

/** A rewound copy has the primary's own file, which names whom the primary once streamed from: as a rule, the node itself. */
export function tellSource(bench: Bench, node: ClusterNode, upstream: ClusterNode): ChangeStep {
  const { layout, cluster } = bench
  const path = `${layout.dataDirectory}/postgresql.auto.conf`
  const host = bench.host(node)
  const wanted = {
    primary_conninfo: streamConninfo(bench, node, upstream),
    primary_slot_name: slotName(node.nodeId),
  }
  return {
    id: `${node.name}/source`,
    kind: 'change',
    title: `let it stream from ${upstream.name}`,
    node: node.name,
    actions: [
      act(`set primary_conninfo and primary_slot_name in ${path}`, async ({ epoch, signal }) => {
        const found = (await readFile(host, path, { signal })) ?? ''
        await writeFile(
          changing(host, cluster.name, epoch),
          { path, content: withSettings(found, wanted), owner: 'postgres:postgres', mode: '0600' },
          { signal },
        )
      }),
    ],
    async check({ signal }): Promise<Check> {
      if ((await bench.inspect(node, signal)).running) return { done: true, note: 'it runs' }
      const found = await readFile(host, path, { signal })
      return found !== undefined && withSettings(found, wanted) === found
        ? { done: true }
        : { done: false, reason: 'it is told something else, or nothing' }
    },
  }
}
