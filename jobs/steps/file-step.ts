/** Steps that are about one file: ours alone, or one with a block of ours in it. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { changing, putFile } from '../../src/host/actions.js'
import { fileMatches, type RemoteFile, readFile, writeFile } from '../../src/host/files.js'
import type { Action, ChangeStep, Check, Step } from '../../src/operations/step.js'
import { withManagedBlock } from '../../src/postgres/managed-block.js'
import type { Bench } from '../bench.js'

interface AboutFile {
  id: string
  title: string
  before?: ChangeStep['actions']
  after?: ChangeStep['actions']
  /** Why it is not done although the file is as it should be. */
  unfinished?: (signal: AbortSignal) => Promise<string | undefined>
}

/** A step that is done when a file is exactly as it should be. */
export function fileStep(bench: Bench, node: ClusterNode, what: AboutFile & { file: RemoteFile }): ChangeStep {
  const { file } = what
  const same = (signal: AbortSignal) => fileMatches(bench.host(node), file, { signal })
  return aboutFile(node, what, putFile(bench.host(node), bench.cluster.name, file), file.path, same)
}

/** What our block is to be, where that is only known once the hosts are asked; it is given the file as it is. */
export type BlockMaker = (existing: string, signal: AbortSignal) => Promise<string>

/** A step that is done when a file begins with our block; the rest of it is somebody else's and stays. */
export function blockStep(
  bench: Bench,
  node: ClusterNode,
  what: AboutFile & { file: Omit<RemoteFile, 'content' | 'secret'>; block: string | BlockMaker; shown: string },
): Step {
  const { file, block } = what
  const host = bench.host(node)
  // The rest of the file may hold secrets of others: it is treated as if it did.
  const wanted = async (signal: AbortSignal): Promise<RemoteFile> => {
    const existing = (await readFile(host, file.path, { signal })) ?? ''
    const made = typeof block === 'string' ? block : await block(existing, signal)
    return { ...file, content: withManagedBlock(existing, made), secret: true }
  }
  const write: Action = {
    description: { kind: 'file', ...file, content: `${what.shown}(what else is in the file stays as it is)\n` },
    async perform({ signal, epoch }) {
      await writeFile(changing(host, bench.cluster.name, epoch), await wanted(signal), { signal })
    },
  }
  const same = async (signal: AbortSignal) => fileMatches(host, await wanted(signal), { signal })
  return aboutFile(node, what, write, file.path, same)
}

function aboutFile(
  node: ClusterNode,
  { id, title, before = [], after = [], unfinished }: AboutFile,
  write: Action,
  path: string,
  same: (signal: AbortSignal) => Promise<boolean>,
): ChangeStep {
  return {
    id: `${node.name}/${id}`,
    kind: 'change',
    title,
    node: node.name,
    actions: [...before, write, ...after],
    async check({ signal }): Promise<Check> {
      if (!(await same(signal))) return { done: false, reason: `${path} is missing or different` }
      const reason = await unfinished?.(signal)
      return reason === undefined ? { done: true } : { done: false, reason }
    },
  }
}
