import t from 'tap'
import {
  DataDirectoryNotEmpty,
  findPrimary,
  HostTaken,
  NotAStandby,
  PortTaken,
  PrimaryUnclear,
  refuseForeign,
} from '../../jobs/find-primary.js'
import { type Cluster, type ClusterNode, newCluster } from '../../src/cluster/model.js'
import type { Marker, ServerState } from '../../src/postgres/inspect.js'
import { debianLayout } from '../../src/postgres/layout.js'

const OURS = '7300000000000000001'
const THEIRS = '7300000000000000002'
const ssh = { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` }
const described = newCluster(
  {
    name: 'orders',
    postgresVersion: 15,
    nodes: ['pg1', 'pg2', 'pg3'].map((name, index) => ({ name, host: `10.0.0.${index + 1}`, ssh })),
  },
  '2026-03-01T12:00:00.000Z',
)
const built: Cluster = { ...described, systemIdentifier: OURS }
const layout = debianLayout(15)

const bare: ServerState = {
  packages: {},
  configured: false,
  directory: 'absent',
  marker: undefined,
  systemIdentifier: undefined,
  standbySignal: false,
  running: false,
  inRecovery: undefined,
  untouched: false,
  portTakenBy: undefined,
  everStarted: false,
  livesIn: undefined,
  otherClusters: [],
  foreignRepmgrConf: false,
  inForce: {},
}
type Found = Omit<Partial<ServerState>, 'marker'> & { marker?: Partial<Marker> }

/** What was found on a host, with a marker of the node's own unless it says otherwise. */
const on = (node: string, { marker, ...found }: Found = {}): ServerState => ({
  ...bare,
  ...found,
  marker: marker && { cluster: 'orders', node, state: 'in-use', ...marker },
})
const used: Found = { marker: {}, configured: true, directory: 'database', systemIdentifier: OURS }
const primary: Found = { ...used, running: true, inRecovery: false }
const standby: Found = { ...used, running: true, inRecovery: true, standbySignal: true }
const stoppedPrimary: Found = used
const stoppedStandby: Found = { ...used, standbySignal: true }
const state = (state: Marker['state']): Found => ({ ...used, marker: { state } })
const automatic: Found = { untouched: true, running: true, inRecovery: false, directory: 'database', configured: true }

interface Situation {
  cluster?: Cluster
  found: Record<string, Found>
  /** Nodes that did not answer. */
  absent?: string[]
  /** The primary, or who refuses and why. */
  is?: string
  refused?: [{ name: string }, RegExp]
}

const situations: Record<string, Situation> = {
  'bare hosts: the first is to become it': { cluster: described, found: {}, is: 'pg1' },
  'an empty directory, which may be a mount point': {
    cluster: described,
    found: { pg1: { directory: 'empty' } },
    is: 'pg1',
  },
  'the package’s own server, that nobody has used': { cluster: described, found: { pg2: automatic }, is: 'pg1' },
  'half made, fresh, and half a clone: none of them holds anything': {
    cluster: described,
    found: { pg1: state('creating'), pg2: state('created'), pg3: state('cloning') },
    is: 'pg1',
  },
  'made by us and started by somebody: it is in use, whatever the mark says': {
    cluster: described,
    found: { pg2: { ...primary, marker: { state: 'created' }, everStarted: true } },
    is: 'pg2',
  },
  'a mark of a server that somebody has removed, configuration and all': {
    cluster: described,
    found: { pg1: { marker: {} }, pg2: { marker: { cluster: 'billing' } } },
    is: 'pg1',
  },
  'a running primary, wherever it is': { found: { pg1: standby, pg2: primary, pg3: standby }, is: 'pg2' },
  'a running primary, and bare hosts': { found: { pg3: primary }, is: 'pg3' },
  'a running primary, and stopped standbys': { found: { pg1: primary, pg2: stoppedStandby, pg3: standby }, is: 'pg1' },
  'a running primary whose identifier was not recorded yet': {
    cluster: described,
    found: { pg1: primary, pg2: standby },
    is: 'pg1',
  },
  'a stopped primary: there is only one that it can be': { found: { pg1: stoppedPrimary, pg2: standby }, is: 'pg1' },
  'a stopped primary that is not the first': { found: { pg2: stoppedPrimary, pg3: stoppedStandby }, is: 'pg2' },
  'a primary, and a standby that does not answer': { found: { pg1: primary }, absent: ['pg2', 'pg3'], is: 'pg1' },
  'the standbys are on the primary’s timeline, or were stopped before it began': {
    found: {
      pg1: { ...primary, timeline: 3 },
      pg2: { ...standby, timeline: 3 },
      pg3: { ...stoppedStandby, timeline: 2 },
    },
    is: 'pg1',
  },
  'half a copy of a newer timeline holds nothing': {
    found: { pg1: { ...primary, timeline: 1 }, pg2: { ...state('cloning'), timeline: 2 } },
    is: 'pg1',
  },
  'a witness has timelines of its own': {
    cluster: {
      ...built,
      nodes: built.nodes.map(node => (node.name === 'pg3' ? { ...node, kind: 'witness' as const } : node)),
    },
    found: { pg1: { ...primary, timeline: 1 }, pg3: { ...primary, systemIdentifier: THEIRS, timeline: 7 } },
    is: 'pg1',
  },

  'an old primary still runs, and a standby has followed the new one, which does not answer': {
    found: { pg1: { ...primary, timeline: 1 }, pg3: { ...standby, timeline: 2 } },
    absent: ['pg2'],
    refused: [
      PrimaryUnclear,
      /^pg1 would be the primary, on timeline 1, and pg3 has seen timeline 2: another server was/,
    ],
  },
  'an old primary is stopped, a standby has followed the new one, and the host of that one is bare': {
    found: { pg1: { ...stoppedPrimary, timeline: 1 }, pg3: { ...stoppedStandby, timeline: 2 } },
    refused: [PrimaryUnclear, /^pg1 would be the primary, on timeline 1, and pg3 has seen timeline 2/],
  },
  'the one that was promoted is stopped, and the old primary runs': {
    found: { pg1: { ...primary, timeline: 1 }, pg2: { ...stoppedPrimary, timeline: 2 } },
    refused: [PrimaryUnclear, /^pg1 would be the primary, on timeline 1, and pg2 has seen timeline 2/],
  },
  'the primary’s timeline cannot be read, and the standby’s can': {
    found: { pg1: primary, pg2: { ...standby, timeline: 1 } },
    refused: [PrimaryUnclear, /^pg1 would be the primary, on timeline 0/],
  },
  'a newer timeline of another database cluster says nothing': {
    found: { pg1: { ...primary, timeline: 1 }, pg2: { ...standby, systemIdentifier: THEIRS, timeline: 9 } },
    refused: [NotAStandby, /^pg2 .*another database cluster/],
  },
  'two accept writes': {
    found: { pg1: primary, pg3: primary },
    refused: [PrimaryUnclear, /^pg1 and pg3 both accept writes/],
  },
  'two are stopped, and each would start as a primary': {
    found: { pg1: stoppedPrimary, pg2: stoppedPrimary },
    refused: [PrimaryUnclear, /^pg1 and pg2 are stopped, and each would start as a primary/],
  },
  'only standbys': {
    found: { pg1: standby, pg2: stoppedStandby },
    refused: [PrimaryUnclear, /^pg1 and pg2 are standbys, and no node is the primary/],
  },
  'one runs and does not answer: nobody says that it is a standby': {
    found: { pg1: { ...used, running: true }, pg2: standby },
    refused: [PrimaryUnclear, /^pg1 runs and may be the primary, but cannot be asked/],
  },
  'no primary among those that answer, and one that does not': {
    found: { pg2: standby, pg3: standby },
    absent: ['pg1'],
    refused: [PrimaryUnclear, /pg1 does not answer/],
  },
  'a stopped primary, and one that does not answer: that may be the newer one': {
    found: { pg1: stoppedPrimary, pg2: standby },
    absent: ['pg3'],
    refused: [PrimaryUnclear, /pg3 does not answer/],
  },
  'bare hosts, and one that does not answer': {
    found: {},
    absent: ['pg2'],
    refused: [PrimaryUnclear, /pg2 does not answer/],
  },
  'a former primary that was stopped beside the new one': {
    found: { pg1: stoppedPrimary, pg2: primary },
    refused: [NotAStandby, /^pg1 .*was a primary itself, and pg2 is the primary now.*rejoined/],
  },
  'a standby of another database cluster': {
    found: { pg1: primary, pg2: { ...standby, systemIdentifier: THEIRS } },
    refused: [NotAStandby, /^pg2 .*another database cluster/],
  },
  'a primary of another database cluster than the recorded one': {
    found: { pg1: { ...primary, systemIdentifier: THEIRS } },
    refused: [PrimaryUnclear, /^pg1 is a primary, but of another database cluster/],
  },
  'a stopped one of another database cluster than the recorded one': {
    found: { pg1: { ...stoppedPrimary, systemIdentifier: THEIRS }, pg2: standby },
    refused: [PrimaryUnclear, /^pg1 is a primary, but of another database cluster/],
  },
  'somebody’s database': {
    found: { pg2: { directory: 'database', configured: true, running: true, inRecovery: false } },
    refused: [DataDirectoryNotEmpty, /\/var\/lib\/postgresql\/15\/main on pg2 .*this service did not make/],
  },
  'somebody’s files': {
    found: { pg3: { directory: 'other' } },
    refused: [DataDirectoryNotEmpty, /on pg3 .*files of somebody else/],
  },
  'an empty directory that a server is configured for': {
    found: { pg1: { directory: 'empty', configured: true } },
    refused: [DataDirectoryNotEmpty, /on pg1/],
  },
  'a server of another cluster of ours': {
    found: { pg1: { ...primary, marker: { cluster: 'billing' } } },
    refused: [HostTaken, /belongs to node pg1 of cluster billing/],
  },
  'a server of another node of ours': {
    found: { pg1: { ...primary, marker: { node: 'pg9' } } },
    refused: [HostTaken, /belongs to node pg9 of cluster orders/],
  },
  'built before, and nobody holds the data: new ones are no answer': {
    found: {},
    refused: [PrimaryUnclear, /built before \(system identifier 7300000000000000001\), and no node holds its data/],
  },
  'the first holds half a copy, and nobody what it was copied from': {
    cluster: described,
    found: { pg1: state('cloning') },
    refused: [PrimaryUnclear, /^pg1 holds a copy that was cut short/],
  },
  'our server was here and its data are gone': {
    found: { pg1: primary, pg2: { marker: {}, configured: true, directory: 'empty' } },
    refused: [DataDirectoryNotEmpty, /on pg2 .*data are gone. Is a disk not mounted/],
  },
  'a configuration without its data': {
    found: { pg1: primary, pg2: { configured: true } },
    refused: [DataDirectoryNotEmpty, /on pg2 .*whose data are not there. Is a disk not mounted/],
  },
  'a configuration whose data are elsewhere': {
    found: { pg1: { configured: true, livesIn: '/srv/data' } },
    refused: [DataDirectoryNotEmpty, /on pg1 .*data are in \/srv\/data/],
  },
  'a host of another cluster of ours, at another version': {
    found: { pg1: primary, pg3: { otherClusters: ['billing'] } },
    refused: [HostTaken, /^pg3 serves something else already: a server of cluster billing/],
  },
  'a host that somebody else’s repmgr looks after': {
    found: { pg1: primary, pg2: { foreignRepmgrConf: true } },
    refused: [HostTaken, /^pg2 .*\/etc\/repmgr\.conf belongs to a repmgr cluster/],
  },
  'somebody else has the port': {
    found: { pg1: primary, pg2: { ...standby, portTakenBy: '14/main' } },
    refused: [PortTaken, /Port 5432 on pg2 belongs to another PostgreSQL server, 14\/main/],
  },
}

for (const [what, { cluster = built, found, absent = [], is, refused }] of Object.entries(situations)) {
  t.test(what, async t => {
    const bench = {
      cluster,
      layout,
      absent: new Map(absent.map(name => [name, `${name} cannot be reached.`])),
      found(node: ClusterNode) {
        // As the real bench: there is no survey of a host that did not answer.
        if (absent.includes(node.name)) throw new TypeError(`no survey of node ${node.name}`)
        return {
          system: {} as never,
          hardware: {} as never,
          packages: {} as never,
          server: on(node.name, found[node.name]),
        }
      },
    }
    if (is !== undefined) {
      t.equal(findPrimary(bench).name, is)
      return
    }
    let error: unknown
    try {
      findPrimary(bench)
    } catch (thrown) {
      error = thrown
    }
    const [type, message] = refused ?? []
    t.equal((error as Error | undefined)?.name, type?.name)
    t.match((error as Error).message, message ?? '')
    t.match(error, { outcome: 'not_started', remedy: /\w/ })
  })
}

t.test('no directory that holds something is taken for ours without our mark', async t => {
  const [node] = described.nodes as [ClusterNode]
  const booleans = [true, false]
  let allowed = 0
  for (const directory of ['absent', 'empty', 'database', 'other'] as const)
    for (const configured of booleans)
      for (const running of booleans)
        for (const untouched of booleans)
          for (const inRecovery of [true, false, undefined]) {
            const found = on('pg1', { directory, configured, running, untouched, inRecovery })
            const mayBeTaken = untouched || (!configured && (directory === 'absent' || directory === 'empty'))
            try {
              refuseForeign({ cluster: described, layout }, node, found)
              allowed += 1
              if (!mayBeTaken) t.fail(JSON.stringify(found))
            } catch (error) {
              if (mayBeTaken || !(error instanceof DataDirectoryNotEmpty || error instanceof HostTaken))
                t.fail(`${JSON.stringify(found)}: ${error}`)
            }
          }
  t.ok(allowed > 0)
})
