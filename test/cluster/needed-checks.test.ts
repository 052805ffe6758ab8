import t from 'tap'
import type { CheckResult } from '../../src/cluster/checks.js'
import { standsInTheWay } from '../../src/cluster/needed-checks.js'

const item = (edge: Partial<CheckResult>) => ({ verdict: 'failed', kind: 'ssh', ...edge }) as CheckResult

const cases: [title: string, item: CheckResult, way: boolean, source?: string][] = [
  ['the host itself', item({ kind: 'ssh', to: 'pg2' }), true],
  ['only a warning', item({ kind: 'clock', verdict: 'warning', to: 'pg2' }), false],
  ['its clock', item({ kind: 'clock', to: 'pg2' }), true],
  ['the clock of another', item({ kind: 'clock', to: 'pg3' }), false],
  ['no room for the data', item({ kind: 'disk', to: 'pg2' }), true],
  ['no room on another', item({ kind: 'disk', to: 'pg3' }), false],
  ['a name that it does not know', item({ kind: 'name_resolution', from: 'pg2', to: 'pg1' }), true],
  ['its name, which another does not know', item({ kind: 'name_resolution', from: 'pg1', to: 'pg2' }), true],
  ['names of others', item({ kind: 'name_resolution', from: 'pg1', to: 'pg3' }), false],
  ['repmgr differs somewhere', item({ kind: 'versions' }), true],
  ['an older PostgreSQL than the data are of', item({ kind: 'versions', to: 'pg2' }), true],
  ['that of another', item({ kind: 'versions', to: 'pg3' }), false],
  ['a server that does not run', item({ kind: 'server', to: 'pg1' }), false],
  ['a login between nodes, which is to be set up', item({ kind: 'ssh', from: 'pg2', to: 'pg1' }), false],
  ['a port that is to be opened', item({ kind: 'port', from: 'pg2', to: 'pg1' }), false],
  ['the port of the source', item({ kind: 'port', from: 'pg2', to: 'pg1' }), true, 'pg1'],
  ['the source lets it in no client', item({ kind: 'postgres_client', from: 'pg2', to: 'pg1' }), true, 'pg1'],
  ['nor replicate', item({ kind: 'postgres_replication', from: 'pg2', to: 'pg1' }), true, 'pg1'],
  ['the other way round', item({ kind: 'postgres_client', from: 'pg1', to: 'pg2' }), false, 'pg1'],
  ['this service is not let in', item({ kind: 'postgres_client', to: 'pg2' }), false, 'pg1'],
  ['sudo for repmgr', item({ kind: 'sudo', to: 'pg2' }), false],
  ['the archive', item({ kind: 'archive', to: 'pg1' }), false, 'pg1'],
]
for (const [title, found, way, source] of cases)
  t.test(title, async t => t.equal(standsInTheWay(found, ['pg2'], source), way))
