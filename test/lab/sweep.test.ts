/**
 * Kills the worker before and after the steps of an operation. All of them with `npm run test:sweep`; otherwise every
 * eighth, beginning with another one each day. UNDERSTUDY_SWEEP says which: `all`, or the first of a sample.
 */
import { Redis } from 'ioredis'
import t from 'tap'
import type { Lab } from '../../lab/lab.js'
import type { LabService } from '../../lab/service.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import { isFinal, type Operation, type StepRecord } from '../../src/operations/operation.js'
import { keys } from '../../src/store/keys.js'
import { psql, startLabTest } from '../fixtures/lab.js'
import { startRedis } from '../fixtures/redis.js'

type Asserts = Pick<typeof t, 'ok' | 'equal' | 'type' | 'comment'>

const SAMPLE = 8
const asked = process.env.UNDERSTUDY_SWEEP
const first =
  asked === undefined ? Math.floor(Date.now() / 86_400_000) % SAMPLE : asked === 'all' ? 0 : Number(asked) % SAMPLE
const every = asked === 'all' ? 1 : SAMPLE

/** That of a test below it is not told to who runs this file. */
t.setTimeout(every === 1 ? 4 * 3_600_000 : 890_000)

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
  `the worker is killed around ${every === 1 ? 'every step' : `each ${every}th step, from the ${first}th`}`,
  {
    timeout: every === 1 ? 4 * 3_600_000 : 880_000,
  },
  async t => {
    const redis = await startRedis(t)
    const { lab, node, addHosts, start } = await startLabTest(t, 'sweep')
    const common = { REDIS_URL: redis.url, UNDERSTUDY_WORKER_LEASE_MS: '1500' }
    const hosts = await addHosts(['pg1', 'pg2', 'pg3'])
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
    const killHolder = async (id: string): Promise<boolean> => {
      const pid = Number((await asking.get(keys.lease(id)))?.split(':')[1])
      const holder = workers.find(one => one.pid === pid)
      if (!holder) return false
      await holder.kill()
      deaths += 1
      workers = workers.filter(one => one !== holder)
      workers.push(await worker())
      return true
    }

    /** Follows an operation and kills its worker at the boundaries whose turn it is. Returns how many were killed. */
    const killAlong = async (id: string, each: number): Promise<string[]> => {
      const killed: string[] = []
      const seen = new Set<string>()
      let boundary = 0
      for (let last = '0'; ; ) {
        const batch = await reader.xread('COUNT', 1, 'BLOCK', 5000, 'STREAMS', keys.events(id), last)
        const [entry] = batch?.[0]?.[1] ?? []
        if (!entry) {
          const operation = (await api.call<Operation>('GET', `/v1/operations/${id}`)).body
          if (isFinal(operation.state)) return killed
          continue
        }
        last = entry[0]
        const [, type, , data] = entry[1]
        const record = JSON.parse(data ?? '{}') as Partial<StepRecord>
        if (type === 'state' && isFinal(record.state as never)) return killed
        if (type !== 'step') continue
        const point = `${record.state === 'running' ? 'before' : 'after'} ${record.id}`
        if (seen.has(point)) continue
        seen.add(point)
        boundary += 1
        if ((boundary - 1) % each === first % each && (await killHolder(id))) killed.push(point)
      }
    }

    /** `each`: of an operation of few steps more are a sample. */
    const endsWell = async (t: Asserts, id: string, each = every) => {
      const killed = await killAlong(id, Math.min(each, every))
      t.comment(`killed ${killed.join(', ')}`)
      t.ok(killed.length > 0, 'somebody was killed')
      let operation = (await api.call<Operation>('GET', `/v1/operations/${id}`)).body
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
        body: { name: 'orders', postgresVersion: 15, nodes: hosts.slice(0, 2).map(node), bootstrap: true },
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

    await t.test('switchover', async t => {
      const { body } = await api.call<Operation>('POST', '/v1/clusters/orders/switchover', { body: { to: 'pg2' } })
      await endsWell(t, body.id, 5)
      t.equal((await healthy(t)).primary, 'pg2')
    })

    await t.test('change-settings, with a restart of each', async t => {
      const { body } = await api.call<Operation>('PATCH', '/v1/clusters/orders/settings', {
        body: { settings: { max_connections: 150 }, restart: 'when-needed' },
      })
      await endsWell(t, body.id, 4)
      await healthy(t)
      for (const { name } of hosts) t.equal(await psql(lab, name, 'SHOW max_connections'), '150')
    })

    await t.test('rotate-credentials', async t => {
      const { body } = await api.call<Operation>('POST', '/v1/clusters/orders/rotate-credentials')
      await endsWell(t, body.id, 3)
      await healthy(t)
    })
  },
)
