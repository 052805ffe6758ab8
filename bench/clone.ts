/**
 * Our clone of a 1 GiB database against bare `pg_basebackup` between the same hosts, alternating in one run: the price
 * of safety, progress and resumability, as a ratio. And what the service needs of memory meanwhile.
 *
 *   npm run bench:clone            (root, Debian; about 6 minutes)
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { bringUpLab, type LabHost } from '../lab/lab.js'
import { startLabService } from '../lab/service.js'
import { isFinal, type Operation } from '../src/operations/operation.js'
import { openStateDirectory, readIdentity } from '../src/state-directory.js'

const RUNS = 5
const MEBIBYTES = 1024

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}
const median = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
const spread = (values: readonly number[], digits: number) =>
  `median ${median(values).toFixed(digits)}, from ${Math.min(...values).toFixed(digits)} to ${Math.max(...values).toFixed(digits)}`

const stateDirectory = await mkdtemp(join(tmpdir(), 'understudy-bench-'))
await openStateDirectory(stateDirectory)
const { publicKey = '' } = await readIdentity(stateDirectory, { keyFile: undefined, agent: undefined })
const lab = await bringUpLab({ name: 'bench', hosts: ['pg1'], publicKeys: [publicKey], log: say })
const service = await startLabService(lab, { stateDirectory })
let peakKiB = 0
let watching = true
const watch = (async () => {
  while (watching) {
    const rss = /^VmRSS:\s+(\d+)/m.exec(await readFile(`/proc/${service.pid}/status`, 'utf8').catch(() => ''))?.[1]
    peakKiB = Math.max(peakKiB, Number(rss ?? 0))
    await sleep(100)
  }
})()

const node = (host: LabHost) => ({
  name: host.name,
  host: host.address,
  ssh: { user: host.loginUser, hostKey: host.hostKey },
})
const psql = async (statement: string) =>
  (await lab.exec('pg1', ['sudo', '-u', 'postgres', 'psql', '-XAtqc', statement], { timeoutMs: 300_000 })).stdout.trim()

async function succeeded(path: string, body: unknown): Promise<Operation> {
  const { status, body: accepted } = await service.call<Operation>('POST', path, { body })
  if (status !== 202) throw new Error(JSON.stringify(accepted))
  for (;;) {
    const { body: operation } = await service.call<Operation>('GET', `/v1/operations/${accepted.id}?wait=30`)
    if (operation.state === 'succeeded') return operation
    if (isFinal(operation.state)) throw new Error(JSON.stringify(operation.error))
  }
}

/** The step as a whole: looking at the host, emptying the directory, repmgr, the copy, noticing its end, the check. */
function secondsOf(operation: Operation, stepId: string): number {
  const step = operation.steps.find(({ id }) => id === stepId)
  return (Date.parse(step?.endedAt ?? '') - Date.parse(step?.startedAt ?? '')) / 1000
}

try {
  const [pg1] = await lab.hosts()
  if (!pg1) throw new Error('no host')
  await succeeded('/v1/clusters', { name: 'bench', postgresVersion: 15, nodes: [node(pg1)], bootstrap: true })
  say(`filling the database with ${MEBIBYTES} MiB`)
  await psql(
    `CREATE TABLE ballast AS SELECT repeat(md5(i::text), 30) AS filler FROM generate_series(1, ${MEBIBYTES * 1000}) i`,
  )
  await psql('CHECKPOINT')
  const size = Number(await psql('SELECT sum(pg_database_size(oid)) FROM pg_database')) / 1_048_576
  say(`${size.toFixed(0)} MiB; ${RUNS} runs of each, in turn`)

  const ours: number[] = []
  const bare: number[] = []
  for (let run = 1; run <= RUNS; run += 1) {
    const name = `copy${run}`
    const host = await lab.addHost(name)
    ours.push(secondsOf(await succeeded('/v1/clusters/bench/nodes', node(host)), `${name}/clone`))
    await lab.exec(name, ['systemctl', 'stop', 'postgresql@15-main'])
    await psql(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active`)
    const begun = performance.now()
    await lab.exec(
      name,
      [
        'sudo',
        '-u',
        'postgres',
        '/usr/lib/postgresql/15/bin/pg_basebackup',
        '-D',
        '/var/lib/postgresql/bare',
        '-h',
        pg1.address,
        '-U',
        'repmgr',
        '-X',
        'stream',
        '-c',
        'fast',
        '-w',
      ],
      { timeoutMs: 300_000 },
    )
    bare.push((performance.now() - begun) / 1000)
    // The host stays: its address belongs to a node of the cluster.
    await lab.exec(name, ['rm', '-rf', '/var/lib/postgresql/bare'])
    say(
      `run ${run}: ours ${ours.at(-1)?.toFixed(2)} s, pg_basebackup ${bare.at(-1)?.toFixed(2)} s, ratio ${((ours.at(-1) ?? 0) / (bare.at(-1) ?? 1)).toFixed(3)}`,
    )
  }
  say(`\nclone of ${size.toFixed(0)} MiB, seconds:`)
  say(`  ours           ${spread(ours, 2)}`)
  say(`  pg_basebackup  ${spread(bare, 2)}`)
  say(
    `  ratio          ${spread(
      ours.map((seconds, index) => seconds / (bare[index] ?? Number.NaN)),
      3,
    )}`,
  )
  say(`memory of the service (API, worker; without Redis): ${(peakKiB / 1024).toFixed(0)} MiB at most`)
} finally {
  watching = false
  await watch
  await service.stop()
  await lab.down()
  await rm(stateDirectory, { recursive: true, force: true })
}
