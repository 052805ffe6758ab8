/** The first server: started, given repmgr's role and database, registered. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { act, putFile, runCommand, runSql } from '../../src/host/actions.js'
import type { Check, Step } from '../../src/operations/step.js'
import { ServerUnreachable } from '../../src/postgres/connect.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import { registerPrimary } from '../../src/repmgr/commands.js'
import { readMetadata } from '../../src/repmgr/metadata.js'
import type { Bench } from '../bench.js'
import { until } from '../until.js'
import { markerFile } from './prepare-host.js'

export function startPrimary(bench: Bench, node: ClusterNode): Step[] {
  return [startServer(bench, node), makeRole(bench, node), makeDatabase(bench, node), register(bench, node)]
}

const START_TIMEOUT_MS = 120_000

/** Marked as in use before it can first accept a write: from then on nothing here ever wipes it. */
export function startServer(bench: Bench, node: ClusterNode): Step {
  const host = bench.host(node)
  return {
    id: `${node.name}/start`,
    kind: 'change',
    title: 'start the server',
    node: node.name,
    actions: [
      putFile(host, bench.cluster.name, markerFile(bench, node, 'in-use')),
      runCommand(host, bench.cluster.name, {
        argv: ['systemctl', 'start', bench.layout.unit],
        as: 'root',
        timeoutMs: START_TIMEOUT_MS,
      }),
      act('wait until it accepts connections', ({ signal }) =>
        until(
          `PostgreSQL on ${node.name} accepts connections`,
          START_TIMEOUT_MS,
          signal,
          async () => (await bench.inspect(node, signal)).inRecovery !== undefined,
        ),
      ),
    ],
    async check({ signal }): Promise<Check> {
      const { running, inRecovery } = await bench.inspect(node, signal)
      if (!running) return { done: false, reason: 'it is not running' }
      return inRecovery === undefined
        ? { done: false, reason: 'it runs, but does not accept connections yet' }
        : { done: true }
    },
  }
}

const superuser = (bench: Bench, database = 'postgres') => ({
  psql: `${bench.layout.binDirectory}/psql`,
  port: bench.cluster.port,
  database,
})

/** repmgr's tools expect a superuser. Only a verifier leaves this process; the password itself is in .pgpass alone. */
function makeRole(bench: Bench, node: ClusterNode): Step {
  return {
    id: `${node.name}/repmgr-role`,
    kind: 'change',
    title: 'make the role repmgr, with a generated password',
    node: node.name,
    actions: [
      runSql(bench.host(node), bench.cluster.name, {
        ...superuser(bench),
        shown: "CREATE ROLE repmgr; ALTER ROLE repmgr LOGIN SUPERUSER PASSWORD '<SCRAM verifier>'",
        statement: () =>
          `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'repmgr') THEN CREATE ROLE repmgr; END IF; END $$;\n` +
          `ALTER ROLE repmgr LOGIN SUPERUSER PASSWORD '${scramVerifier(bench.password)}';\n`,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const answer = await askLocal(
        bench,
        node,
        signal,
        "SELECT rolcanlogin AND rolsuper FROM pg_roles WHERE rolname = 'repmgr'",
      )
      if (answer !== 't')
        return { done: false, reason: answer === '' ? 'there is no such role' : 'it is no superuser that may log in' }
      // Its own database may not be there yet: what is asked is whether the password is right.
      try {
        await bench.ask(node, { signal }, async query => query('SELECT 1'))
      } catch (error) {
        if (error instanceof ServerUnreachable && error.reason === 'authentication')
          return { done: false, reason: 'its password is another one' }
        if (!(error instanceof ServerUnreachable && /database "repmgr" does not exist/.test(error.message))) throw error
      }
      return { done: true }
    },
  }
}

function makeDatabase(bench: Bench, node: ClusterNode): Step {
  return {
    id: `${node.name}/repmgr-database`,
    kind: 'change',
    title: 'make the database repmgr',
    node: node.name,
    actions: [
      runSql(bench.host(node), bench.cluster.name, {
        ...superuser(bench),
        shown: 'CREATE DATABASE repmgr OWNER repmgr',
        statement: () => 'CREATE DATABASE repmgr OWNER repmgr;\n',
      }),
    ],
    async check({ signal }): Promise<Check> {
      const answer = await askLocal(bench, node, signal, "SELECT 1 FROM pg_database WHERE datname = 'repmgr'")
      return answer === '1' ? { done: true } : { done: false, reason: 'there is no such database' }
    },
  }
}

function register(bench: Bench, node: ClusterNode): Step {
  return {
    id: `${node.name}/register`,
    kind: 'change',
    title: 'register the primary with repmgr',
    node: node.name,
    actions: [runCommand(bench.host(node), bench.cluster.name, registerPrimary(bench.layout))],
    async check({ signal }): Promise<Check> {
      const row = (await bench.ask(node, { signal }, readMetadata))?.find(({ nodeId }) => nodeId === node.nodeId)
      if (!row) return { done: false, reason: 'repmgr.nodes does not have it' }
      return row.type === 'primary' && row.active
        ? { done: true }
        : { done: false, reason: `repmgr.nodes has it as ${row.type}${row.active ? '' : ', inactive'}` }
    },
  }
}

/** One value, from the local superuser. */
async function askLocal(bench: Bench, node: ClusterNode, signal: AbortSignal, statement: string): Promise<string> {
  const { psql, port, database } = superuser(bench)
  const { stdout } = await bench.host(node).run(
    {
      argv: [psql, '-XAtqw', '-p', String(port), '-d', database, '-c', statement],
      as: 'postgres',
      timeoutMs: 15_000,
    },
    { signal },
  )
  return stdout.trim()
}
