import t from 'tap'
import { exampleStatus } from '../../src/api/examples.js'
import { fold, narrowTable } from '../../src/api/narrow-table.js'
import { statusText } from '../../src/api/status-text.js'
import type { ClusterStatus } from '../../src/cluster/status.js'

const widest = (text: string) => Math.max(...text.split('\n').map(line => line.length))

t.test('an ordinary cluster: one line a node, with what repmgr cluster show has', async t => {
  const text = statusText(exampleStatus)
  t.match(text, /^orders: healthy\. pg1 accepts writes and every standby follows\.\n\n/)
  t.match(text, /^ID +NODE +ROLE +STATE +UPSTREAM +TLI +LOCATION +PRIORITY +HOST$/m)
  t.match(text, /^2 +pg2 +standby +streaming +pg1 +1 +default +100 +192\.0\.2\.12$/m)
  t.match(text, /^pg2 +0\/5000148 +0\/5000148 +0 B +0 ms +async +streaming +0\.2 s ago +0$/m)
  t.match(text, /^pg1 +repmgr_slot_2 +pg2 +physical +active +0 B +reserved$/m)
  t.notMatch(text, /Evidence/, 'that all is well needs no proof at a terminal')
  t.ok(widest(text) <= 100)
})

t.test('long names stay within 100 columns, and nothing of them is lost', async t => {
  const long = (letter: string, length: number) => letter.repeat(length)
  const name = (at: number) => `${at === 0 ? 'a' : 'b'}${long('x', 61)}${at}`
  const words = `has ${name(1)} as a standby of nobody, and it streams from ${name(0)}`
  const problem = `${name(0)} is about to remove WAL that ${name(1)} needs: ${'a reason '.repeat(30)}end`
  const [first, second] = exampleStatus.nodes
  if (!first || !second) throw new Error('the example has two nodes')
  const status: ClusterStatus = {
    ...exampleStatus,
    cluster: long('c', 40),
    operation: 'op_01M83DE3RX34KCACNCF1K89WWJ',
    diagnosis: {
      code: 'primary_unreachable_from_here',
      detail: `${problem} ${long('z', 250)}`,
      evidence: [{ node: name(0), observed: problem, at: exampleStatus.observedAt }],
    },
    nodes: [first, second].map((node, at) => ({
      ...node,
      name: name(at),
      host: `${long('h', 250)}${at}.x`,
      location: long('l', 63),
      upstream: at === 0 ? null : name(0),
      timeline: 2_147_483_647,
      lsn: 'FFFFFFFF/FFFFFFFF',
      replayedLsn: 'FFFFFFFF/FFFFFFFF',
      lagBytes: 1_099_511_627_776,
      lagMs: 4_000_000_000,
      syncState: 'potential',
      slots: (first.slots ?? []).map(slot => ({
        ...slot,
        name: long('s', 63),
        node: name(1),
        walStatus: 'unreserved',
      })),
      metadata: { rows: [], disagreements: [words] },
      problem,
    })),
  }
  const text = statusText(status)
  t.ok(widest(text) <= 100, `${widest(text)} columns`)
  const told = text.replaceAll(/\s/g, '')
  for (const whole of [problem, words, long('z', 250), exampleStatus.observedAt])
    t.ok(told.includes(whole.replaceAll(' ', '')), whole)
  t.equal([...told].filter(letter => letter === 'l').length >= 126, true, 'both locations are there')
  t.equal([...told].filter(letter => letter === 'h').length >= 500, true, 'both hosts are there')
})

t.test('folding', async t => {
  t.equal(fold('one two three', 9, '  '), 'one two\n  three')
  t.equal(fold('  one two three', 9, '    '), '  one two\n    three')
  t.equal(fold('abcdefgh', 3), 'abc\ndef\ngh')
  t.equal(fold('', 9), '')
  t.equal(narrowTable(['A', 'B'], [['xxxxxx', 'yy']], 7), 'A    B\nxxx  yy\nxxx')
})
