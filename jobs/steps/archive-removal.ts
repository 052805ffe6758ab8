/** What an archive, or logins between the nodes, have left where neither is wanted any more. */
import { type Stage, stage } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { archiveRemoval } from './archive.js'
import { nodeSshRemoval } from './node-ssh.js'

/** Empty where there is nothing of it; `always` looks again in any case, for a plan that is to show it. */
export function archiveRemovalStages(bench: Bench, always = false): Stage[] {
  const tracks = bench.cluster.nodes
    .filter(({ name }) => !bench.absent.has(name))
    .map(node => [...archiveRemoval(bench, node, always), ...nodeSshRemoval(bench, node, always)])
  return tracks.some(track => track.length > 0) ? [stage('take away what is not wanted any more', ...tracks)] : []
}
