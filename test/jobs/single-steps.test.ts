/** What each single step plans, or refuses, in each state of the hosts. Nothing is connected to. */
import t from 'tap'
import type { Bench } from '../../jobs/bench.js'
import { cloneNode } from '../../jobs/clone-node.js'
import { destroyCluster } from '../../jobs/destroy-cluster.js'
import { followNode } from '../../jobs/follow-node.js'
import { provisionNode } from '../../jobs/provision-node.js'
import { registerNode } from '../../jobs/register-node.js'
import { removeNode } from '../../jobs/remove-node.js'
import { restartNode } from '../../jobs/restart-node.js'
import { startNode } from '../../jobs/start-node.js'
import { stopNode } from '../../jobs/stop-node.js'
import { unregisterNode } from '../../jobs/unregister-node.js'
import type { Plan } from '../../src/operations/step.js'
import { stepsOf } from '../../src/operations/step.js'
import type { Found } from './fixtures/bench.js'
import {
  bare,
  benchOf,
  crashedClone,
  created,
  primary,
  standby,
  stopped,
  wholeCopy,
  witness,
} from './fixtures/bench.js'

const PLANS: Record<string, (bench: Bench, input: { node: string; confirm?: string; wipe?: boolean }) => Plan> = {
  remove: removeNode.plan,
  wipe: (bench, input) => removeNode.plan(bench, { ...input, wipe: true }),
  destroy: bench => destroyCluster.plan(bench, { confirm: 'orders' }),
  abandon: bench => destroyCluster.plan(bench, { confirm: 'orders', leaveUnreachable: true }),
  provision: provisionNode.plan,
  clone: cloneNode.plan,
  start: startNode.plan,
  stop: stopNode.plan,
  restart: restartNode.plan,
  register: registerNode.plan,
  unregister: unregisterNode.plan,
  follow: followNode.plan,
  'follow-pg3': (bench, input) => {
    const wanted = { ...input, upstream: 'pg3' }
    return followNode.plan({ ...bench, cluster: followNode.target(bench.cluster, wanted) }, wanted)
  },
}

const CREATED_STANDBY = { pg1: primary, pg2: created }
const RUNNING = { pg1: primary, pg2: standby }

const OLD_PRIMARY: Found = { ...primary, timeline: 1 }
/** The one that was promoted, pg3, does not answer. */
const FOLLOWED_ANOTHER: Found = { ...standby, timeline: 2 }

const WIPED = ['pg2/archive-removal', 'pg2/ssh-removal', 'pg2/wipe', 'pg2/close-firewall', 'pg2/traces']
/** What the others forget of pg2, and how it is seen that they have. */
const OUT = ['pg2/unregister', 'pg1/access', 'pg1/firewall', 'pg1/pass-file']
const GONE = ['pg1/drop-slot-of-pg2', 'cluster/gone']
/** What an adopted node gets before repmgr is run there. */
const READY = (node: string) => [`${node}/take-over`, `${node}/repmgr-passwords`, `${node}/repmgr-conf`]
const MOVED = ['pg2/thaw', 'pg2/upstream', 'pg2/follow', 'pg2/register', 'pg2/former-slots']
const ERASE = (node: string) =>
  ['stop', 'stopped', 'archive-removal', 'ssh-removal', 'wipe', 'close-firewall', 'traces'].map(
    step => `${node}/${step}`,
  )

const situations: [
  call: string,
  title: string,
  found: Record<string, Found>,
  expected: readonly string[] | RegExp,
  more?: { confirm?: string; absent?: string[]; unbuilt?: true; adopted?: true },
][] = [
  [
    'provision pg2',
    'a bare host',
    { pg1: primary, pg2: bare },
    ['cluster/checks', 'pg2/no-automatic-server', 'pg2/packages', '…'],
  ],
  [
    'provision pg2',
    'while the primary is away',
    { pg2: bare },
    ['cluster/checks', 'pg2/no-automatic-server', '…'],
    { absent: ['pg1'] },
  ],
  [
    'provision pg2',
    'of somebody else',
    { pg2: { directory: 'database', configured: true } },
    /^data-directory-not-empty/,
  ],

  [
    'start pg1',
    'a bare host',
    {},
    /^step-out-of-order: pg1 has no server .* First: POST .*pg1\/provision\.$/,
    { unbuilt: true },
  ],
  [
    'start pg1',
    'the first of a new cluster',
    { pg1: created, pg2: bare },
    ['pg1/start', 'pg1/repmgr-role', 'pg1/repmgr-database'],
    { unbuilt: true },
  ],
  [
    'start pg2',
    'that is not the first',
    { pg1: created, pg2: created },
    /^step-out-of-order: pg2 holds no copy of pg1, which is to be .* First: POST .*pg1\/start, then POST .*pg1\/register, then POST .*pg2\/clone\.$/,
    { unbuilt: true },
  ],
  [
    'start pg2',
    'with nothing but a fresh server',
    CREATED_STANDBY,
    /^step-out-of-order: pg2 holds no copy of pg1, the primary\. First: POST .*pg2\/clone\.$/,
  ],
  ['start pg2', 'with half a clone', { pg1: primary, pg2: crashedClone }, /^step-out-of-order: pg2 holds no copy/],
  ['start pg2', 'with a whole copy', { pg1: primary, pg2: wholeCopy }, ['pg2/start', 'pg2/follow']],
  [
    'start pg2',
    'a standby while the primary is stopped',
    { pg1: stopped(primary), pg2: stopped(standby) },
    ['pg2/start'],
  ],
  ['start pg2', 'a standby while the primary is away', { pg2: stopped(standby) }, ['pg2/start'], { absent: ['pg1'] }],
  [
    'start pg2',
    'of another database',
    { pg1: primary, pg2: { ...stopped(standby), systemIdentifier: '1' } },
    /^not-a-standby/,
  ],
  [
    'start pg1',
    'the primary that was stopped',
    { pg1: stopped(primary), pg2: standby },
    ['pg1/start', 'pg1/repmgr-role', 'pg1/repmgr-database'],
  ],
  [
    'start pg1',
    'the primary that was stopped, where the other has followed a newer one since, whatever is confirmed',
    { pg1: { ...stopped(primary), timeline: 1 }, pg2: FOLLOWED_ANOTHER },
    /^primary-unclear: pg1 would be the primary, on timeline 1, and pg2 has seen timeline 2/,
    { absent: ['pg3'], confirm: 'pg1' },
  ],
  ['start pg1', 'an old primary, where there is a new one', { pg1: stopped(primary), pg2: primary }, /^not-a-standby/],
  [
    'start pg1',
    'the primary, and nobody knows what the other does',
    { pg1: stopped(primary) },
    /^confirmation-required: pg2 does not answer\. If it became the primary/,
    { absent: ['pg2'] },
  ],
  [
    'start pg1',
    'the primary, and somebody knows',
    { pg1: stopped(primary) },
    ['pg1/start', 'pg1/repmgr-role', 'pg1/repmgr-database'],
    { absent: ['pg2'], confirm: 'pg1' },
  ],
  [
    'start pg1',
    'confirmed, but another one accepts writes',
    { pg1: stopped(primary), pg2: primary },
    /^not-a-standby/,
    { absent: ['pg3'], confirm: 'pg1' },
  ],

  ['stop pg1', 'the primary', RUNNING, /^confirmation-required: pg1 is the primary/],
  ['stop pg1', 'the primary, and it is meant', RUNNING, ['pg1/hold', 'pg1/stop', 'pg1/stopped'], { confirm: 'pg1' }],
  [
    'stop pg1',
    'one that does not say what it is',
    { pg1: { ...primary, inRecovery: undefined } },
    /^confirmation-required/,
  ],
  ['stop pg2', 'a standby', RUNNING, ['pg2/hold', 'pg2/stop', 'pg2/stopped']],
  [
    'stop pg2',
    'a standby that replays and does not answer',
    { pg2: { ...standby, inRecovery: undefined } },
    ['pg2/hold', 'pg2/stop', 'pg2/stopped'],
  ],
  ['stop pg1', 'what is stopped', { pg1: stopped(primary) }, ['pg1/hold', 'pg1/stop', 'pg1/stopped']],
  ['stop pg1', 'a bare host', {}, /^step-out-of-order/],

  ['restart pg1', 'the primary', RUNNING, /^confirmation-required/],
  ['restart pg1', 'the primary, and it is meant', RUNNING, ['pg1/restart'], { confirm: 'pg1' }],
  ['restart pg2', 'a standby', RUNNING, ['pg2/restart', 'pg2/follow']],
  ['restart pg2', 'a standby without its primary', { pg2: standby }, ['pg2/restart'], { absent: ['pg1'] }],
  [
    'restart pg2',
    'what is stopped',
    { pg1: primary, pg2: stopped(standby) },
    /^step-out-of-order: PostgreSQL on pg2 does not run\. First: POST .*pg2\/start\.$/,
  ],

  ['clone pg2', 'a bare host', { pg1: primary }, /^step-out-of-order: pg2 has no server/],
  ['clone pg2', 'a fresh server', CREATED_STANDBY, ['cluster/checks', 'pg2/clone']],
  ['clone pg2', 'half a clone', { pg1: primary, pg2: crashedClone }, ['cluster/checks', 'pg2/clone']],
  [
    'clone pg2',
    'a whole copy that was never started',
    { pg1: primary, pg2: wholeCopy },
    ['cluster/checks', 'pg2/clone'],
  ],
  [
    'clone pg2',
    'a whole copy that was never started, confirmed',
    { pg1: primary, pg2: wholeCopy },
    ['cluster/checks', 'pg2/clone'],
    { confirm: 'pg2' },
  ],
  [
    'clone pg2',
    'before there is a primary',
    { pg1: created, pg2: created },
    /^step-out-of-order: pg1, the primary, does not run.* First: POST .*pg1\/start, then POST .*pg1\/register\.$/,
    { unbuilt: true },
  ],
  [
    'clone pg2',
    'while the primary is stopped',
    { pg1: stopped(primary), pg2: created },
    /^step-out-of-order: pg1, the primary, does not run/,
  ],
  ['clone pg1', 'the primary', RUNNING, /^node-is-primary/],
  ['clone pg1', 'the primary, whatever is confirmed', RUNNING, /^node-is-primary/, { confirm: 'pg1' }],
  [
    'clone pg1',
    'a stopped primary, whatever is confirmed',
    { pg1: stopped(primary), pg2: standby },
    /^node-is-primary/,
    { confirm: 'pg1' },
  ],
  ['clone pg2', 'a running standby', RUNNING, /^confirmation-required: pg2 is a standby that runs/],
  [
    'clone pg2',
    'a stopped standby',
    { pg1: primary, pg2: stopped(standby) },
    /^confirmation-required: pg2 is a standby that was used/,
  ],
  [
    'clone pg2',
    'a running standby, and it is meant',
    RUNNING,
    ['cluster/checks', 'pg2/stop', 'pg2/stopped', 'pg2/give-up-copy', 'pg2/clone'],
    { confirm: 'pg2' },
  ],
  [
    'clone pg2',
    'an old primary, whatever is confirmed',
    { pg1: primary, pg2: stopped(primary) },
    /^not-a-standby/,
    { confirm: 'pg2' },
  ],
  [
    'clone pg2',
    'another database, whatever is confirmed',
    { pg1: primary, pg2: { ...standby, systemIdentifier: '1' } },
    /^not-a-standby/,
    { confirm: 'pg2' },
  ],
  ['clone pg2', 'while the primary is away', { pg2: standby }, /^primary-unclear/, { absent: ['pg1'], confirm: 'pg2' }],

  [
    'register pg1',
    'before it runs',
    { pg1: created },
    /^step-out-of-order: PostgreSQL on pg1 does not run/,
    { unbuilt: true },
  ],
  ['register pg1', 'the primary', RUNNING, ['pg1/register']],
  ['register pg2', 'a standby', RUNNING, ['pg2/follow', 'pg2/register']],
  [
    'register pg2',
    'before it is started',
    { pg1: primary, pg2: wholeCopy },
    /^step-out-of-order: PostgreSQL on pg2 does not run/,
  ],
  ['unregister pg2', 'a standby', RUNNING, ['pg2/unregister']],
  ['unregister pg2', 'a dead standby', { pg1: primary }, ['pg2/unregister'], { absent: ['pg2'] }],
  ['unregister pg1', 'the primary', RUNNING, /^node-is-primary/],
  ['remove pg1', 'the primary', RUNNING, /^node-is-primary/],
  ['wipe pg1', 'the primary, whatever is confirmed', RUNNING, /^node-is-primary/, { confirm: 'pg1' }],
  [
    'clone pg2',
    'a standby that has followed a newer primary, whatever is confirmed',
    { pg1: OLD_PRIMARY, pg2: FOLLOWED_ANOTHER },
    /^primary-unclear: pg1 would be the primary, on timeline 1, and pg2 has seen timeline 2/,
    { absent: ['pg3'], confirm: 'pg2' },
  ],
  [
    'wipe pg2',
    'a standby that has followed a newer primary, whatever is confirmed',
    { pg1: OLD_PRIMARY, pg2: FOLLOWED_ANOTHER },
    /^primary-unclear: pg1 would be the primary, on timeline 1, and pg2 has seen timeline 2/,
    { absent: ['pg3'], confirm: 'pg2' },
  ],
  [
    'remove pg2',
    'a standby that has followed a newer primary: its data stay',
    { pg1: OLD_PRIMARY, pg2: FOLLOWED_ANOTHER },
    [...OUT, 'pg3/absent', 'pg2/stop', 'pg2/stopped', ...GONE, 'pg2/keep-aside'],
    { absent: ['pg3'] },
  ],
  ['remove pg1', 'the primary that is stopped', { pg1: stopped(primary), pg2: standby }, /^node-is-primary/],
  ['remove pg2', 'a living standby', RUNNING, [...OUT, 'pg2/stop', 'pg2/stopped', ...GONE, 'pg2/keep-aside']],
  ['remove pg2', 'a dead standby', { pg1: primary }, [...OUT, ...GONE, 'pg2/stays'], { absent: ['pg2'] }],
  [
    'remove pg2',
    'while a third does not answer',
    RUNNING,
    [...OUT, 'pg3/absent', 'pg2/stop', 'pg2/stopped', ...GONE, 'pg2/keep-aside'],
    { absent: ['pg3'] },
  ],
  ['remove pg2', 'while the primary does not answer', { pg2: standby }, /^primary-unclear/, { absent: ['pg1'] }],
  ['remove pg2', 'while the primary is stopped', { pg1: stopped(primary), pg2: standby }, /^step-out-of-order/],
  [
    'remove pg2',
    'an old primary',
    { pg1: primary, pg2: stopped(primary) },
    [...OUT, 'pg2/stop', 'pg2/stopped', ...GONE, 'pg2/keep-aside'],
  ],
  ['remove pg2', 'one that accepts writes beside the primary', { pg1: primary, pg2: primary }, /^node-is-primary/],
  ['remove pg2', 'that was only described', { pg1: primary, pg2: bare }, [...OUT, ...GONE]],
  ['remove pg2', 'of a cluster that was only described', {}, [], { unbuilt: true }],
  ['wipe pg2', 'without a confirmation', RUNNING, /^confirmation-required: Wiping removes the data of pg2/],
  ['wipe pg2', 'and it is meant', RUNNING, [...OUT, 'pg2/stop', 'pg2/stopped', ...GONE, ...WIPED], { confirm: 'pg2' }],
  ['wipe pg2', 'a dead host', { pg1: primary }, /^cannot-wipe/, { absent: ['pg2'], confirm: 'pg2' }],
  [
    'wipe pg2',
    'an old primary, which may hold more',
    { pg1: primary, pg2: stopped(primary) },
    /^not-a-standby/,
    { confirm: 'pg2' },
  ],
  [
    'wipe pg2',
    'another database',
    { pg1: primary, pg2: { ...stopped(standby), systemIdentifier: '1' } },
    /^not-ours: .*another database cluster/,
    { confirm: 'pg2' },
  ],
  [
    'wipe pg2',
    'of another cluster',
    { pg1: primary, pg2: { ...standby, marker: { cluster: 'billing' } } },
    /^not-ours: .*cluster billing/,
    { confirm: 'pg2' },
  ],
  [
    'wipe pg2',
    'of somebody',
    { pg1: primary, pg2: { directory: 'database', configured: true } },
    /^not-ours: .*did not make it/,
    { confirm: 'pg2' },
  ],
  [
    'wipe pg2',
    'whose disk is not mounted',
    { pg1: primary, pg2: { marker: {}, configured: true, everStarted: true, directory: 'empty' } },
    /^not-ours: .*not mounted/,
    { confirm: 'pg2' },
  ],
  [
    'wipe pg2',
    'that was cut short while it was wiped',
    { pg1: primary, pg2: { configured: true, directory: 'other', marker: { state: 'wiping' } } },
    [...OUT, 'pg2/stop', 'pg2/stopped', ...GONE, ...WIPED],
    { confirm: 'pg2' },
  ],
  ['remove pg9', 'when the last turn had come to the very end', RUNNING, []],
  ['destroy orders', 'a running cluster', RUNNING, [...ERASE('pg2'), ...ERASE('pg1')]],
  [
    'destroy orders',
    'bare hosts',
    {},
    ['pg1/close-firewall', 'pg1/traces', 'pg2/close-firewall', 'pg2/traces'],
    { unbuilt: true },
  ],
  [
    'destroy orders',
    'where a host is away',
    { pg1: primary },
    /^hosts-would-stay: pg2 does not answer/,
    { absent: ['pg2'] },
  ],
  ['abandon orders', 'where a host is away', { pg1: primary }, [...ERASE('pg1'), 'pg2/stays'], { absent: ['pg2'] }],
  [
    'destroy orders',
    'with another database on a host',
    { pg1: primary, pg2: { ...standby, systemIdentifier: '1' } },
    /^not-ours/,
  ],
  [
    'destroy orders',
    'with an old primary',
    { pg1: primary, pg2: stopped(primary) },
    [...ERASE('pg1'), ...ERASE('pg2')],
  ],
  [
    'remove w1',
    'the witness',
    { ...RUNNING, w1: witness },
    [
      'w1/unregister',
      'pg1/access',
      'pg1/firewall',
      'pg1/pass-file',
      'pg2/access',
      'pg2/firewall',
      'pg2/pass-file',
      'w1/stop',
      'w1/stopped',
      'pg1/drop-slot-of-w1',
      'pg2/drop-slot-of-w1',
      'cluster/gone',
      'w1/keep-aside',
    ],
  ],
  [
    'remove pg2',
    'beside a witness, which is told',
    { ...RUNNING, w1: witness },
    [
      'pg2/unregister',
      'pg1/access',
      'pg1/firewall',
      'pg1/pass-file',
      'w1/access',
      'w1/firewall',
      'w1/pass-file',
      'w1/register',
      'pg2/stop',
      'pg2/stopped',
      ...GONE,
      'pg2/keep-aside',
    ],
  ],
  ['destroy orders', 'with a witness', { ...RUNNING, w1: witness }, [...ERASE('pg2'), ...ERASE('w1'), ...ERASE('pg1')]],
  [
    'destroy orders',
    'that was adopted: marked before anything is stopped',
    RUNNING,
    ['pg1/take-over', 'pg2/take-over', ...ERASE('pg2'), ...ERASE('pg1')],
    { adopted: true },
  ],
  [
    'wipe pg2',
    'that was adopted: marked before it leaves',
    RUNNING,
    ['pg2/take-over', ...READY('pg1'), ...OUT, 'pg2/stop', 'pg2/stopped', ...GONE, ...WIPED],
    { adopted: true, confirm: 'pg2' },
  ],
  [
    'clone pg2',
    'that was adopted: marked before it is stopped',
    RUNNING,
    ['cluster/checks', ...READY('pg2'), 'pg2/stop', 'pg2/stopped', 'pg2/give-up-copy', 'pg2/clone'],
    { adopted: true, confirm: 'pg2' },
  ],
  [
    'unregister pg2',
    'that was adopted: repmgr is run on the primary',
    RUNNING,
    [...READY('pg1'), 'pg2/unregister'],
    { adopted: true },
  ],
  ['register pg2', 'that was adopted', RUNNING, [...READY('pg2'), 'pg2/follow', 'pg2/register'], { adopted: true }],
  ['follow pg2', 'a standby', RUNNING, [...MOVED, 'cluster/proof']],
  [
    'follow pg2',
    'beside a witness, which is told',
    { ...RUNNING, w1: witness },
    [...MOVED, 'w1/register', 'cluster/proof'],
  ],
  ['follow pg1', 'the primary', RUNNING, /^node-is-primary/],
  [
    'follow w1',
    'the witness',
    { ...RUNNING, w1: witness },
    /^node-is-witness: w1 is the witness: it streams from nobody/,
  ],
  ['follow pg2', 'that is stopped', { pg1: primary, pg2: stopped(standby) }, /^step-out-of-order/],
  ['follow pg2', 'a bare host', { pg1: primary }, /^step-out-of-order/],
  ['follow pg2', 'while the primary is away', { pg2: standby }, /^primary-unclear/, { absent: ['pg1'] }],
  ['follow-pg3 pg2', 'another standby', { ...RUNNING, pg3: standby }, [...MOVED, 'cluster/proof']],
  [
    'follow-pg3 pg2',
    'a standby that is away',
    RUNNING,
    /^upstream-away: pg2 is to stream from pg3, and pg3 does not answer/,
    { absent: ['pg3'] },
  ],
  [
    'follow-pg3 pg2',
    'a standby that is stopped',
    { ...RUNNING, pg3: stopped(standby) },
    /^upstream-away: .* pg3 is stopped/,
  ],
  ['start pg9', 'a node that is not there any more', RUNNING, /^node-gone/],
]

for (const [call, title, found, expected, { confirm, absent, unbuilt, adopted } = {}] of situations) {
  t.test(`${call}: ${title}`, async t => {
    const [verb = '', node = ''] = call.split(' ')
    const bench = benchOf(found, { absent: absent ?? [], built: !unbuilt, ...(adopted ? { adopted } : {}) })
    const plan = PLANS[verb]
    if (!plan) throw new Error(`no ${verb}`)
    let said: string | string[]
    try {
      said = stepsOf(plan(bench, { node, ...(confirm === undefined ? {} : { confirm }) })).map(({ id }) => id)
    } catch (error) {
      const { code, message, remedy, outcome } = error as {
        code: string
        message: string
        remedy: string
        outcome: string
      }
      t.equal(outcome, 'not_started')
      said = `${code}: ${message} ${remedy}`
    }
    if (expected instanceof RegExp) t.match(said, expected)
    else if (expected.at(-1) === '…') t.same(said.slice(0, expected.length - 1), expected.slice(0, -1))
    else t.same(said, expected)
  })
}

t.test('follow: a circle by what is described is refused', async t => {
  const bench = benchOf({ pg1: primary, pg2: standby, pg3: standby }, { absent: [], built: true })
  const below = followNode.target(bench.cluster, { node: 'pg3', upstream: 'pg2' })
  const wanted = { node: 'pg2', upstream: 'pg3' }
  t.throws(() => followNode.plan({ ...bench, cluster: followNode.target(below, wanted) }, wanted), {
    code: 'cannot-follow',
    message: /pg2 would stream from pg3 would stream from pg2, a circle without a primary/,
  })
})
