/** What the checks say of the ways between the nodes, and from this service to their servers. Pure. */
import type { HostAnswer, PeerAnswer, PortAnswer } from './check-answers.js'
import type { CheckResult } from './checks.js'

export function judgeService({ node, service }: HostAnswer): CheckResult[] {
  if (!service) return []
  const edge = { kind: 'postgres_client', to: node } as const
  if (service.ok) return [{ ...edge, verdict: 'ok', detail: `this service is let in by ${node} as repmgr` }]
  const { detail, remedy } = service
  return [{ ...edge, verdict: 'failed', detail, remedy }]
}

interface Expected {
  /** Whether the server there was built: then it has to listen. */
  built: boolean
  /** Whether the archive or logins go from here to there by SSH. */
  ssh: boolean
}

export function judgePeer(from: string, to: string, peer: PeerAnswer, expected: Expected): CheckResult[] {
  const edge = { from, to } as const
  if (peer.resolvesTo === undefined) {
    return [
      {
        ...edge,
        kind: 'name_resolution',
        verdict: 'failed',
        detail: `the name of ${to} does not resolve on ${from}`,
        remedy: `Put it into DNS or into /etc/hosts of ${from}, or describe the node by its address.`,
      },
    ]
  }
  return [
    { ...edge, kind: 'name_resolution', verdict: 'ok', detail: peer.resolvesTo },
    judgePort(edge, peer.postgres, expected.built),
    judgeNodeSsh(edge, peer, expected),
    ...(expected.built && peer.postgres === 'open'
      ? [
          ...judgeLogin(edge, 'postgres_client', 'a client', peer.client),
          ...judgeLogin(edge, 'postgres_replication', 'a replication client', peer.replication),
        ]
      : []),
  ]
}

interface Edge {
  from: string
  to: string
}

/** Nobody listens before the server is built; a firewall that drops is wrong at any time. */
function judgePort({ from, to }: Edge, answer: PortAnswer, built: boolean): CheckResult {
  const edge = { kind: 'port', from, to } as const
  const what = 'the PostgreSQL port'
  if (answer === 'open') return { ...edge, verdict: 'ok', detail: `${what} can be reached` }
  if (answer === 'silent') {
    return {
      ...edge,
      verdict: 'failed',
      detail: `${what} does not answer within 3 s`,
      remedy: `Look for a firewall between ${from} and ${to}.`,
    }
  }
  if (!built) return { ...edge, verdict: 'ok', detail: `nobody listens on ${what} yet` }
  return {
    ...edge,
    verdict: 'failed',
    detail: `nobody listens on ${what}`,
    remedy: `Start PostgreSQL on ${to}. Where it runs, look at its listen_addresses, and for a firewall that refuses ${from}.`,
  }
}

function judgeNodeSsh({ from, to }: Edge, { ssh, login }: PeerAnswer, { built, ssh: needed }: Expected): CheckResult {
  const edge = { from, to } as const
  if (ssh !== 'open') {
    const detail = `the SSH port ${ssh === 'silent' ? 'does not answer' : 'is refused'}`
    return needed
      ? {
          ...edge,
          kind: 'ssh',
          verdict: 'failed',
          detail,
          remedy: `This cluster has an archive that ships, or logins between its nodes. Start sshd on ${to}, or look for a firewall between ${from} and ${to}.`,
        }
      : {
          ...edge,
          kind: 'port',
          verdict: 'warning',
          detail,
          remedy: 'Only repmgr’s own switchover and a shipped WAL archive need SSH between the nodes.',
        }
  }
  if (!needed || !login || !built)
    return { ...edge, kind: 'port', verdict: 'ok', detail: 'the SSH port can be reached' }
  if (login.ok)
    return { ...edge, kind: 'ssh', verdict: 'ok', detail: `the key of postgres on ${from} is let in on ${to}` }
  return { ...edge, kind: 'ssh', verdict: 'failed', detail: login.detail, remedy: login.remedy }
}

function judgeLogin(
  edge: { from: string; to: string },
  kind: 'postgres_client' | 'postgres_replication',
  what: string,
  login: PeerAnswer['client'],
): CheckResult[] {
  if (!login) return []
  return [
    login.ok
      ? { ...edge, kind, verdict: 'ok', detail: `${edge.from} is let in as ${what}` }
      : {
          ...edge,
          kind,
          verdict: 'failed',
          detail: `${edge.from} is not let in as ${what}: ${login.said}`,
          remedy:
            'The managed block of pg_hba.conf or the pass file is not as it should be. PUT the description of the cluster mends both.',
        },
  ]
}
