import t from 'tap'
import { isMinorOf, type Offer, versionsForAll } from '../../src/cluster/upgrade.js'

const required = { server: 'postgresql-15', repmgr: 'postgresql-15-repmgr' }
const offer = (name: string, installed: string, ...versions: string[]): Offer => ({
  name,
  installed,
  candidate: versions[0] ?? installed,
  versions: versions.length > 0 ? versions : [installed],
})
const host = (installed: string, ...versions: string[]) => [
  offer('postgresql-15', installed, ...versions),
  offer('postgresql-client-15', installed, ...versions),
  offer('postgresql-15-repmgr', '5.3.3-2'),
]

t.test('the newest, one for all nodes, also where they have different ones now', async t => {
  const nodes = new Map([
    ['pg1', host('15.13-1', '15.14-1', '15.13-1')],
    ['pg2', host('15.14-1', '15.14-1', '15.13-1')],
  ])
  t.same(versionsForAll(nodes, required, {}), {
    versions: { 'postgresql-15': '15.14-1', 'postgresql-client-15': '15.14-1', 'postgresql-15-repmgr': '5.3.3-2' },
  })
})

t.test('a version that is named, also an older one', async t => {
  const nodes = new Map([['pg1', host('15.14-1', '15.14-1', '15.13-1')]])
  const verdict = versionsForAll(nodes, required, { postgresql: '15.13-1' })
  t.match(verdict, { versions: { 'postgresql-15': '15.13-1', 'postgresql-15-repmgr': '5.3.3-2' } })
})

t.test('what is built with the server, and cannot be had in that version, stays as it is', async t => {
  const nodes = new Map([['pg1', [...host('15.13-1', '15.14-1'), offer('libpq-dev', '15.13-1')]]])
  const verdict = versionsForAll(nodes, required, { postgresql: '15.14-1' })
  t.match(verdict, { versions: { 'postgresql-15': '15.14-1', 'libpq-dev': '15.13-1' } })
})

t.test('refused, with what each node has', async t => {
  const differ = new Map([
    ['pg1', host('15.13-1', '15.14-1')],
    ['pg2', host('15.13-1')],
  ])
  t.match(versionsForAll(differ, required, {}), {
    refused: [/^postgresql-15 would be 15\.14-1 on pg1, 15\.13-1 on pg2\.$/, /^postgresql-client-15/],
  })
  t.match(versionsForAll(differ, required, { postgresql: '15.14-1' }), {
    refused: [/^pg2 cannot have postgresql-15 15\.14-1: its sources have 15\.13-1\.$/],
  })
  t.match(versionsForAll(new Map([['pg1', []]]), required, {}), {
    refused: [/pg1 does not have postgresql-15\./, /repmgr/],
  })
})

t.test('another major version', async t => {
  t.ok(isMinorOf(15, '15.14-0+deb12u1'))
  t.ok(isMinorOf(15, '1:15~rc1'))
  t.notOk(isMinorOf(15, '16.3-1'))
  t.notOk(isMinorOf(15, '151.2'))
})
