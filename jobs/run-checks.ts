/** Preflight: asks every host and every server what the cluster needs of it. Changes nothing. */
import type { HostAnswer, LoginAnswer } from '../src/cluster/check-answers.js'
import { type CheckResult, type Checks, worstOf } from '../src/cluster/checks.js'
import { judgeAnswers } from '../src/cluster/judge-answers.js'
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import { sshMembers } from '../src/cluster/node-ssh.js'
import type { HostPool } from '../src/host/host.js'
import { OperationError } from '../src/operations/errors.js'
import { ServerUnreachable } from '../src/postgres/connect.js'
import { debianLayout } from '../src/postgres/layout.js'
import { trustOf } from '../src/store/authority.js'
import { nextRepmgrPassword, repmgrPassword } from '../src/store/secrets.js'
import type { Store } from '../src/store/store.js'
import { askHost, type Replaced, type Tried } from './ask-host.js'
import { askAs, type Bench } from './bench.js'
import { tryLogin } from './steps/node-ssh.js'

export async function runChecks(
  { store, pool }: { store: Store; pool: HostPool },
  cluster: Cluster,
  signal: AbortSignal,
): Promise<Checks> {
  const tried: Tried = {
    cluster,
    layout: debianLayout(cluster.postgresVersion),
    host: ({ host, ssh: { user, port, hostKey } }) => pool.host({ host, port, user, hostKey }),
    ask: await asker(store, cluster),
  }
  const items = await checkHosts(tried, cluster.nodes, signal)
  return { cluster: cluster.name, verdict: worstOf(items), items, observedAt: new Date().toISOString() }
}

/** In the middle of a rotation, or after one that failed, a server may have the new password already. */
async function asker(store: Store, cluster: Cluster): Promise<Bench['ask']> {
  const [password = '', next, trust] = await Promise.all([
    store.secrets.get(repmgrPassword(cluster.name)),
    store.secrets.get(nextRepmgrPassword(cluster.name)),
    trustOf(store.secrets, cluster),
  ])
  return async (node, options, work) => {
    try {
      return await askAs(cluster, password, trust)(node, options, work)
    } catch (error) {
      const refused = error instanceof ServerUnreachable && error.reason === 'authentication'
      if (!refused || next === undefined) throw error
      return askAs(cluster, next, trust)(node, options, work)
    }
  }
}

/** Every edge between these nodes, and from here to each. */
export async function checkHosts(
  tried: Tried,
  nodes: readonly ClusterNode[],
  signal: AbortSignal,
  replaced?: Replaced,
): Promise<CheckResult[]> {
  const answers = await Promise.all(nodes.map(node => askHost(tried, nodes, node, signal, replaced)))
  await tryLogins(tried, answers, signal)
  return judgeAnswers(tried.cluster, answers)
}

/** From each to each other node that was built, where the cluster needs it, and its port is open: the rest is said already. */
async function tryLogins(tried: Tried, answers: readonly HostAnswer[], signal: AbortSignal): Promise<void> {
  const members = sshMembers(tried.cluster)
  const built = new Map(
    members.flatMap(node => {
      const answer = answers.find(one => one.node === node.name && one.built)
      return answer ? [[node.name, { node, answer }] as const] : []
    }),
  )
  await Promise.all(
    [...built.values()].flatMap(({ node: from, answer }) =>
      'failure' in answer
        ? []
        : Object.entries(answer.peers).map(async ([name, peer]) => {
            const to = built.get(name)?.node
            if (to && peer.ssh === 'open') peer.login = await loginOf(tried, from, to, signal)
          }),
    ),
  )
}

async function loginOf(tried: Tried, from: ClusterNode, to: ClusterNode, signal: AbortSignal): Promise<LoginAnswer> {
  try {
    await tryLogin(tried, from, to, { signal, log: () => undefined })
    return { ok: true }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof OperationError)) throw error
    return { ok: false, detail: error.message, remedy: error.remedy }
  }
}
