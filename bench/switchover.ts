/**
 * A planned exchange of roles: ours, and `repmgr standby switchover --siblings-follow`, in turn, on the same three hosts,
 * under a client that commits every 5 ms. How long its writes were refused, how long the whole took, whether two hosts
 * ever accepted writes at a time, and whether a row was lost. Ends with 1 where an aim is missed.
 *
 *   npm run bench:switchover [runs of each]           (root, Debian; about 20 seconds a run)
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { bringUpLab, type LabHost } from '../lab/lab.js'
import { startLabService } from '../lab/service.js'
import { lostRows, overlaps, prepareWriter, startWritingClient, writerAccess } from '../lab/writing-client.js'
import type { ClusterStatus } from '../src/cluster/status.js'
import { isFinal, type Operation } from '../src/operations/operation.js'
import { openStateDirectory, readIdentity } from '../src/state-directory.js'

const RUNS = Number(process.argv[2] ?? 10)
const NAMES = ['pg1', 'pg2', 'pg3'] as const

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}
const median = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
const seconds = (ms: number) => (ms / 1000).toFixed(2)

interface Run {
  gapMs: number
  wholeMs: number
  lost: number
  overlapMs: number
}

const stateDirectory = await mkdtemp(join(tmpdir(), 'understudy-bench-'))
await openStateDirectory(stateDirectory)
const { publicKey = '' } = await readIdentity(stateDirectory, { keyFile: undefined, agent: undefined })
const lab = await bringUpLab({ name: 'bench-roles', postgres: true, publicKeys: [publicKey], log: say })
const service = await startLabService(lab, { stateDirectory })

const node = (host: LabHost) => ({
  name: host.name,
  host: host.address,
  ssh: { user: host.loginUser, hostKey: host.hostKey },
})

async function succeeded(path: string, body: unknown): Promise<void> {
  const { status, body: accepted } = await service.call<Operation>('POST', path, { body })
  if (status !== 202) throw new Error(JSON.stringify(accepted))
  for (;;) {
    const { body: operation } = await service.call<Operation>('GET', `/v1/operations/${accepted.id}?wait=30`)
    if (operation.state === 'succeeded') return
    if (isFinal(operation.state)) throw new Error(JSON.stringify(operation.error))
  }
}

async function healthy(primary: string): Promise<void> {
  for (let turn = 0; turn < 240; turn += 1) {
    const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
    if (body.diagnosis.code === 'healthy' && body.primary === primary) return
    await sleep(250)
  }
  throw new Error(`${primary} is not the primary of a healthy cluster after a minute`)
}

const ways = {
  ours: (to: string) => succeeded('/v1/clusters/orders/switchover', { to }),
  async repmgr(to: string) {
    const repmgr = ['/usr/lib/postgresql/15/bin/repmgr', '-f', '/etc/repmgr.conf', 'standby', 'switchover']
    await lab.exec(to, ['sudo', '-u', 'postgres', ...repmgr, '--siblings-follow'], { timeoutMs: 180_000 })
  },
}

async function measure(way: keyof typeof ways, to: string, addresses: readonly string[]): Promise<Run> {
  const writer = await startWritingClient(lab, addresses)
  try {
    await sleep(1000)
    const begun = performance.now()
    await ways[way](to)
    const wholeMs = performance.now() - begun
    await sleep(1000)
    const report = await writer.end()
    const run = {
      wholeMs,
      gapMs: Math.max(...report.gaps.map(({ ms }) => ms)),
      lost: (await lostRows(lab, to, report)).length,
      overlapMs: Math.max(0, ...overlaps(report).map(({ ms }) => ms)),
    }
    await lab.exec(to, ['sudo', '-u', 'postgres', 'psql', '-Xqc', 'TRUNCATE written'])
    return run
  } finally {
    writer.kill()
  }
}

function summary(of: readonly number[]): string {
  return `min ${seconds(Math.min(...of))}, median ${seconds(median(of))}, max ${seconds(Math.max(...of))}`
}

try {
  const hosts = await lab.addHosts(NAMES)
  const addresses = hosts.map(({ address }) => address)
  await succeeded('/v1/clusters', {
    name: 'orders',
    postgresVersion: 15,
    nodes: hosts.map(node),
    access: writerAccess(lab),
    // For repmgr, which logs in from node to node.
    sshBetweenNodes: true,
    bootstrap: true,
  })
  await prepareWriter(lab, 'pg1')
  const runs: Record<keyof typeof ways, Run[]> = { ours: [], repmgr: [] }
  for (let turn = 0; turn < 2 * RUNS; turn += 1) {
    const way = turn % 2 === 0 ? 'ours' : 'repmgr'
    // Three hosts and two ways: each way goes to each host.
    const to = NAMES[(turn + 1) % 3] ?? 'pg1'
    const run = await measure(way, to, addresses)
    runs[way].push(run)
    say(
      `${way.padEnd(6)} to ${to}: writes refused ${seconds(run.gapMs)} s, whole ${seconds(run.wholeMs)} s, ${run.lost} rows lost, two primaries for ${run.overlapMs} ms`,
    )
    await healthy(to)
  }
  say(`\n${RUNS} of each, in turn; seconds`)
  for (const [what, of] of [
    ['writes refused', (run: Run) => run.gapMs],
    ['whole operation', (run: Run) => run.wholeMs],
  ] as const) {
    say(`${what}`)
    for (const way of ['ours', 'repmgr'] as const) say(`  ${way.padEnd(7)} ${summary(runs[way].map(of))}`)
    say(`  ours / repmgr, of the medians: ${(median(runs.ours.map(of)) / median(runs.repmgr.map(of))).toFixed(2)}`)
  }
  for (const way of ['ours', 'repmgr'] as const) {
    const lost = runs[way].reduce((sum, run) => sum + run.lost, 0)
    const overlap = Math.max(...runs[way].map(({ overlapMs }) => overlapMs))
    say(`${way}: ${lost} acknowledged rows lost, two primaries for ${overlap} ms at most`)
    if (way === 'ours' && (lost > 0 || overlap > 0)) process.exitCode = 1
  }
  // What it has to be, on hosts that start a program in a millisecond. A machine that is slower misses it, and is told.
  const gaps = runs.ours.map(({ gapMs }) => gapMs)
  for (const [what, ms, atMost] of [
    ['writes refused, median', median(gaps), 500],
    ['writes refused, most', Math.max(...gaps), 1500],
    ['whole operation, median', median(runs.ours.map(({ wholeMs }) => wholeMs)), 4000],
  ] as const) {
    const met = ms <= atMost
    say(`aim: ${what} at most ${seconds(atMost)} s: ${seconds(ms)} s, ${met ? 'met' : 'NOT MET'}`)
    if (!met) process.exitCode = 1
  }
} finally {
  await service.stop()
  await lab.down()
  await rm(stateDirectory, { recursive: true, force: true })
}
