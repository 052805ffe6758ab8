/** The proof that settings are what was asked for: by each server's own word, not by what is in a file. */
import type { ClusterNode } from '../../src/cluster/model.js'
import type { SettingsChange } from '../../src/cluster/settings-change.js'
import { act } from '../../src/host/actions.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { heldBack, heldBackNote } from './held-back.js'
import { settingState } from './settings.js'

/** Thrown when a server does not run with a setting that was written, though nothing waits for a restart. */
export class SettingNotInEffect extends OperationError {
  constructor(node: string, details: readonly string[]) {
    super(`${node} does not run with what was written: ${details.join('; ')}.`, {
      code: 'setting-not-in-effect',
      outcome: 'failed_partial',
      remedy:
        'Take away the line that counts instead (ALTER SYSTEM RESET for postgresql.auto.conf), or mend the value; then repeat the call.',
    })
  }
}

/** The names that the call changes on this node. */
export const namesFor = ({ settings = {}, nodes = {} }: SettingsChange, node: ClusterNode) =>
  new Set([...Object.keys(settings), ...Object.keys(Object.hasOwn(nodes, node.name) ? (nodes[node.name] ?? {}) : {})])

export function proveSettings(bench: Bench, nodes: readonly ClusterNode[], input: SettingsChange): Step {
  return {
    id: 'cluster/settings-proof',
    kind: 'verify',
    title: 'see that each server runs with what was written',
    actions: [
      act(
        'ask each server which settings are in effect, and which wait for a restart',
        async ({ signal, note, log }) => {
          const waiting: string[] = []
          const later: string[] = []
          for (const node of nodes) {
            const { pending, shadowed, wrong } = await settingState(bench, node, signal)
            const names = namesFor(input, node)
            const details = [
              ...wrong.map(({ name, error }) => `${name}: ${error}`),
              ...shadowed.filter(({ name }) => names.has(name)).map(({ name, by }) => `${name} is set again in ${by}`),
            ]
            for (const { name, by } of shadowed) log(`${node.name}: ${name} is set again in ${by}, which counts`)
            if (details.length > 0) throw new SettingNotInEffect(node.name, details)
            const held = pending.length > 0 ? (await heldBack(bench, node, signal)).held : []
            if (held.length > 0) later.push(heldBackNote(node, pending, held))
            else if (pending.length > 0) waiting.push(`${node.name}: ${pending.join(', ')}`)
          }
          if (waiting.length === 0)
            return note(later.length === 0 ? 'every setting is in effect' : `in effect elsewhere; ${later.join('; ')}`)
          if (input.restart !== undefined && input.restart !== 'never')
            throw new SettingNotInEffect('the cluster', waiting)
          note(`in effect, but for what waits for a restart: ${[...waiting, ...later].join('; ')}`)
        },
      ),
    ],
  }
}
