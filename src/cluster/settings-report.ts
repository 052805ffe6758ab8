/** What the servers of a cluster run with, and why. */
import { type Static, Type } from 'typebox'
import { SettingValue } from './setting-overrides.js'
import { Workload } from './workload.js'

export const SettingRow = Type.Object(
  {
    name: Type.String({ examples: ['work_mem'] }),
    inEffect: Type.Union([Type.String(), Type.Null()], {
      description: 'As SHOW says it; null where the server does not know it or does not answer.',
      examples: ['64MB'],
    }),
    wanted: Type.Union([...SettingValue.anyOf], {
      description: 'What belongs into the managed file now.',
      examples: ['64MB'],
    }),
    computed: Type.Optional(
      Type.Union([...SettingValue.anyOf], { description: 'What it would be if nobody asked for anything else.' }),
    ),
    source: Type.Enum(['computed', 'cluster', 'node', 'shared'], {
      title: 'SettingSource',
      description:
        'computed: by this service. cluster, node: asked for in the description. shared: a standby must not have less of it than ' +
        'its primary, so that it is the same on each node.',
    }),
    because: Type.Optional(Type.String({ description: 'Why it is computed so.' })),
    pendingRestart: Type.Boolean({
      description: 'The server was told, and runs with another value until it is started again.',
    }),
    setAgainIn: Type.Optional(
      Type.String({
        description: 'A file and line that is read later: that one counts.',
        examples: ['/var/lib/postgresql/15/main/postgresql.auto.conf line 3'],
      }),
    ),
  },
  { additionalProperties: false, title: 'SettingRow', description: 'One setting of one server.' },
)
export type SettingRow = Static<typeof SettingRow>

export const NodeSettings = Type.Object(
  {
    node: Type.String(),
    problem: Type.Optional(Type.String({ description: 'Why nobody could look; then there are no rows.' })),
    pendingRestart: Type.Array(Type.String(), { description: 'Names of all settings that wait for a restart.' }),
    settings: Type.Array(SettingRow, { description: 'Those that this service manages, by name.' }),
  },
  { additionalProperties: false, title: 'NodeSettings', description: 'The settings of one server.' },
)
export type NodeSettings = Static<typeof NodeSettings>

export const SettingsReport = Type.Object(
  {
    cluster: Type.String(),
    workload: Workload,
    nodes: Type.Array(NodeSettings),
    observedAt: Type.String({ format: 'date-time' }),
  },
  {
    additionalProperties: false,
    title: 'SettingsReport',
    description: 'What the servers run with just now, what is wanted, and where that comes from.',
  },
)
export type SettingsReport = Static<typeof SettingsReport>
