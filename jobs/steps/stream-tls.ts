/** How a standby connects to the node that it streams from: by verified TLS, or as libpq does by itself. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { hasTls } from '../../src/cluster/tls.js'
import { upstreamOf } from '../../src/cluster/topology.js'
import { act, runSql } from '../../src/host/actions.js'
import type { Check, Step } from '../../src/operations/step.js'
import { tlsFiles } from '../../src/postgres/tls.js'
import { verified } from '../../src/repmgr/conf.js'
import type { Bench } from '../bench.js'
import { until } from '../until.js'
import { askLocal, superuser } from './local-sql.js'

const STREAM_TIMEOUT_MS = 120_000

/** What is about TLS in a connection string, whoever wrote it. */
const ABOUT_TLS = String.raw`\s*\mssl(mode|rootcert)\s*=\s*(''[^'']*''|[^\s'']\S*)`

/**
 * What repmgr wrote when it cloned stays in primary_conninfo, whatever its metadata say later. Edited by the server itself:
 * it may hold a password, which is nobody's business here. From version 13 on the receiver alone starts anew for it.
 */
export function streamStep(bench: Bench, node: ClusterNode, primary: ClusterNode): Step {
  const upstream = upstreamOf(node, bench.cluster.nodes, primary)
  const tls = hasTls(bench.cluster)
  const wanted = tls ? ` ${verified(tlsFiles(bench.layout).ca)}` : ''
  const rest = `regexp_replace(current_setting('primary_conninfo'), '${ABOUT_TLS}', '', 'g')`
  const found = async (signal: AbortSignal) => {
    // As it is: without what is about TLS, and with what should be. Quotes around a value change nothing.
    const [right, streaming] = (
      await askLocal(
        bench,
        node,
        signal,
        `WITH c AS (SELECT current_setting('primary_conninfo') AS own)
         SELECT ${
           tls
             ? `own ~ '\\msslmode=''?verify-full''?(\\s|$)' AND own ~ '\\msslrootcert=''?${tlsFiles(bench.layout).ca.replaceAll('.', '\\.')}''?(\\s|$)'`
             : `own !~ '\\mssl(mode|rootcert)\\s*='`
         },
         EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') FROM c`,
      )
    ).split('|')
    return { right: right === 't', streaming: streaming === 't' }
  }
  /** On the other end: only there is it known how the stream comes. */
  const isEncrypted = async (signal: AbortSignal) => {
    const answer = await askLocal(
      bench,
      upstream,
      signal,
      `SELECT bool_and(s.ssl) FROM pg_stat_replication r JOIN pg_stat_ssl s USING (pid) WHERE r.application_name = '${node.name}'`,
    )
    return answer === 't'
  }
  return {
    id: `${node.name}/stream`,
    kind: 'change',
    title: tls
      ? `stream from ${upstream.name} by TLS, and verify it`
      : `stream from ${upstream.name} without insisting on TLS`,
    node: node.name,
    actions: [
      runSql(bench.host(node), bench.cluster.name, {
        ...superuser(bench),
        shown: `ALTER SYSTEM SET primary_conninfo = '…${wanted}'; SELECT pg_reload_conf()`,
        statement: () =>
          `SELECT format('ALTER SYSTEM SET primary_conninfo = %L', ${rest} || '${wanted}') \\gexec\nSELECT pg_reload_conf() \\g /dev/null\n`,
      }),
      act('wait until it streams again', context =>
        until(`${node.name} streams from ${upstream.name} as it should`, STREAM_TIMEOUT_MS, context, async () => {
          const { right, streaming } = await found(context.signal)
          return right && streaming && (!tls || (await isEncrypted(context.signal)))
        }),
      ),
    ],
    async check({ signal }): Promise<Check> {
      const { right, streaming } = await found(signal)
      if (!right)
        return {
          done: false,
          reason: `its primary_conninfo ${tls ? 'does not verify' : 'insists on verifying'} ${upstream.name}`,
        }
      if (!streaming) return { done: false, reason: 'it does not stream' }
      if (tls && !(await isEncrypted(signal))) return { done: false, reason: 'its stream is not encrypted' }
      return { done: true, ...(tls ? { note: 'its stream is encrypted and verified' } : {}) }
    },
  }
}
