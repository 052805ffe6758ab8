import { bundle } from '../src/cluster/certificate.js'
import type { ClusterNode } from '../src/cluster/model.js'
import { hasTls } from '../src/cluster/tls.js'
import { standbysByDepth, witnesses } from '../src/cluster/topology.js'
import { OperationError } from '../src/operations/errors.js'
import { type Plan, type Stage, stage } from '../src/operations/step.js'
import { alsoTrusted } from '../src/store/secrets.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary } from './find-primary.js'
import { refuseStopped } from './refusals.js'
import { grantAccess } from './steps/access.js'
import { writeRepmgrConf } from './steps/prepare-host.js'
import { registerPrimaryNode } from './steps/primary.js'
import { proveReplication } from './steps/proof.js'
import { writeSettings } from './steps/settings.js'
import { registerStandbyNode } from './steps/standby.js'
import { streamStep } from './steps/stream-tls.js'
import { removeTls, tlsSteps, trustCa } from './steps/tls.js'
import { refuseUnusableCertificates } from './steps/tls-files.js'
import { proveEncrypted, proveTls } from './steps/tls-proof.js'
import { informWitness } from './steps/witness.js'

/** Thrown before anything is changed where a node does not answer. */
class NodesAway extends OperationError {
  constructor(absent: Bench['absent']) {
    super([...absent].map(([node, reason]) => `${node}: ${reason}`).join(' '), {
      code: 'host-unreachable',
      outcome: 'not_started',
      remedy:
        'Every node must hear of it: one that was left out could neither be verified nor stream afterwards. Bring it back, or remove the node, then repeat the call.',
    })
  }
}

/**
 * The servers of a running cluster speak TLS, or do not any more. Connections that are open stay open: what changes counts
 * for new ones, and streams begin anew one after the other. Nobody is asked for what not everybody can do yet: certificates
 * come before those who verify them, and these before the rules that insist on it; back, the other way around.
 *
 * The record says that there is TLS only while every node has it, so that it can be insisted upon: "off" is written down
 * before the first step, and everything else after the last.
 */
export const changeTls = defineOperation({
  type: 'change-tls',
  target: (cluster, { tls }) => ({ ...cluster, tls }),
  mayBeAbsent: () => true,
  refuse: (bench, _input, signal) => refuseUnusableCertificates(bench, signal),
  plan(bench): Plan {
    if (bench.absent.size > 0) throw new NodesAway(bench.absent)
    const primary = findPrimary(bench)
    for (const node of bench.cluster.nodes) refuseStopped(bench, node)
    return hasTls(bench.cluster) ? planOn(bench, primary) : planOff(bench, primary)
  },
  async begin(store, bench, { tls }) {
    const { name } = bench.cluster
    const { ca } = bench.tls.trust
    if (ca !== undefined) await store.secrets.set(alsoTrusted(name), bundle([ca]))
    if (tls.mode === 'off') await store.clusters.update(name, cluster => ({ ...cluster, tls }))
  },
  async complete(store, bench, { tls }) {
    const { name } = bench.cluster
    await store.clusters.update(name, cluster => ({ ...cluster, tls }))
    await store.secrets.delete(alsoTrusted(name))
  },
  // Otherwise nodes may have the new one already, and whoever takes it up has to believe both.
  async failed(store, bench, { outcome }) {
    if (outcome === 'not_started') await store.secrets.delete(alsoTrusted(bench.cluster.name))
  },
})

function planOn(bench: Bench, primary: ClusterNode): Plan {
  const { nodes } = bench.cluster
  const { ca, trust } = bench.tls
  const both = {
    id: 'tls-both-cas',
    title: 'believe the CA of before and the one to come',
    ...(trust.ca ? { ca: trust.ca } : {}),
  }
  const changesCa = trust.ca !== ca
  return [
    ...(changesCa
      ? [
          stage(
            'let the nodes believe both CAs',
            ...nodes.map(node => [
              ...tlsSteps(bench, node).filter(({ id }) => id.endsWith('/tls-directory')),
              trustCa(bench, node, both),
            ]),
          ),
        ]
      : []),
    stage(
      'certificates',
      ...nodes.map(node => [
        ...tlsSteps(bench, node).filter(({ id }) => !changesCa || !/\/tls-(directory|ca)$/.test(id)),
        writeSettings(bench, node),
      ]),
    ),
    stage('prove that everybody can', [proveTls(bench, nodes)]),
    ...reconnect(bench, primary),
    changeRules(bench, primary, 'insist on TLS'),
    ...(changesCa ? [stage('believe the new CA alone', ...nodes.map(node => [trustCa(bench, node)]))] : []),
    stage('prove it', [...proofs(bench, primary), proveEncrypted(bench, nodes)]),
  ]
}

const planOff = (bench: Bench, primary: ClusterNode): Plan => [
  changeRules(bench, primary, 'insist on TLS no more'),
  ...reconnect(bench, primary),
  stage('end TLS', ...bench.cluster.nodes.map(node => [writeSettings(bench, node)])),
  stage('take away the certificates', ...bench.cluster.nodes.map(node => [removeTls(bench, node)])),
  stage('prove it', proofs(bench, primary)),
]

/** One after the other, the primary last: what a server refuses is refused before the next one is touched. */
const changeRules = (bench: Bench, primary: ClusterNode, title: string): Stage =>
  stage(
    title,
    [...bench.cluster.nodes.filter(node => node !== primary), primary].map(node => grantAccess(bench, node)),
  )

/** How the nodes find each other: repmgr’s configuration, its metadata, the streams from the top down, the witness’s copy. */
function reconnect(bench: Bench, primary: ClusterNode): Stage[] {
  const { nodes } = bench.cluster
  const witness = witnesses(nodes)
  const levels = standbysByDepth(nodes, primary)
  return [
    stage('tell repmgr', ...nodes.map(node => [writeRepmgrConf(bench, node)])),
    stage('register the primary', [registerPrimaryNode(bench, primary)]),
    ...levels.map((standbys, depth) =>
      stage(
        depth === 0 ? 'let the standbys stream anew' : `let the standbys of standbys stream anew, level ${depth}`,
        ...standbys.map(node => [streamStep(bench, node, primary), registerStandbyNode(bench, node, primary)]),
      ),
    ),
    ...(witness.length > 0
      ? [stage('let the witness know', ...witness.map(node => [informWitness(bench, node, primary)]))]
      : []),
  ]
}

const proofs = (bench: Bench, primary: ClusterNode) => [
  proveReplication(bench, primary, standbysByDepth(bench.cluster.nodes, primary).flat()),
]
