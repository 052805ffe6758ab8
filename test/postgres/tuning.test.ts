import { appendFile, writeFile } from 'node:fs/promises'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import type { Workload } from '../../src/cluster/workload.js'
import { managedSettings, type Setting } from '../../src/postgres/settings.js'
import {
  logSettings,
  maxConnectionsFor,
  maxWorkerProcessesFor,
  nominalMemory,
  type TuningFacts,
  tunedSettings,
} from '../../src/postgres/tuning.js'
import { startPostgres } from '../fixtures/postgres.js'

const MB = 1024 ** 2
const GB = 1024 ** 3
const TB = 1024 ** 4
const WORKLOADS = ['web', 'oltp', 'dw', 'mixed'] as const

const facts = (memoryBytes: number, cpus: number, rest: Partial<TuningFacts> = {}): TuningFacts => ({
  memoryBytes,
  cpus,
  disk: 'ssd',
  wal: { diskBytes: 200 * GB, ownDisk: false },
  ...rest,
})

/** As the operations use it: what the cluster shares follows from this host too. */
function tune(host: TuningFacts, workload: Workload, maxConnections = maxConnectionsFor(workload, host.memoryBytes)) {
  const settings = tunedSettings(host, {
    workload,
    maxConnections,
    maxWorkerProcesses: maxWorkerProcessesFor(host.cpus),
  })
  return Object.fromEntries(settings.map(({ name, value }) => [name, value]))
}

const UNITS: Record<string, number> = { kB: 1024, MB, GB }
function bytes(value: Setting['value'] | undefined): number {
  const [, number, unit = ''] = /^(\d+)(kB|MB|GB)$/.exec(String(value)) ?? []
  return Number(number) * (UNITS[unit] ?? Number.NaN)
}

t.test('what pgtune publishes for the same host', async t => {
  // pgtune 7caef27 (July 2026), Linux, version 17, "database of medium size", run on these hosts. Memory in kB.
  // workload, RAM in GB, CPUs, disk, connections asked for | connections, shared_buffers, effective_cache_size,
  // maintenance_work_mem, work_mem, wal_buffers, min_wal_size, max_wal_size, random_page_cost, effective_io_concurrency,
  // default_statistics_target, huge_pages, max_worker_processes, max_parallel_workers_per_gather, _maintenance_workers, jit
  const published: [
    ...[Workload, number, number, 'ssd' | 'hdd', number | null, number, number, number, number, number, number, number],
    ...[number, number, number, number, string, number | null, number | null, number | null, string | null],
  ][] = [
    [
      'web',
      1,
      1,
      'ssd',
      null,
      200,
      262144,
      786432,
      65536,
      4096,
      7864,
      1048576,
      4194304,
      1.1,
      200,
      100,
      'off',
      null,
      null,
      null,
      'off',
    ],
    [
      'web',
      4,
      2,
      'ssd',
      null,
      200,
      1048576,
      3145728,
      262144,
      5041,
      16384,
      1048576,
      4194304,
      1.1,
      200,
      100,
      'off',
      null,
      null,
      null,
      'off',
    ],
    [
      'web',
      8,
      4,
      'ssd',
      null,
      200,
      2097152,
      6291456,
      524288,
      10280,
      16384,
      1048576,
      4194304,
      1.1,
      200,
      100,
      'try',
      4,
      2,
      2,
      'off',
    ],
    [
      'web',
      16,
      8,
      'hdd',
      null,
      200,
      4194304,
      12582912,
      1048576,
      20164,
      16384,
      1048576,
      4194304,
      4,
      2,
      100,
      'try',
      8,
      4,
      4,
      'off',
    ],
    [
      'web',
      64,
      16,
      'ssd',
      null,
      200,
      16777216,
      50331648,
      4194304,
      77672,
      16384,
      1048576,
      4194304,
      1.1,
      200,
      100,
      'try',
      16,
      4,
      4,
      'off',
    ],
    [
      'web',
      1024,
      128,
      'ssd',
      null,
      200,
      268435456,
      805306368,
      8388608,
      818400,
      16384,
      1048576,
      4194304,
      1.1,
      200,
      100,
      'try',
      128,
      4,
      4,
      'off',
    ],
    [
      'oltp',
      8,
      4,
      'ssd',
      null,
      300,
      2097152,
      6291456,
      524288,
      6898,
      16384,
      2097152,
      8388608,
      1.1,
      200,
      100,
      'try',
      4,
      2,
      2,
      'off',
    ],
    [
      'oltp',
      32,
      16,
      'ssd',
      null,
      300,
      8388608,
      25165824,
      2097152,
      26546,
      16384,
      2097152,
      8388608,
      1.1,
      200,
      100,
      'try',
      16,
      4,
      4,
      'off',
    ],
    [
      'oltp',
      128,
      32,
      'hdd',
      null,
      300,
      33554432,
      100663296,
      8388608,
      101067,
      16384,
      2097152,
      8388608,
      4,
      2,
      100,
      'try',
      32,
      4,
      4,
      'off',
    ],
    [
      'oltp',
      16,
      4,
      'ssd',
      500,
      500,
      4194304,
      12582912,
      1048576,
      8322,
      16384,
      2097152,
      8388608,
      1.1,
      200,
      100,
      'try',
      4,
      2,
      2,
      'off',
    ],
    [
      'dw',
      8,
      4,
      'ssd',
      null,
      40,
      2097152,
      6291456,
      1048576,
      23831,
      16384,
      4194304,
      16777216,
      4,
      200,
      500,
      'try',
      4,
      2,
      2,
      null,
    ],
    [
      'dw',
      16,
      8,
      'hdd',
      null,
      40,
      4194304,
      12582912,
      2097152,
      43690,
      16384,
      4194304,
      16777216,
      4,
      2,
      500,
      'try',
      8,
      4,
      4,
      null,
    ],
    [
      'dw',
      64,
      32,
      'ssd',
      null,
      40,
      16777216,
      50331648,
      8388608,
      116508,
      16384,
      4194304,
      16777216,
      4,
      200,
      500,
      'try',
      32,
      16,
      4,
      null,
    ],
    [
      'dw',
      1024,
      128,
      'ssd',
      null,
      40,
      268435456,
      805306368,
      8388608,
      798915,
      16384,
      4194304,
      16777216,
      4,
      200,
      500,
      'try',
      128,
      64,
      4,
      null,
    ],
    [
      'mixed',
      2,
      2,
      'ssd',
      null,
      100,
      524288,
      1572864,
      131072,
      4096,
      16384,
      1048576,
      4194304,
      1.1,
      200,
      100,
      'off',
      null,
      null,
      null,
      'off',
    ],
    [
      'mixed',
      8,
      4,
      'hdd',
      null,
      100,
      2097152,
      6291456,
      524288,
      10082,
      16384,
      1048576,
      4194304,
      4,
      2,
      100,
      'try',
      4,
      2,
      2,
      'off',
    ],
    [
      'mixed',
      32,
      8,
      'ssd',
      null,
      100,
      8388608,
      25165824,
      2097152,
      38836,
      16384,
      1048576,
      4194304,
      1.1,
      200,
      100,
      'try',
      8,
      4,
      4,
      'off',
    ],
    [
      'mixed',
      256,
      64,
      'ssd',
      null,
      100,
      67108864,
      201326592,
      8388608,
      204600,
      16384,
      1048576,
      4194304,
      1.1,
      200,
      100,
      'try',
      64,
      4,
      4,
      'off',
    ],
    [
      'mixed',
      16,
      6,
      'ssd',
      1000,
      1000,
      4194304,
      12582912,
      1048576,
      4096,
      16384,
      1048576,
      4194304,
      1.1,
      200,
      100,
      'try',
      6,
      3,
      3,
      'off',
    ],
  ]
  for (const row of published) {
    const [workload, ram, cpuCount, disk, asked, connections, buffers, cache, maintenance, work, walBuffers] = row
    const [minWal, maxWal, pageCost, ioConcurrency, statistics, hugePages, workers, gather, parallel, jit] =
      row.slice(11)
    const host = facts(ram * GB, cpuCount, { disk })
    const name = `${workload}, ${ram} GB, ${cpuCount} CPUs, ${disk}${asked === null ? '' : `, ${asked} connections`}`
    await t.test(name, async t => {
      const ours = tune(host, workload, connections)
      const kB = (setting: string) => bytes(ours[setting]) / 1024
      if (asked === null && ram >= 2) t.equal(maxConnectionsFor(workload, ram * GB), connections, 'max_connections')
      t.equal(kB('shared_buffers'), buffers)
      t.equal(kB('effective_cache_size'), cache)
      t.equal(kB('maintenance_work_mem'), Math.min(maintenance, 2 * 1024 * 1024), 'up to 2 GB')
      t.equal(kB('wal_buffers'), walBuffers)
      t.equal(kB('min_wal_size'), minWal)
      t.equal(kB('max_wal_size'), maxWal)
      t.equal(ours.random_page_cost, pageCost)
      t.equal(ours.effective_io_concurrency, ioConcurrency)
      t.equal(ours.default_statistics_target, statistics)
      t.equal(ours.huge_pages, hugePages)
      t.equal(ours.max_worker_processes, Math.max(8, Number(workers ?? 8)), 'never less than PostgreSQL’s own 8')
      if (gather !== null) t.equal(ours.max_parallel_workers_per_gather, gather)
      if (parallel !== null) t.equal(ours.max_parallel_maintenance_workers, parallel)
      t.equal(ours.jit, jit === null ? undefined : false)
      // Ours counts 8 workers where pgtune counts fewer, and is rounded down.
      t.ok(kB('work_mem') <= work && kB('work_mem') >= Math.max(4096, work * 0.85), `${kB('work_mem')} of ${work} kB`)
    })
  }
})

t.test('hosts that pgtune does not care for', async t => {
  const cases: [string, TuningFacts, Workload, Record<string, Setting['value'] | undefined>][] = [
    [
      'a small one: less than a quarter, fewer connections, no parallel queries on one CPU',
      facts(512 * MB, 1),
      'web',
      {
        max_connections: 50,
        shared_buffers: '76MB',
        work_mem: '4MB',
        maintenance_work_mem: '32MB',
        huge_pages: 'off',
        max_worker_processes: 8,
        max_parallel_workers: 1,
        max_parallel_workers_per_gather: 0,
        max_parallel_maintenance_workers: 0,
      },
    ],
    ['the smallest', facts(200 * MB, 1), 'oltp', { max_connections: 20, work_mem: '4MB' }],
    [
      'a huge one',
      facts(TB, 128),
      'oltp',
      { shared_buffers: '256GB', maintenance_work_mem: '2GB', max_worker_processes: 128, max_connections: 300 },
    ],
    [
      'a huge warehouse',
      facts(TB, 128),
      'dw',
      { max_parallel_workers_per_gather: 64, max_parallel_maintenance_workers: 4, work_mem: '780MB' },
    ],
    ['two CPUs', facts(4 * GB, 2), 'web', { max_parallel_workers: 2, max_parallel_workers_per_gather: 1 }],
    [
      'a disk that nobody knows: PostgreSQL’s own costs',
      facts(8 * GB, 4, { disk: 'unknown' }),
      'web',
      { random_page_cost: undefined, effective_io_concurrency: undefined },
    ],
    [
      'WAL is bounded by the disk that it shares with the data',
      facts(8 * GB, 4, { wal: { diskBytes: 10 * GB, ownDisk: false } }),
      'oltp',
      { max_wal_size: '1GB', min_wal_size: '256MB', max_slot_wal_keep_size: '1GB' },
    ],
    [
      'WAL on a disk of its own',
      facts(8 * GB, 4, { wal: { diskBytes: 100 * GB, ownDisk: true } }),
      'oltp',
      { max_wal_size: '8GB', max_slot_wal_keep_size: '48GB' },
    ],
    [
      'a tiny disk: what a server can start with',
      facts(GB, 1, { wal: { diskBytes: 300 * MB, ownDisk: false } }),
      'dw',
      { max_wal_size: '128MB', min_wal_size: '32MB', max_slot_wal_keep_size: '128MB' },
    ],
    [
      'a large disk',
      facts(64 * GB, 16, { wal: { diskBytes: 4 * TB, ownDisk: false } }),
      'mixed',
      { max_wal_size: '4GB', max_slot_wal_keep_size: '384GB' },
    ],
  ]
  for (const [name, host, workload, expected] of cases) {
    const ours = tune(host, workload)
    for (const [setting, value] of Object.entries(expected)) t.equal(ours[setting], value, `${name}: ${setting}`)
  }
})

t.test('some megabytes of RAM more or less change nothing', async t => {
  // MemTotal of machines as they are sold: what firmware and kernel leave of 1, 2, 4, 8, 16, 32, 64, 128, 256 GB, in kB.
  for (const kilobytes of [
    985_428, 2_014_280, 4_014_844, 8_131_288, 16_393_244, 32_855_648, 65_842_040, 131_890_312, 263_795_112,
  ]) {
    const read = (offset: number) => tune(facts((kilobytes + offset) * 1024, 4), 'web')
    for (const offset of [-8192, -1024, -4, 4, 1024, 8192]) t.same(read(offset), read(0), `${kilobytes} kB ${offset}`)
  }
  t.not(tune(facts(8 * GB, 4), 'web').shared_buffers, tune(facts(12 * GB, 4), 'web').shared_buffers, 'a grown one does')
})

t.test('whatever the host', async t => {
  const anyHost = fc.record({
    memoryBytes: fc.integer({ min: 64, max: 8 * 1024 * 1024 }).map(megabytes => megabytes * MB + 12_345),
    cpus: fc.integer({ min: 1, max: 512 }),
    disk: fc.constantFrom('ssd' as const, 'hdd' as const, 'unknown' as const),
    wal: fc.record({
      diskBytes: fc.integer({ min: 100, max: 100_000_000 }).map(size => size * MB),
      ownDisk: fc.boolean(),
    }),
  })
  fc.assert(
    fc.property(anyHost, fc.constantFrom(...WORKLOADS), (host, workload) => {
      const ours = tune(host, workload)
      const memory = nominalMemory(host.memoryBytes)
      t.ok(Math.abs(memory - host.memoryBytes) <= Math.max(host.memoryBytes / 16, 64 * MB), 'nominal is near')
      const rest = memory - bytes(ours.shared_buffers)
      t.ok(bytes(ours.shared_buffers) <= memory / 4)
      const workMemory = bytes(ours.work_mem)
      t.ok(
        workMemory === 4 * MB || workMemory * Number(ours.max_connections) * 3 <= rest,
        'a query for each connection fits',
      )
      t.ok(bytes(ours.min_wal_size) <= bytes(ours.max_wal_size))
      t.ok(bytes(ours.max_slot_wal_keep_size) <= Math.max(host.wal.diskBytes / 2, 128 * MB))
      t.ok(Number(ours.max_parallel_workers_per_gather) <= Number(ours.max_parallel_workers))
      t.ok(Number(ours.max_parallel_workers) <= Number(ours.max_worker_processes))
      t.notOk(
        Object.values(ours).some(value => /NaN|\.\d+[kMG]B/.test(String(value))),
        'sizes are whole',
      )
    }),
    { numRuns: 300 },
  )
})

t.test('a real server starts with what comes out, and says the same', async t => {
  const hosts: [string, TuningFacts][] = [
    ['this machine', facts(totalmem(), cpus().length)],
    ['a small one', facts(512 * MB, 1, { disk: 'hdd', wal: { diskBytes: 300 * MB, ownDisk: false } })],
    ['one with many CPUs', facts(2 * GB, 128, { disk: 'unknown' })],
  ]
  const server = await startPostgres(t)
  for (const [name, host] of hosts) {
    for (const workload of WORKLOADS) {
      await server.stop()
      const settings = [
        ...tunedSettings(host, {
          workload,
          maxConnections: maxConnectionsFor(workload, host.memoryBytes),
          maxWorkerProcesses: maxWorkerProcessesFor(host.cpus),
        }),
        ...logSettings(workload),
      ]
      const managed = join(server.dataDirectory, 'understudy.conf')
      await writeFile(managed, managedSettings({ cluster: 'orders', node: 'pg1' }, settings), { mode: 0o644 })
      if (name === hosts[0]?.[0] && workload === WORKLOADS[0])
        await appendFile(join(server.dataDirectory, 'postgresql.conf'), `include '${managed}'\n`)
      await server.start()
      const wrong = await server.query(
        'SELECT name, error, applied FROM pg_file_settings WHERE sourcefile = $1 AND (error IS NOT NULL OR NOT applied)',
        [managed],
      )
      t.same(wrong, [], `${name}, ${workload}`)
      const [row] = await server.query(
        "SELECT current_setting('shared_buffers') AS buffers, current_setting('jit') AS jit",
      )
      const buffers = settings.find(setting => setting.name === 'shared_buffers')?.value
      t.same(row, { buffers, jit: workload === 'dw' ? 'on' : 'off' }, `${name}, ${workload}`)
    }
  }
})
