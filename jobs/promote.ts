import type { ClusterNode } from '../src/cluster/model.js'
import { dataNodes, witnesses } from '../src/cluster/topology.js'
import { stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { nodeNamed } from './refusals.js'
import { isDelayedLong } from './steps/delayed-proof.js'
import { lateChange, lateProof } from './steps/late.js'
import { gatherEvidence } from './steps/promotion/evidence.js'
import { refusePromotion } from './steps/promotion/obstacles.js'
import { promoteStandby } from './steps/promotion/promote-standby.js'
import { proveReplication } from './steps/proof.js'
import { recordRoles } from './steps/roles-record.js'
import { dropUnusedSlots } from './steps/unused-slots.js'
import { informWitness } from './steps/witness.js'

/** A host that has not answered by then counts as away: it may be the one that is lost. */
const SURVEY_MS = 5000

async function promotionOf(bench: Bench) {
  const promotion = (await bench.ledger?.read())?.promotion
  return promotion !== undefined && promotion.operation === bench.operationId ? promotion : undefined
}

/** Throws until somebody was promoted. */
async function newPrimary(bench: Bench): Promise<{ primary: ClusterNode; followers: ClusterNode[] }> {
  const promotion = await promotionOf(bench)
  if (!promotion) throw new Error('nobody was promoted yet')
  const primary = nodeNamed(bench, promotion.to)
  const others = dataNodes(bench.cluster.nodes).filter(
    node => node !== primary && !promotion.replaced.includes(node.name),
  )
  const rows = await bench.ask(primary, {}, query => query('SELECT application_name AS name FROM pg_stat_replication'))
  return { primary, followers: others.filter(({ name }) => rows.some(row => row.name === name)) }
}

/** A standby takes the place of a primary that is lost: failover, when somebody asks for it. */
export const promote = defineOperation({
  type: 'promote',
  surveys: 'servers',
  target: cluster => cluster,
  surveyMs: SURVEY_MS,
  mayBeAbsent: () => true,
  async refuse(bench, input, signal) {
    const own = await promotionOf(bench)
    if (own) return
    await refusePromotion(bench, await gatherEvidence(bench, undefined, signal), input, signal)
  },
  plan(bench, input) {
    if (input.to !== undefined) nodeNamed(bench, input.to)
    const present = witnesses(bench.cluster.nodes).filter(({ name }) => !bench.absent.has(name))
    return [
      stage('take the place of the old primary', [promoteStandby(bench, input)]),
      stage(
        'write it down',
        [
          lateChange(
            {
              id: 'cluster/roles',
              title: 'write the new roles into repmgr’s metadata',
              text: 'the new primary, its standbys, and the old one as inactive, in one transaction',
            },
            async () => {
              const { primary, followers } = await newPrimary(bench)
              return recordRoles(bench, primary, followers, {
                name: 'standby_promote',
                details: `node ${primary.nodeId} was promoted in place of a primary that was lost (Understudy)`,
              })
            },
          ),
        ],
        [
          lateChange(
            {
              id: 'cluster/unused-slots',
              title: 'drop the slots that nobody streams through any more',
              text: 'pg_drop_replication_slot, on the new primary, of nodes that stream from another one',
            },
            async () => {
              const { primary } = await newPrimary(bench)
              return dropUnusedSlots(bench, primary, primary)
            },
          ),
        ],
      ),
      ...(present.length === 0
        ? []
        : [
            stage(
              'let the witness know',
              ...present.map(node => [
                lateChange(
                  {
                    id: `${node.name}/register`,
                    title: 'register the witness with repmgr, and copy the metadata to it',
                    node: node.name,
                    text: 'repmgr witness register --force',
                  },
                  async () => informWitness(bench, node, (await newPrimary(bench)).primary),
                ),
              ]),
            ),
          ]),
      stage('prove it', [
        lateProof(
          {
            id: 'cluster/proof',
            title: 'write on the new primary, read on the others',
            text: 'as verify-replication does',
          },
          async () => {
            const { primary, followers } = await newPrimary(bench)
            return proveReplication(
              bench,
              primary,
              followers.filter(node => !isDelayedLong(node)),
            )
          },
        ),
      ]),
    ]
  },
  complete: async () => undefined,
})
