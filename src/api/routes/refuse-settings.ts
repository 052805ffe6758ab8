/** Settings that no cluster of ours can have are refused before anybody is asked. */
import { type SettingChanges, settingObjections } from '../../cluster/setting-overrides.js'
import { ProblemError } from '../problems.js'

export function refuseSettings(asked: {
  settings?: SettingChanges
  nodes?: readonly { settings?: SettingChanges }[]
}): void {
  const errors = settingObjections(asked)
  if (errors.length > 0)
    throw new ProblemError('setting-refused', errors.map(({ detail }) => detail).join(' '), { errors })
}
