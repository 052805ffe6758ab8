/**
 * Calls an operation off at each of its steps, sees that nothing of it is left running, and retries it up to the next one:
 * at a sample of the steps, at all of them with `npm run test:sweep`. UNDERSTUDY_SWEEP as in sweep.test.ts.
 */
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { ClusterStatus } from '../../src/cluster/status.js'
import { isFinal, type Operation, type StepRecord } from '../../src/operations/operation.js'
import { keys } from '../../src/store/keys.js'
import { ended, startLabTest } from '../fixtures/lab.js'
import { startRedis } from '../fixtures/redis.js'

const SAMPLE = 6
const asked = process.env.UNDERSTUDY_SWEEP
const whole = asked === 'all'
const day = asked === undefined || whole ? Math.floor(Date.now() / 86_400_000) : Number(asked)
const every = whole ? 1 : SAMPLE

t.setTimeout(whole ? 3 * 3_600_000 : 890_000)

t.test(
  `an operation is called off at ${whole ? 'every step' : `each ${every}th step`}, and retried`,
  { timeout: whole ? 3 * 3_600_000 : 880_000 },
  async t => {
    const redis = await startRedis(t)
    const { lab, node, addHosts, start } = await startLabTest(t, 'cancelsweep', { postgres: true })
    const hosts = await addHosts(['pg1', 'pg2', 'pg3'])
    const service = await start({ REDIS_URL: redis.url })
    const reader = new Redis(redis.url)
    t.teardown(() => reader.disconnect())

    /** Of an operation on a host: its processes, its units, its files. */
    const leftOn = async (host: string) => {
      const pattern = 'pg_basebackup|apt-get|pg_createcluster|understudy-guard|bin/repmgr'
      const running = await lab.exec(host, ['pgrep', '-fa', pattern], { reject: false })
      const units = await lab.exec(host, ['systemctl', 'list-units', '--no-legend', '--plain', 'understudy-*'])
      const jobs = await lab.exec(host, ['ls', '-A', '/var/lib/understudy/jobs'], { reject: false })
      return [running, units, jobs].map(({ stdout }) => stdout.trim()).filter(text => text !== '')
    }

    /** Waits for the next step that begins and has not been called off yet, and is due. Undefined once it has ended. */
    const seen = new Set<string>()
    const nextStep = async (id: string, from: { last: string }, first: number): Promise<string | undefined> => {
      for (;;) {
        const batch = await reader.xread('COUNT', 1, 'BLOCK', 5000, 'STREAMS', keys.events(id), from.last)
        const [entry] = batch?.[0]?.[1] ?? []
        if (!entry) {
          const { body } = await service.call<Operation>('GET', `/v1/operations/${id}`)
          if (isFinal(body.state)) return undefined
          continue
        }
        from.last = entry[0]
        const [, type, , data] = entry[1]
        const record = JSON.parse(data ?? '{}') as Partial<StepRecord>
        if (type === 'state' && record.state === ('succeeded' as never)) return undefined
        if (type !== 'step' || record.state !== 'running' || seen.has(record.id ?? '')) continue
        const due = seen.size % every === first % every
        seen.add(record.id ?? '')
        if (due) return record.id
      }
    }

    const calledOffAlong = async (t: Test, id: string, first: number) => {
      seen.clear()
      const from = { last: '0' }
      const calledOff: string[] = []
      for (;;) {
        const step = await nextStep(id, from, first)
        if (step === undefined) break
        const answer = await service.call<Operation>('POST', `/v1/operations/${id}/cancel`)
        // It may have ended in the meantime.
        if (answer.status === 409) break
        const operation = await ended(() => service, id)
        if (operation.state === 'succeeded') break
        t.equal(operation.state, 'cancelled', `at ${step}: ${JSON.stringify(operation.error)}`)
        t.same(
          operation.steps.filter(({ state }) => state === 'running'),
          [],
          'no step runs any more',
        )
        for (const { name } of hosts) t.same(await leftOn(name), [], `nothing of ${step} is left on ${name}`)
        calledOff.push(step)
        const retried = await service.call<Operation>('POST', `/v1/operations/${id}/retry`)
        t.equal(retried.status, 202, JSON.stringify(retried.body))
      }
      const operation = await ended(() => service, id)
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      t.comment(`called off at ${calledOff.join(', ')}`)
      t.ok(calledOff.length >= (whole ? operation.steps.length - 1 : 1), `${calledOff.length} times`)
    }

    const healthy = async (t: Test) => {
      const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      t.equal(body.diagnosis.code, 'healthy', body.diagnosis.detail)
    }

    await t.test('bootstrap-cluster', async t => {
      const { body } = await service.call<Operation>('POST', '/v1/clusters', {
        body: { name: 'orders', postgresVersion: 15, nodes: hosts.slice(0, 2).map(node), bootstrap: true },
      })
      await calledOffAlong(t, body.id, day)
      await healthy(t)
    })

    await t.test('add-standby', async t => {
      const [, , pg3] = hosts
      if (!pg3) throw new Error('no host')
      const { body } = await service.call<Operation>('POST', '/v1/clusters/orders/nodes', { body: node(pg3) })
      await calledOffAlong(t, body.id, day + 1)
      await healthy(t)
    })
  },
)
