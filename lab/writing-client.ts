/** A client of a cluster in a lab that writes while roles change (`writer.ts`), and what its report shows. */
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Lab } from './lab.js'
import { projectRoot } from './service.js'
import type { WriterReport } from './writer.js'

const PASSWORD = 'a client of the cluster'

/** For the description of a cluster whose client this is. */
export const writerAccess = (lab: Lab) => [{ address: `${lab.gateway}/32`, users: ['app'] }]

const psql = async (lab: Lab, host: string, statement: string) =>
  (await lab.exec(host, ['sudo', '-u', 'postgres', 'psql', '-XAtqc', statement])).stdout.trim()

/** Makes the role and the table that it needs, on the primary. */
export async function prepareWriter(lab: Lab, primary: string): Promise<void> {
  await psql(lab, primary, `CREATE ROLE app LOGIN PASSWORD '${PASSWORD}'`)
  await psql(lab, primary, 'CREATE TABLE written (id bigint PRIMARY KEY); GRANT ALL ON written TO app')
}

export interface Writer {
  /** Asks it to stop and returns what it has seen. */
  end(): Promise<WriterReport>
  kill(): void
}

export async function startWritingClient(lab: Lab, addresses: readonly string[]): Promise<Writer> {
  const child = await lab.spawn([process.execPath, join(projectRoot, 'dist/lab/writer.js'), addresses.join(',')], {
    env: { ...process.env, WRITER_PASSWORD: PASSWORD },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  if (!child.stdout) throw new Error('no output')
  const output = text(child.stdout)
  const ended = once(child, 'exit')
  return {
    kill: () => void child.kill('SIGKILL'),
    async end() {
      child.kill('SIGTERM')
      await ended
      return JSON.parse(await output) as WriterReport
    },
  }
}

/** Rows that were acknowledged and are not there. */
export async function lostRows(lab: Lab, primary: string, { acknowledged }: WriterReport): Promise<number[]> {
  const there = new Set((await psql(lab, primary, 'SELECT id FROM written')).split('\n').map(Number))
  return acknowledged.filter(id => !there.has(id))
}

/** Spans in which two hosts said that they accept writes, in milliseconds. */
export function overlaps({ writable }: WriterReport): { hosts: string[]; ms: number }[] {
  const spans = Object.entries(writable).flatMap(([host, of]) => of.map(span => ({ host, ...span })))
  return spans.flatMap((a, index) =>
    spans.slice(index + 1).flatMap(b => {
      const ms = Math.min(a.to, b.to) - Math.max(a.from, b.from)
      return a.host !== b.host && ms > 0 ? [{ hosts: [a.host, b.host], ms }] : []
    }),
  )
}
