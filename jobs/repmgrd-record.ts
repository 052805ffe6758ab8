/** Where it is kept that repmgrd was paused: in the cluster's record, written before the first node is paused. */
import type { RepmgrdHold } from '../src/cluster/repmgrd.js'
import type { Store } from '../src/store/store.js'

export interface RepmgrdRecord {
  read(): Promise<RepmgrdHold | undefined>
  /** Undefined: it is paused nowhere any more. */
  write(hold: RepmgrdHold | undefined): Promise<void>
}

export const repmgrdRecord = ({ clusters }: Pick<Store, 'clusters'>, cluster: string): RepmgrdRecord => ({
  read: async () => (await clusters.get(cluster))?.repmgrd,
  async write(hold) {
    await clusters.amend(cluster, ({ repmgrd: _before, ...rest }) => ({
      cluster: { ...rest, ...(hold === undefined ? {} : { repmgrd: hold }) },
    }))
  },
})
