import t from 'tap'
import { endingCertificate, movedPackages } from '../../src/cluster/drift.js'

const OLD = '15.14-0+deb12u1'
const NEW = '15.15-0+deb12u1'

t.test('a package that was moved since an operation last looked', async t => {
  const node = { name: 'pg2', installed: { 'postgresql-15': OLD, 'postgresql-15-repmgr': '5.3.3-2' } }
  const wanted = [{ name: 'postgresql-15' }, { name: 'postgresql-15-repmgr' }]
  const now = { 'postgresql-15': NEW, 'postgresql-15-repmgr': '5.3.3-2' }
  t.match(movedPackages(node, wanted, now), [
    {
      kind: 'package',
      node: 'pg2',
      detail: `postgresql-15 was ${OLD} when an operation last looked, and is ${NEW} now.`,
      remedy: /^If that was meant, PUT the description .* old program until it is restarted\.$/,
    },
  ])
  t.same(movedPackages(node, wanted, node.installed), [], 'nothing was moved')
  t.same(movedPackages({ name: 'pg2' }, wanted, now), [], 'no operation has looked')
  t.same(
    movedPackages(node, wanted, { 'postgresql-15-repmgr': '5.3.3-2' }),
    [],
    'one that is not there is a step’s to install',
  )
})

t.test('a version that is named counts before the one that was seen', async t => {
  const node = { name: 'pg2', installed: { 'postgresql-15': OLD } }
  const wanted = [{ name: 'postgresql-15', version: OLD }]
  t.match(movedPackages(node, wanted, { 'postgresql-15': NEW }), [
    { kind: 'package', detail: `postgresql-15 is ${NEW}, and the description says ${OLD}.` },
  ])
  t.equal(movedPackages(node, wanted, { 'postgresql-15': NEW }).length, 1, 'and is told of once')
  t.same(movedPackages(node, wanted, { 'postgresql-15': OLD }), [])
})

t.test('a certificate that somebody else makes, before its end', async t => {
  const at = '2026-12-01T00:00:00.000Z'
  for (const [days, told] of [
    [-1, false],
    [0, true],
    [29, true],
    [30, false],
  ] as const)
    t.equal(endingCertificate({ name: 'pg1' }, { days, at }).length, told ? 1 : 0, `${days} days`)
  t.same(endingCertificate({ name: 'pg1' }, undefined), [])
  t.match(endingCertificate({ name: 'pg1' }, { days: 9, at }), [
    { kind: 'certificate', node: 'pg1', detail: /ends in 9 days, at 2026-12-01/, remedy: /nodes\/pg1\/provision/ },
  ])
})
