/** A call that changes settings of PostgreSQL on a running cluster. */
import { type Static, Type } from 'typebox'
import { type Cluster, NodeName } from './model.js'
import { changed, SettingName, SettingValue } from './setting-overrides.js'
import { Workload } from './workload.js'

const Changes = Type.Record(Type.String(), Type.Union([...SettingValue.anyOf, Type.Null()]), {
  propertyNames: SettingName,
  maxProperties: 200,
  title: 'SettingChanges',
  description:
    'Settings of PostgreSQL by name. null takes one away: then what is computed counts again, or PostgreSQL’s own.',
})

export const SettingsChange = Type.Object(
  {
    settings: Type.Optional(Changes),
    nodes: Type.Optional(
      Type.Record(Type.String(), Changes, {
        propertyNames: NodeName,
        maxProperties: 16,
        description: 'The same for single nodes, by their names. A node’s count before the cluster’s.',
      }),
    ),
    workload: Type.Optional(Workload),
    restart: Type.Optional(
      Type.Enum(['never', 'when-needed', 'rolling'], {
        title: 'RestartPolicy',
        default: 'never',
        description:
          'never: what needs a restart is written, and waits for one. when-needed: servers with a setting that waits are started ' +
          'again, one after the other, the primary last; while it is, nobody can write. rolling: the same, but the primary has its turn ' +
          'by a switchover to a standby that was restarted, so that writes are refused only for a moment.',
      }),
    ),
  },
  {
    additionalProperties: false,
    title: 'SettingsChange',
    description: 'What is to change. Without anything it brings about what is described and computed already.',
  },
)
export type SettingsChange = Static<typeof SettingsChange>

/** The record with the change in it. The same change twice gives the same. */
export function withSettings(cluster: Cluster, { settings, nodes = {}, workload }: SettingsChange): Cluster {
  const { settings: before, ...rest } = cluster
  const after = changed(before, settings)
  return {
    ...rest,
    ...(workload === undefined ? {} : { workload }),
    ...(after === undefined ? {} : { settings: after }),
    nodes: cluster.nodes.map(node => {
      const { settings: own, ...others } = node
      const left = changed(own, Object.hasOwn(nodes, node.name) ? nodes[node.name] : undefined)
      return { ...others, ...(left === undefined ? {} : { settings: left }) }
    }),
  }
}
