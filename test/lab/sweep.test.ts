/**
 * Kills the worker before and after the steps of an operation. With `npm run test:sweep` around every step of every one of
 * them; otherwise around a sample of the steps of bootstrap-cluster and add-standby and of one of the others, another one each
 * day. UNDERSTUDY_SWEEP says which: `all`, or the number of a day.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { Lab } from '../../lab/lab.js'
import type { LabService } from '../../lab/service.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import { isFinal, type Operation, type StepRecord } from '../../src/operations/operation.js'
import { keys } from '../../src/store/keys.js'
import { psql, startLabTest } from '../fixtures/lab.js'
import { startRedis } from '../fixtures/redis.js'
import { lostRows, overlaps, prepareWriter, startWriter, writerAccess } from '../fixtures/writer.js'

type Asserts = Pick<Test, 'ok' | 'equal' | 'same' | 'type' | 'comment'>

const SAMPLE = 8
const asked = process.env.UNDERSTUDY_SWEEP
const whole = asked === 'all'
const day = asked === undefined || whole ? Math.floor(Date.now() / 86_400_000) : Number(asked)
const every = whole ? 1 : SAMPLE
const first = day % every

/** That of a test below it is not told to who runs this file. */
t.setTimeout(whole ? 4 * 3_600_000 : 890_000)

/** Commands that change a host, each in a wrapper that writes down its begin and its end. */
const WATCHED = ['apt-get', 'pg_createcluster', 'systemctl', 'pg_dropcluster']
const WRAPPER = (name: string) => `#!/bin/sh
# What a package's own scripts run is a part of the installation.
[ -z "$WATCHED" ] || exec /usr/bin/${name} "$@"
# And a question changes nothing.
case $1 in is-* | show | status | list-*) exec /usr/bin/${name} "$@" ;; esac
export WATCHED=yes
echo "begin $$ $(date +%s%N) ${name} $*" >>/var/log/watched
/usr/bin/${name} "$@"
code=$?
echo "end $$ $(date +%s%N)" >>/var/log/watched
exit $code
`

async function watch(lab: Lab, host: string) {
  for (const name of WATCHED) {
    const path = `/usr/local/sbin/${name}`
    await lab.exec(host, [
      'sh',
      '-c',
      `cat >${path} <<'END'\n${WRAPPER(name)}END\nchmod 755 ${path}; : >>/var/log/watched`,
    ])
  }
}

/** What was run on a host, in order. Throws where two of them ran at once. */
async function watched(lab: Lab, host: string): Promise<string[]> {
  const lines = (await lab.exec(host, ['cat', '/var/log/watched'])).stdout.trim().split('\n')
  const ran: string[] = []
  let running: string | undefined
  for (const line of lines) {
    const [mark, pid, , ...command] = line.split(' ')
    if (mark === 'begin') {
      if (running !== undefined) throw new Error(`two commands at once on ${host}: ${line}`)
      running = pid
      ran.push(command.join(' '))
    } else if (pid === running) running = undefined
  }
  return ran
}

t.test(
  `the worker is killed around ${whole ? 'every step' : `each ${every}th step, from the ${first}th`}`,
  { timeout: whole ? 4 * 3_600_000 : 880_000 },
  async t => {
    const redis = await startRedis(t)
    const { lab, node, addHosts, start } = await startLabTest(t, 'sweep')
    const common = { REDIS_URL: redis.url, UNDERSTUDY_WORKER_LEASE_MS: '1500' }
    const hosts = await addHosts(['pg1', 'pg2', 'pg3'])
    const addresses = hosts.map(({ address }) => address)
    for (const { name } of hosts) await watch(lab, name)
    const api = await start({ ...common, UNDERSTUDY_ROLES: 'api' })
    const worker = () => start({ ...common, UNDERSTUDY_ROLES: 'worker' })
    // Two, so that somebody is there already when one is killed.
    let workers: LabService[] = await Promise.all([worker(), worker()])
    const reader = new Redis(redis.url)
    const asking = new Redis(redis.url)
    t.teardown(() => {
      reader.disconnect()
      asking.disconnect()
    })

    let deaths = 0
    const operationNow = async (id: string) => (await api.call<Operation>('GET', `/v1/operations/${id}`)).body
    /** Nobody may have it for a moment: then whoever has it next is killed instead, unless it ends meanwhile. */
    const killHolder = async (id: string): Promise<boolean> => {
      for (let turn = 0; turn < 100; turn += 1) {
        const pid = Number((await asking.get(keys.lease(id)))?.split(':')[1])
        const holder = workers.find(one => one.pid === pid)
        if (holder) {
          await holder.kill()
          deaths += 1
          workers = workers.filter(one => one !== holder)
          workers.push(await worker())
          return true
        }
        if (turn % 10 === 9 && isFinal((await operationNow(id)).state)) return false
        await sleep(50)
      }
      throw new Error(`nobody took up ${id}`)
    }

    /** Follows an operation and kills its worker at the boundaries whose turn it is. Returns those at which it was. */
    const killAlong = async (id: string, each: number): Promise<string[]> => {
      const killed: string[] = []
      const seen = new Set<string>()
      for (let last = '0'; ; ) {
        const batch = await reader.xread('COUNT', 1, 'BLOCK', 5000, 'STREAMS', keys.events(id), last)
        const [entry] = batch?.[0]?.[1] ?? []
        if (!entry) {
          if (isFinal((await operationNow(id)).state)) return killed
          continue
        }
        last = entry[0]
        const [, type, , data] = entry[1]
        const record = JSON.parse(data ?? '{}') as Partial<StepRecord>
        if (type === 'state' && isFinal(record.state as never)) return killed
        if (type !== 'step' || record.state === 'pending') continue
        const point = `${record.state === 'running' ? 'before' : 'after'} ${record.id}`
        if (seen.has(point)) continue
        const due = seen.size % each === first % each
        seen.add(point)
        if (due && (await killHolder(id))) killed.push(point)
      }
    }

    /** `each`: of an operation of few steps more are a sample. */
    const endsWell = async (t: Asserts, id: string, each = every) => {
      const killed = await killAlong(id, Math.min(each, every))
      t.comment(`killed ${killed.join(', ')}`)
      t.ok(killed.length > 0, 'somebody was killed')
      let operation = await operationNow(id)
      if (whole) {
        // The last of all is known only once it has ended.
        const points = operation.steps.flatMap(step => [`before ${step.id}`, `after ${step.id}`]).slice(0, -1)
        t.same(
          points.filter(point => !killed.includes(point)),
          [],
          'before and after every step',
        )
      }
      if (operation.state === 'failed') {
        // It may end, if it says what is left, and a retry finishes it.
        t.type(operation.error?.remedy, 'string')
        t.comment(`failed: ${JSON.stringify(operation.error)}`)
        const retried = await api.call<Operation>('POST', `/v1/operations/${id}/retry?wait=60`)
        operation = retried.body
      }
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      t.ok(operation.turns > killed.length, 'each death had its successor')
      for (const { name } of hosts) {
        const ran = await watched(lab, name)
        const times = (what: RegExp) => ran.filter(command => what.test(command)).length
        t.ok(times(/^apt-get .* install /) <= 1, `packages were installed at most once on ${name}: ${ran.join('; ')}`)
        // One that was made while its worker died is not known to be whole: it holds nothing, and is made anew.
        t.ok(
          times(/^pg_createcluster /) <= 1 + deaths,
          `a server was made anew only after a death on ${name}: ${ran.join('; ')}`,
        )
      }
    }

    const healthy = async (t: Asserts) => {
      const { body: status } = await api.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      t.equal(status.diagnosis.code, 'healthy', status.diagnosis.detail)
      t.equal(status.nodes.filter(({ state }) => state === 'running').length, 1)
      t.equal(status.nodes.filter(({ state }) => state === 'streaming').length, 2)
      return status
    }

    await t.test('bootstrap-cluster', async t => {
      const { body } = await api.call<Operation>('POST', '/v1/clusters', {
        body: {
          name: 'orders',
          postgresVersion: 15,
          nodes: hosts.slice(0, 2).map(node),
          access: writerAccess(lab),
          bootstrap: true,
        },
      })
      await endsWell(t, body.id)
    })

    await t.test('add-standby', async t => {
      const [, , pg3] = hosts
      if (!pg3) throw new Error('no host')
      const { body } = await api.call<Operation>('POST', '/v1/clusters/orders/nodes', { body: node(pg3) })
      await endsWell(t, body.id)
      await healthy(t)
    })

    await prepareWriter(lab, 'pg1')
    const whoIsWho = async (t: Asserts) => {
      const { primary, nodes } = await healthy(t)
      return { old: primary ?? '', standby: nodes.find(({ role }) => role === 'standby')?.name ?? '' }
    }

    /** The others, each from a healthy cluster to a healthy cluster. */
    const others: Record<string, (t: Test) => Promise<void>> = {
      async switchover(t) {
        const { standby: to } = await whoIsWho(t)
        const writer = await startWriter(t, lab, addresses)
        const { body } = await api.call<Operation>('POST', '/v1/clusters/orders/switchover', { body: { to } })
        await endsWell(t, body.id, 5)
        t.equal((await healthy(t)).primary, to)
        const report = await writer.end()
        t.same(overlaps(report), [], 'no two accepted writes at a time')
        t.same(await lostRows(lab, to, report), [], 'no row is lost')
      },
      async 'change-settings, with a restart of each'(t) {
        const { body } = await api.call<Operation>('PATCH', '/v1/clusters/orders/settings', {
          body: { settings: { max_connections: 150 }, restart: 'when-needed' },
        })
        await endsWell(t, body.id, 4)
        await healthy(t)
        for (const { name } of hosts) t.equal(await psql(lab, name, 'SHOW max_connections'), '150')
      },
      async 'rotate-credentials'(t) {
        const { body } = await api.call<Operation>('POST', '/v1/clusters/orders/rotate-credentials')
        await endsWell(t, body.id, 3)
        await healthy(t)
      },
      async 'promote and rejoin-node'(t) {
        const { old } = await whoIsWho(t)
        const writer = await startWriter(t, lab, addresses)
        await sleep(500)
        await lab.signal(old, 'postgres', 'SIGKILL')
        const { body: promotion } = await api.call<Operation>('POST', '/v1/clusters/orders/promote')
        await endsWell(t, promotion.id, 3)
        const { body: status } = await api.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
        const primary = status.primary ?? ''
        t.not(primary, old)
        const report = await writer.end()
        t.same(overlaps(report), [], 'no two accepted writes at a time')
        const { steps } = await operationNow(promotion.id)
        const loss = steps.find(({ id }) => id === 'cluster/promotion')?.decision?.loss
        const lost = await lostRows(lab, primary, report)
        t.ok(lost.length <= (loss?.commits ?? Number.POSITIVE_INFINITY), `${lost.length} lost: ${loss?.detail}`)
        const { body: back } = await api.call<Operation>('POST', `/v1/clusters/orders/nodes/${old}/rejoin`, {
          body: { confirm: old },
        })
        await endsWell(t, back.id, 5)
        t.equal((await healthy(t)).primary, primary)
      },
    }
    for (const [index, [name, run]] of Object.entries(others).entries()) {
      if (whole || index === day % Object.keys(others).length) await t.test(name, run)
    }
  },
)
