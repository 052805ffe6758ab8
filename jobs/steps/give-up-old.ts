/** The last rung: the copy that a node has makes room for a new one, and is moved aside where somebody wants to have it. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { chooseRung, type RebuildMethod } from '../../src/cluster/rejoin.js'
import { act, changing } from '../../src/host/actions.js'
import { CommandFailed } from '../../src/host/errors.js'
import type { ChangeStep, Check, CheckContext, Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { holdingOf } from './comeback.js'
import { DataDirectoryInUse, markerFile } from './data-directory.js'
import { giveUpCopy, seeThatItFits } from './give-up-copy.js'
import { methodNow, unlessBack } from './is-back.js'
import { keptFolder } from './loss-report.js'
import { onceRegistered } from './order.js'
import { WORKING_IN } from './processes.js'
import { clone, forgetClone } from './standby.js'

const REFUSED = 77
/** Moved, not copied: so it has to be one folder of one file system. The mark goes first, as when it is emptied. */
const ASIDE = `${WORKING_IN}
marker=$1 data=$2 used=$3 cloning=$4 identifier=$5 control=$6 kept=$7
refuse() { echo "$1" >&2; exit ${REFUSED}; }
[ ! -e "$kept/data" ] || exit 0
[ -f "$marker" ] || refuse "there is no mark of this service"
found=$(cat "$marker")
[ "$found" = "$used" ] || [ "$found" = "$cloning" ] || refuse "it is marked as $found"
[ -f "$data/standby.signal" ] || refuse "it is no standby"
own=$("$control" "$data" | sed -n 's/^Database system identifier: *//p')
[ "$own" = "$identifier" ] || refuse "it is another database cluster ($own)"
[ ! -L "$data" ] && ! mountpoint -q "$data" || refuse "it is a mount point or a link, so it cannot be moved aside: repeat the call without keepOldData"
[ ! -L "$data/pg_wal" ] || refuse "its pg_wal is elsewhere, so it cannot be moved aside: repeat the call without keepOldData"
for link in "$data"/pg_tblspc/*; do [ ! -L "$link" ] || refuse "it has tablespaces, so it cannot be moved aside: repeat the call without keepOldData"; done
install -d -o postgres -g postgres -m 0700 "\${kept%/*}" "$kept" || exit 1
[ "$(stat -c %d "$data")" = "$(stat -c %d "$kept")" ] || refuse "$kept is on another file system, so it cannot be moved there: repeat the call without keepOldData"
busy=$(working_in "$data")
[ -z "$busy" ] || refuse "a process works in it: $busy"
umask 022
echo "$cloning" >"$marker.new" && sync "$marker.new" && mv -fT "$marker.new" "$marker" && sync "\${marker%/*}" || exit 1
mv -T "$data" "$kept/data" && install -d -o postgres -g postgres -m 0700 "$data" && sync "$kept" "\${data%/*}"`

export interface GiveUpOptions {
  method: RebuildMethod
  keepOldData: boolean
}

/** Both run only where the rewind, which comes before them, has found that it has to be a clone. */
export function cloneInstead(bench: Bench, node: ClusterNode, primary: ClusterNode, options: GiveUpOptions): Step[] {
  const { method, keepOldData } = options
  /** Why the copy stays; undefined where it does not. In a preview the rewind has not been tried yet. */
  const stays = async (context: CheckContext) => {
    const { signal, operationId } = context
    const wanted = await methodNow(bench, node, method, context)
    const { rung, why } = chooseRung(await holdingOf(bench, node, primary, signal), wanted)
    if (rung === 'follow') return why
    return operationId === undefined && rung !== 'clone' ? 'only where it cannot be rewound' : undefined
  }
  const giveUp = keepOldData ? putAside(bench, node, primary) : (giveUpCopy(bench, node, primary) as ChangeStep)
  const copy = onceRegistered(bench, primary, clone(bench, node, primary))
  const whereNeeded = (step: ChangeStep): ChangeStep =>
    unlessBack(bench, node, primary, method, {
      ...step,
      async check(context): Promise<Check> {
        const why = await stays(context)
        return why === undefined ? step.check(context) : { done: true, note: why }
      },
    })
  const onceGone: ChangeStep = {
    ...copy,
    async check(context) {
      const { everStarted } = await bench.inspect(node, context.signal)
      return everStarted
        ? { done: false, reason: 'it still holds the copy that is to be replaced' }
        : copy.check(context)
    },
  }
  return [whereNeeded(giveUp), whereNeeded(onceGone)]
}

function putAside(bench: Bench, node: ClusterNode, primary: ClusterNode): ChangeStep {
  const { layout, cluster } = bench
  const identifier = cluster.systemIdentifier ?? bench.found(primary).server.systemIdentifier ?? ''
  const forget = forgetClone(bench, node)
  return {
    id: `${node.name}/give-up-copy`,
    kind: 'change',
    title: 'move its data directory aside',
    node: node.name,
    actions: [
      seeThatItFits(bench, node, primary, 'kept-aside'),
      forget,
      act(
        `move ${layout.dataDirectory} to ${layout.home}/understudy-kept`,
        async ({ epoch, signal, operationId, log }) => {
          const kept = keptFolder(bench, node, operationId)
          log(`move it to ${kept}/data`)
          try {
            await changing(bench.host(node), cluster.name, epoch).run(
              {
                argv: [
                  ...['sh', '-c', ASIDE, 'understudy-aside', layout.marker, layout.dataDirectory],
                  ...(['in-use', 'cloning'] as const).map(state => markerFile(bench, node, state).content.trim()),
                  ...[identifier, `${layout.binDirectory}/pg_controldata`, kept],
                ],
                as: 'root',
                timeoutMs: 60_000,
                shownAs: `mv -T ${layout.dataDirectory} ${kept}/data   # only where it is a stopped standby of this database`,
              },
              { signal },
            )
          } catch (error) {
            if (!(error instanceof CommandFailed && error.exitCode === REFUSED)) throw error
            throw new DataDirectoryInUse(node.name, layout.dataDirectory, error.result.stderr.trim())
          }
        },
      ),
    ],
    async check({ signal, operationId }): Promise<Check> {
      const { copy } = await holdingOf(bench, node, primary, signal)
      if (copy === 'used') return { done: false, reason: 'it holds a copy that was used' }
      return operationId === undefined
        ? { done: true }
        : { done: true, note: `what was moved aside is in ${keptFolder(bench, node, operationId)}/data` }
    },
  }
}
