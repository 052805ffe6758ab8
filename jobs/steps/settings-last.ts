/**
 * Whoever follows the tutorial sets everything at the bottom of postgresql.conf, behind the line that includes our file: there
 * a change would be written and not count. So the directory is included once more at the very end. Only on adopted nodes; on
 * a server that this service made nothing is there that somebody did not mean to count before it.
 */
import type { ClusterNode } from '../../src/cluster/model.js'
import { changing } from '../../src/host/actions.js'
import { type Command, render } from '../../src/host/command.js'
import type { Action } from '../../src/operations/step.js'
import type { Layout } from '../../src/postgres/layout.js'
import { parseSettingState, settingStateQuery } from '../../src/postgres/setting-state.js'
import type { Bench } from '../bench.js'
import { askLocal } from './local-sql.js'
import { servesAlready } from './reload.js'

const mainFile = ({ configDirectory }: Pick<Layout, 'configDirectory'>) => `${configDirectory}/postgresql.conf`

/** Whether what is in the way is a line of postgresql.conf, which the directory is to come after. `by`: of `SettingState`. */
export const isInMainFile = (layout: Pick<Layout, 'configDirectory'>, by: string) =>
  by.startsWith(`${mainFile(layout)} line `)

/** The whole of it beside itself first: a server that is told to reload meanwhile must never read half a file. */
const APPEND = `set -eu
new=$(mktemp -- "$1.XXXXXX")
trap 'rm -f -- "$new"' EXIT
grep -vxF -e "$2" -- "$1" >"$new" || [ $? -eq 1 ]
printf '%s\\n' "$2" >>"$new"
chown --reference="$1" -- "$new"
chmod --reference="$1" -- "$new"
sync -- "$new"
mv -f -- "$new" "$1"`

export function includeLast(layout: Pick<Layout, 'configDirectory' | 'managedSettings'>): Command {
  const directory = layout.managedSettings.replace(/\/[^/]+$/, '')
  const line = `include_dir = '${directory}'  # by Understudy: what it manages counts before the lines above`
  return {
    argv: ['sh', '-c', APPEND, 'understudy-include', mainFile(layout), line],
    as: 'root',
    timeoutMs: 30_000,
    shownAs: `echo "${line}" >>${mainFile(layout)}   # at its very end, where lines of it set the same again`,
  }
}

/** Names that lines of postgresql.conf set again, in words; undefined where none does, and where nobody can be asked. */
export async function setAgain(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string | undefined> {
  if (node.adopted !== true || !servesAlready(bench, node)) return undefined
  const { layout } = bench
  const said = await askLocal(bench, node, signal, settingStateQuery(layout.managedSettings))
  const names = parseSettingState(said).shadowed.flatMap(({ name, by }) => (isInMainFile(layout, by) ? [name] : []))
  return names.length === 0 ? undefined : `${mainFile(layout)} sets again ${names.join(', ')}`
}

/** Empty on a node that was not adopted. */
export function countLast(bench: Bench, node: ClusterNode): Action[] {
  if (node.adopted !== true || !servesAlready(bench, node)) return []
  const command = includeLast(bench.layout)
  return [
    {
      description: { kind: 'command', text: render(command) },
      async perform({ signal, epoch, log }) {
        const reason = await setAgain(bench, node, signal)
        if (reason === undefined) return
        log(reason)
        await changing(bench.host(node), bench.cluster.name, epoch).run(command, { signal })
      },
    },
  ]
}
