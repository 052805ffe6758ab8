import t from 'tap'
import { parseLsn } from '../../src/cluster/lsn.js'
import { type Comeback, chooseRung, costsCommits, type Loss, type Rung, tellLoss } from '../../src/cluster/rejoin.js'

const loss: Loss = {
  timeline: 2,
  switchLsn: parseLsn('0/4020858'),
  lastLsn: parseLsn('0/4020998'),
  records: 5,
  commits: 2,
  firstCommitAt: '2026-11-25 03:41:16.797382',
  lastCommitAt: '2026-11-25 03:41:16.835721',
  relations: [{ name: 'orders.public.ledger', records: 2 }],
  complete: true,
}
const clean: Comeback = {
  copy: 'used',
  shutDown: true,
  ambiguous: false,
  loss: undefined,
  walThere: true,
  archive: false,
  rewindRefused: undefined,
}

const table: [string, Partial<Comeback>, Rung, RegExp][] = [
  ['stopped before the promotion', {}, 'follow', /part of the primary’s$/],
  ['crashed', { shutDown: false }, 'recover', /crashed/],
  ['crashed, with writes of its own', { shutDown: false, loss }, 'recover', /crashed/],
  ['writes of its own', { loss }, 'rewind', /parts from the primary’s at 0\/4020858/],
  ['fell behind', { walThere: false }, 'clone', /fell behind/],
  ['fell behind, with an archive', { walThere: false, archive: true }, 'follow', /from the archive/],
  ['fell behind, and has writes of its own', { walThere: false, loss }, 'rewind', /parts from/],
  [
    'pg_rewind refuses',
    { loss, rewindRefused: 'could not find WAL' },
    'clone',
    /cannot be rewound: could not find WAL/,
  ],
  ['a primary under the same number', { ambiguous: true, loss }, 'clone', /two histories have one number/],
  ['the same, crashed', { ambiguous: true, shutDown: false, loss }, 'clone', /two histories have one number/],
  ['no copy', { copy: 'none' }, 'clone', /holds no copy/],
  ['half a clone, or half a rewind', { copy: 'cut-short', shutDown: false }, 'clone', /not whole/],
  ['just rewound, or just cloned', { copy: 'fresh' }, 'follow', /just made/],
]
for (const [title, found, rung, why] of table) {
  t.test(title, async t => {
    const chosen = chooseRung({ ...clean, ...found }, 'auto')
    t.equal(chosen.rung, rung)
    t.match(chosen.why, why)
    t.same(chooseRung({ ...clean, ...found }, 'rewind'), chosen, 'to be refused by who allows only a rewind')
    const asked = chooseRung({ ...clean, ...found }, 'clone').rung
    t.equal(asked, found.copy === 'fresh' ? 'follow' : 'clone', 'where a new clone is asked for')
  })
}

t.test('what has to be confirmed, and how it is told', async t => {
  t.ok(costsCommits(loss))
  t.notOk(costsCommits({ ...loss, commits: 0 }), 'checkpoints and the like are nobody’s loss')
  t.ok(costsCommits({ ...loss, commits: 0, complete: false }), 'nobody can say')
  t.equal(
    tellLoss(loss),
    '2 committed transactions from 2026-11-25 03:41:16.797382 to 2026-11-25 03:41:16.835721 in orders.public.ledger (5 WAL records after 0/4020858 of timeline 2, up to 0/4020998)',
  )
  const { lastLsn: _last, firstCommitAt: _first, lastCommitAt: _late, ...nothing } = loss
  t.equal(
    tellLoss({ ...nothing, commits: 0, records: 0, relations: [], complete: false }),
    'at least 0 committed transactions (0 WAL records after 0/4020858 of timeline 2)',
  )
  t.match(tellLoss({ ...loss, commits: 1 }), /^1 committed transaction of 2026-11-25 03:41:16\.797382 in/)
})
