/** What the postgres user may run as root. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { runCommand } from '../../src/host/actions.js'
import { sudoers, sudoersFile } from '../../src/host/sudoers.js'
import type { Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { fileStep } from './file-step.js'

/** Checked by visudo before it is put into place: a file that sudo cannot read would shut everybody out. */
export function writeSudoers(bench: Bench, node: ClusterNode): Step {
  const { name } = bench.cluster
  const content = sudoers(name, bench.layout.unit)
  return fileStep(bench, node, {
    id: 'sudoers',
    title: 'let the postgres user start and stop this server, and nothing else, as root',
    file: { path: sudoersFile(name), content, owner: 'root:root', mode: '0440' },
    before: [
      runCommand(bench.host(node), name, {
        argv: ['/usr/sbin/visudo', '-c', '-f', '-'],
        as: 'root',
        stdin: content,
        timeoutMs: 30_000,
      }),
    ],
  })
}
