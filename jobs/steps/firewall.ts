/** A host's firewall, opened for those who need to come in. */
import { isIP } from 'node:net'
import type { ClusterNode } from '../../src/cluster/model.js'
import { changing } from '../../src/host/actions.js'
import type { Command } from '../../src/host/command.js'
import { fileMatches, type RemoteFile, writeFile } from '../../src/host/files.js'
import {
  DETECT,
  type FirewallKind,
  type FirewallRules,
  firewallScript,
  scriptPath,
  unitName,
  unitPath,
  unitText,
} from '../../src/host/firewall.js'
import type { Host, RunOptions } from '../../src/host/host.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Action, Step } from '../../src/operations/step.js'
import { ServerUnreachable } from '../../src/postgres/connect.js'
import type { Bench } from '../bench.js'
import { servesAlready } from './reload.js'

/** Thrown when the firewall that was asked for does not run on a host. */
class FirewallAbsent extends OperationError {
  constructor(node: string, asked: string, found: string) {
    super(
      `${node} was to be opened by ${asked}, and ${found === 'none' ? 'no firewall runs there' : `${found} runs there`}.`,
      {
        code: 'firewall-absent',
        outcome: 'not_started',
        remedy: `Start ${asked} on ${node}, or describe the cluster with "firewall": "auto".`,
      },
    )
  }
}

const kindAt = async (bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<FirewallKind | 'none'> => {
  const { stdout } = await bench
    .host(node)
    .run({ argv: ['sh', '-c', DETECT], as: 'root', timeoutMs: 30_000, shownAs: 'see which firewall runs' }, { signal })
  const found = stdout.trim() as FirewallKind | 'none'
  const asked = bench.cluster.firewall ?? 'auto'
  if (asked === 'auto' || asked === 'off' || asked === found) return found
  if (asked === 'nftables' && found === 'none') return 'nftables'
  throw new FirewallAbsent(node.name, asked, found)
}

/** Thrown when the name of somebody who is to be let in does not resolve on a host. Nothing was changed. */
class NameUnresolved extends OperationError {
  constructor(node: string, name: string) {
    super(`${name} does not resolve on ${node}, so its firewall cannot let it in.`, {
      code: 'name-unresolved',
      outcome: 'not_started',
      remedy: `Put ${name} into DNS or into /etc/hosts of ${node}, or describe it by its address.`,
    })
  }
}

/** Thrown when the service did not get in any more once the rules were there. They are gone again. */
class FirewallLockedOut extends OperationError {
  constructor(node: string, detail: string) {
    super(`With the firewall's new rules the service was not let in on ${node}: ${detail}`, {
      code: 'firewall-locked-out',
      outcome: 'failed_clean',
      remedy:
        'The rules are gone again. A server that sees this service under another address than its sshd does needs that address in UNDERSTUDY_CONTROLLER_ADDRESSES; or leave the firewall to somebody else with "firewall": "off".',
    })
  }
}

/** What is to be let in, as the host sees it: a name may be another address there. */
async function resolvedRules(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<FirewallRules> {
  const rules = namedRules(bench, node)
  const names = unique([...rules.postgres.from, ...rules.ssh.from]).filter(one => isIP(one.split('/')[0] ?? '') === 0)
  const addresses = new Map<string, string[]>()
  for (const name of names) {
    const command = { argv: ['getent', 'ahosts', name], as: 'root', timeoutMs: 15_000 } as const
    const { stdout } = await bench.host(node).run(command, { signal, acceptExit: [0, 2] })
    const found = stdout.split('\n').flatMap(line => line.split(/\s+/)[0] || [])
    if (found.length === 0) throw new NameUnresolved(node.name, name)
    addresses.set(name, found)
  }
  const resolve = (from: readonly string[]) => unique(from.flatMap(one => addresses.get(one) ?? [one]))
  return {
    ...rules,
    postgres: { ...rules.postgres, from: resolve(rules.postgres.from) },
    ssh: { ...rules.ssh, from: resolve(rules.ssh.from) },
  }
}

function namedRules(bench: Bench, node: ClusterNode): FirewallRules {
  const { cluster, controllers } = bench
  const members = [...cluster.nodes.map(({ host }) => host), ...controllers]
  const applications = (cluster.access ?? []).flatMap(({ address, method }) => (method === 'reject' ? [] : [address]))
  return {
    cluster: cluster.name,
    postgres: { port: cluster.port, from: unique([...members, ...applications]) },
    ssh: { port: node.ssh.port, from: unique(members) },
    // Clients of a server that was there before come from places that nobody has told us: only who asks for it by name
    // has the port closed to strangers.
    strict: cluster.firewall === 'nftables',
  }
}

const unique = (values: readonly string[]) => [...new Set(values)].sort()

const firewallCommand = (
  kind: FirewallKind,
  rules: FirewallRules,
  verb: 'check' | 'apply' | 'remains' | 'remove',
): Command => ({
  argv: ['sh', '-c', firewallScript(kind, rules), 'understudy-firewall', verb],
  as: 'root',
  timeoutMs: 120_000,
  shownAs: `${verb} the ${kind} rules of ${rules.cluster}`,
})

const filesFor = (rules: FirewallRules): RemoteFile[] => [
  { path: scriptPath(rules.cluster), content: firewallScript('nftables', rules), owner: 'root:root', mode: '0644' },
  { path: unitPath(rules.cluster), content: unitText(rules.cluster), owner: 'root:root', mode: '0644' },
]

/** Nothing where the description says that the firewall is somebody else's business. */
export function openFirewall(bench: Bench, node: ClusterNode): Step[] {
  if (bench.cluster.firewall === 'off') return []
  const { name } = bench.cluster
  const host = bench.host(node)
  const { postgres, ssh } = namedRules(bench, node)
  const sources = postgres.from.join(', ')
  const apply: Action = {
    description: {
      kind: 'wait',
      text: `by firewalld, ufw or nftables, whichever runs: let ${sources} reach ports ${postgres.port} and ${ssh.port}`,
    },
    async perform({ signal, epoch, log }) {
      const kind = await kindAt(bench, node, signal)
      if (kind === 'none') return
      const rules = await resolvedRules(bench, node, signal)
      const changed = changing(host, name, epoch)
      if (kind === 'nftables') await keepForBoot(changed, rules, { signal, onLine: log })
      await changed.run(firewallCommand(kind, rules, 'apply'), { signal, onLine: log })
      await proveLetIn(bench, node, signal).catch(async error => {
        if (!(error instanceof FirewallLockedOut)) throw error
        await changed.run(firewallCommand(kind, rules, 'remove'), { signal, onLine: log })
        throw error
      })
    },
  }
  return [
    {
      id: `${node.name}/firewall`,
      kind: 'change',
      title: 'let the nodes and the service through the firewall, where one runs',
      node: node.name,
      actions: [apply],
      async check({ signal }) {
        const kind = await kindAt(bench, node, signal)
        if (kind === 'none') return { done: true, note: 'no firewall runs on this host' }
        const rules = await resolvedRules(bench, node, signal)
        const { exitCode } = await host.run(firewallCommand(kind, rules, 'check'), { signal, acceptExit: [0, 1] })
        if (exitCode !== 0) return { done: false, reason: `${kind} does not have the rules of this cluster` }
        for (const file of kind === 'nftables' ? filesFor(rules) : [])
          if (!(await fileMatches(host, file, { signal })))
            return { done: false, reason: `${file.path} is missing or different` }
        return { done: true, note: `${kind} lets ${sources} in` }
      },
    },
  ]
}

/** nftables forgets with the boot: a unit brings the rules back. */
async function keepForBoot(changed: Host, rules: FirewallRules, options: RunOptions): Promise<void> {
  const { signal } = options
  const run = (...argv: string[]) => changed.run({ argv, as: 'root', timeoutMs: 60_000 }, options)
  await run('mkdir', '-p', '-m', '0755', '/etc/understudy')
  for (const file of filesFor(rules)) await writeFile(changed, file, signal ? { signal } : {})
  await run('systemctl', 'daemon-reload')
  await run('systemctl', 'enable', unitName(rules.cluster))
}

/** Of a server that runs: whether we still get in. One that does not run says nothing. */
async function proveLetIn(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<void> {
  if (!servesAlready(bench, node)) return
  try {
    await bench.ask(node, { signal }, query => query('SELECT 1'))
  } catch (error) {
    if (error instanceof ServerUnreachable && (error.reason === 'timed_out' || error.reason === 'refused'))
      throw new FirewallLockedOut(node.name, error.message)
    if (!(error instanceof ServerUnreachable)) throw error
  }
}

/** For a host that leaves the cluster: what was opened for it is closed again. The files go with everything else of ours. */
export function closeFirewall(bench: Bench, node: ClusterNode): Step[] {
  if (bench.cluster.firewall === 'off') return []
  const { name } = bench.cluster
  const host = bench.host(node)
  // Whose they are is all that matters for taking them out.
  const rules = namedRules(bench, node)
  const found = async (signal: AbortSignal): Promise<FirewallKind | 'none'> => {
    const kind = await kindAt(bench, node, signal).catch(error => {
      if (error instanceof FirewallAbsent) return 'none' as const
      throw error
    })
    if (kind === 'none') return kind
    const { exitCode } = await host.run(firewallCommand(kind, rules, 'remains'), { signal, acceptExit: [0, 1] })
    return exitCode === 0 ? kind : 'none'
  }
  const close: Action = {
    description: { kind: 'wait', text: `take the rules of ${name} out of the firewall` },
    async perform({ signal, epoch, log }) {
      const kind = await found(signal)
      if (kind === 'none') return
      const changed = changing(host, name, epoch)
      await changed.run(firewallCommand(kind, rules, 'remove'), { signal, onLine: log })
      if (kind === 'nftables')
        await changed.run(
          { argv: ['systemctl', 'disable', unitName(name)], as: 'root', timeoutMs: 60_000 },
          { signal, onLine: log, acceptExit: [0, 1] },
        )
    },
  }
  return [
    {
      id: `${node.name}/close-firewall`,
      kind: 'change',
      title: 'take the rules of this cluster out of the firewall',
      node: node.name,
      actions: [close],
      async check({ signal }) {
        const kind = await found(signal)
        return kind === 'none' ? { done: true } : { done: false, reason: `${kind} has rules of this cluster` }
      },
    },
  ]
}
