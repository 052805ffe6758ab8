/**
 * Settings from the hardware. Pure: facts of a host and what it is used for go in, settings with their reasons come out.
 *
 * The rules are those of pgtune by le0pard (https://pgtune.leopard.in.ua, https://github.com/le0pard/pgtune) for Linux, as
 * of July 2026, and PostgreSQL's manual (https://www.postgresql.org/docs/current/runtime-config-resource.html). Where this
 * file says otherwise than pgtune:
 *
 * - Below 1 GB of RAM the manual asks for less than a quarter as shared_buffers.
 * - Fewer connections on small hosts: each can cost several megabytes.
 * - maintenance_work_mem ends at 2 GB: each autovacuum worker may take as much, and up to version 16 vacuum uses 1 GB at most.
 * - max_worker_processes is never less than PostgreSQL's own 8: replication and extensions need some whatever the CPUs.
 * - WAL is bounded by the disk that it is on: a checkpoint that is late, or a standby that is lost, must not fill it.
 * - wal_compression = lz4 and io_uring are left out: a server that was built without them would not start.
 */
import type { Workload } from '../cluster/workload.js'
import type { Setting } from './settings.js'

export interface TuningFacts {
  /** What PostgreSQL may use: RAM, or the limit of its control group where that is less. */
  memoryBytes: number
  cpus: number
  /** Under the data directory. `unknown` leaves PostgreSQL's own costs. */
  disk: 'ssd' | 'hdd' | 'unknown'
  /** Size of the file system that the WAL is on, and whether the data are on another one. */
  wal: { diskBytes: number; ownDisk: boolean }
}

/** What has to be the same on each node, or on a standby no less than on its primary. */
export interface TuningTarget {
  workload: Workload
  maxConnections: number
  maxWorkerProcesses: number
}

const KB = 1024
const MB = 1024 * KB
const GB = 1024 * MB

/**
 * RAM to the nearest sixteenth of the power of two below it. What a kernel or a firmware keeps for itself changes by
 * some megabytes from boot to boot, and must not change a setting.
 */
export function nominalMemory(bytes: number): number {
  const step = 2 ** (Math.floor(Math.log2(Math.max(bytes, 64 * MB))) - 4)
  return Math.max(Math.round(bytes / step) * step, 64 * MB)
}

const CONNECTIONS: Record<Workload, number> = { web: 200, oltp: 300, dw: 40, mixed: 100 }

/** pgtune’s number for the workload; on small hosts no more than one for each 10 MB of RAM, and 20 at least. */
export function maxConnectionsFor(workload: Workload, memoryBytes: number): number {
  const affordable = Math.floor(nominalMemory(memoryBytes) / (10 * MB) / 10) * 10
  return Math.max(20, Math.min(CONNECTIONS[workload], affordable))
}

export const maxWorkerProcessesFor = (cpus: number) => Math.max(8, cpus)

/** Every setting that follows from the hardware, in the order of PostgreSQL’s own documentation. */
export function tunedSettings(facts: TuningFacts, target: TuningTarget): Setting[] {
  const memory = nominalMemory(facts.memoryBytes)
  const buffers = sharedBuffers(memory)
  return [
    ...connections(target),
    ...memorySettings(memory, buffers, target),
    ...workers(facts.cpus, target),
    ...walSettings(facts.wal, buffers, target.workload),
    ...plannerSettings(facts.disk, memory, target.workload),
  ]
}

function connections({ maxConnections, workload }: TuningTarget): Setting[] {
  return [{ name: 'max_connections', value: maxConnections, because: `workload ${workload}; the same on each node` }]
}

/** "25% of the memory in your system … With less than 1GB of RAM, a smaller percentage" (the manual on shared_buffers). */
function sharedBuffers(memory: number): number {
  return memory < GB ? floorTo(memory * 0.15, MB) : floorTo(memory / 4, MB)
}

function memorySettings(
  memory: number,
  buffers: number,
  { workload, maxConnections, maxWorkerProcesses }: TuningTarget,
): Setting[] {
  const maintenance = Math.min(memory / (workload === 'dw' ? 8 : 16), 2 * GB)
  return [
    {
      name: 'shared_buffers',
      value: size(buffers),
      because: `${memory < GB ? '15%' : 'a quarter'} of ${size(memory)} of RAM`,
    },
    // With `try` on a small server nothing is gained, and a container without huge pages may be killed for it.
    { name: 'huge_pages', value: buffers >= 2 * GB ? 'try' : 'off', because: 'worth it from 2GB of shared_buffers' },
    {
      name: 'work_mem',
      value: size(workMemory(memory, buffers, { workload, maxConnections, maxWorkerProcesses })),
      because: 'each sort or hash may take it, several a query, in every connection',
    },
    { name: 'maintenance_work_mem', value: size(floorTo(maintenance, MB)), because: 'for each VACUUM, CREATE INDEX' },
  ]
}

/**
 * (RAM − shared_buffers) / ((max_connections + max_worker_processes) × 3): a query can take work_mem several times over,
 * and the rest of the RAM must do for all of them. Half of it where queries are large. Never less than PostgreSQL’s own 4 MB.
 */
function workMemory(
  memory: number,
  buffers: number,
  { workload, maxConnections, maxWorkerProcesses }: TuningTarget,
): number {
  const share = (memory - buffers) / ((maxConnections + maxWorkerProcesses) * 3)
  const each = workload === 'dw' || workload === 'mixed' ? share / 2 : share
  return Math.max(4 * MB, floorTo(each, each < 16 * MB ? 256 * KB : MB))
}

function workers(cpus: number, { workload, maxWorkerProcesses }: TuningTarget): Setting[] {
  const half = Math.ceil(cpus / 2)
  // Beyond four, pgtune finds, a query that is no report gains nothing from one more.
  const perGather = cpus === 1 ? 0 : workload === 'dw' ? half : Math.min(half, 4)
  const because = `${cpus} CPU${cpus === 1 ? '' : 's'}`
  return [
    {
      name: 'max_worker_processes',
      value: maxWorkerProcesses,
      because: 'one a CPU, 8 at least; the same on each node',
    },
    { name: 'max_parallel_workers', value: cpus, because },
    { name: 'max_parallel_workers_per_gather', value: perGather, because },
    { name: 'max_parallel_maintenance_workers', value: cpus === 1 ? 0 : Math.min(half, 4), because },
  ]
}

const WAL_SIZE: Record<Workload, number> = { web: 4 * GB, oltp: 8 * GB, dw: 16 * GB, mixed: 4 * GB }

function walSettings({ diskBytes, ownDisk }: TuningFacts['wal'], buffers: number, workload: Workload): Setting[] {
  const tenth = Math.max(stepDown(diskBytes / 10), 128 * MB)
  const wanted = WAL_SIZE[workload]
  const most = Math.min(wanted, tenth)
  const kept = ownDisk ? Math.max(stepDown(diskBytes / 2), 128 * MB) : tenth
  const bounded = most < wanted ? 'a tenth of the disk' : `workload ${workload}`
  return [
    { name: 'wal_buffers', value: size(walBuffers(buffers)), because: '3% of shared_buffers, 16MB at most' },
    { name: 'checkpoint_completion_target', value: 0.9 },
    { name: 'max_wal_size', value: size(most), because: bounded },
    // Two segments of 16 MB are the least that a server starts with; 32 MB are two.
    { name: 'min_wal_size', value: size(Math.max(most / 4, 32 * MB)), because: bounded },
    {
      name: 'max_slot_wal_keep_size',
      value: size(kept),
      because: `${ownDisk ? 'half' : 'a tenth'} of the disk: a lost standby must not fill it`,
    },
  ]
}

/** As PostgreSQL computes it since 9.1, but rounded up to a whole segment when it is near one. */
function walBuffers(buffers: number): number {
  const share = (buffers * 3) / 100
  return share > 14 * MB ? 16 * MB : Math.max(floorTo(share, 8 * KB), 32 * KB)
}

const IO_CONCURRENCY = { ssd: 200, hdd: 2 }

function plannerSettings(disk: TuningFacts['disk'], memory: number, workload: Workload): Setting[] {
  const cached = disk === 'ssd' && workload !== 'dw'
  return [
    // An index scan that is picked for a large part of a table is the worst plan of a warehouse: there it keeps its price.
    ...(disk === 'unknown'
      ? []
      : [
          { name: 'random_page_cost', value: cached ? 1.1 : 4, because: `${disk}, workload ${workload}` },
          { name: 'effective_io_concurrency', value: IO_CONCURRENCY[disk], because: disk },
        ]),
    {
      name: 'effective_cache_size',
      value: size((memory * 3) / 4),
      because: `three quarters of ${size(memory)} of RAM`,
    },
    { name: 'default_statistics_target', value: workload === 'dw' ? 500 : 100, because: `workload ${workload}` },
    ...(workload === 'dw'
      ? []
      : [{ name: 'jit', value: false, because: 'costs more than it gains where queries are short' }]),
  ]
}

/** From which duration on a statement is worth a line of the log. */
const SLOW: Record<Workload, string> = { web: '1s', oltp: '1s', dw: '5min', mixed: '5s' }

/**
 * What a person needs who reads the log after something happened. Not every statement: `log_statement = all` fills
 * disks, slows the server down and writes down what is in the statements, passwords too.
 */
export function logSettings(workload: Workload): Setting[] {
  return [
    { name: 'log_checkpoints', value: true },
    { name: 'log_lock_waits', value: true },
    { name: 'log_temp_files', value: '64MB', because: 'a query that needs more work_mem' },
    { name: 'log_autovacuum_min_duration', value: '1min' },
    { name: 'log_min_duration_statement', value: SLOW[workload], because: `slow for workload ${workload}` },
  ]
}

const floorTo = (value: number, step: number) => Math.floor(value / step) * step

/** Down to 1, 1.5, 2, 3, 4, 6, … : where a file system grows and shrinks a little, this stays. */
function stepDown(bytes: number): number {
  const power = 2 ** Math.floor(Math.log2(Math.max(bytes, MB)))
  return bytes >= power * 1.5 ? power * 1.5 : power
}

/** In the largest unit that says it exactly, as PostgreSQL writes it. */
function size(bytes: number): string {
  if (bytes % GB === 0) return `${bytes / GB}GB`
  return bytes % MB === 0 ? `${bytes / MB}MB` : `${Math.floor(bytes / KB)}kB`
}
