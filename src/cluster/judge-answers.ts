/** What the hosts answered comes in, a verdict on each edge goes out. Pure. */
import type { Answered, CheckedCluster, HostAnswer } from './check-answers.js'
import { judgePeer, judgeService } from './check-edges.js'
import { judgeClock, judgeDisk, judgeKernel, judgeSsh, judgeSudo } from './check-hosts.js'
import { judgeArchive, judgeCertificate, judgePrimary, judgeServer } from './check-servers.js'
import { judgeVersions } from './check-versions.js'
import type { CheckResult } from './checks.js'
import { sshMembers } from './node-ssh.js'

/** Everything that the answers say, worst first. */
export function judgeAnswers(cluster: CheckedCluster, answers: readonly HostAnswer[]): CheckResult[] {
  const there = answers.filter((answer): answer is Answered => !('failure' in answer))
  const databaseBytes = Math.max(0, ...there.map(({ server }) => server?.databaseBytes ?? 0))
  const members = sshMembers(cluster).map(({ name }) => name)
  const built = answers.filter(answer => answer.built).map(({ node }) => node)
  const items = [
    ...answers.map(judgeSsh),
    ...answers.flatMap(judgeService),
    ...judgePrimary(cluster, answers),
    ...judgeArchive(cluster, answers),
    ...there.flatMap(answer => [
      ...judgeServer(cluster, answer),
      ...judgeSudo(answer),
      judgeClock(answer),
      judgeDisk(answer, databaseBytes),
      ...judgeKernel(answer),
      ...judgeCertificate(answer),
      ...Object.entries(answer.peers).flatMap(([to, peer]) =>
        judgePeer(answer.node, to, peer, {
          built: built.includes(to),
          ssh: members.includes(answer.node) && members.includes(to),
        }),
      ),
    ]),
    ...judgeVersions(cluster.postgresVersion, there),
  ]
  const rank = { failed: 0, warning: 1, ok: 2 }
  return items.sort((a, b) => rank[a.verdict] - rank[b.verdict])
}
