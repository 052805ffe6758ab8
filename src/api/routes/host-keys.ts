/** Which hosts the service logs in to, and as whom. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { type Static, Type } from 'typebox'
import { HostKey, HostName, type NodeSpec, Port } from '../../cluster/model.js'
import { OperationError } from '../../operations/errors.js'
import { ProblemError, sentences } from '../problems.js'
import { answer, COMMON, NoQuery, problemResponses, sendEither, WITH_BODY } from '../responses.js'
import type { Services } from '../services.js'

const SshPort = Type.Integer({ minimum: 1, maximum: 65535, default: 22, description: 'Port of sshd.' })

const HostKeys = Type.Object(
  {
    host: HostName,
    port: Port,
    keys: Type.Array(
      Type.Object(
        { type: Type.String({ examples: ['ssh-ed25519'] }), fingerprint: HostKey },
        { additionalProperties: false, title: 'OfferedKey', description: 'One key that a host offers.' },
      ),
    ),
  },
  {
    additionalProperties: false,
    title: 'HostKeys',
    description: 'The keys that a host offers. Seen over the network, so a claim: compare them on its console.',
  },
)
const exampleKeys: Static<typeof HostKeys> = {
  host: '192.0.2.11',
  port: 22,
  keys: [{ type: 'ssh-ed25519', fingerprint: 'SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ' }],
}

const SshKey = Type.Object(
  { publicKey: Type.String({ description: 'A line for `~/.ssh/authorized_keys`.' }) },
  { additionalProperties: false, title: 'SshKey', description: 'The key that the service logs in with.' },
)
const examplePublicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPm4pWmYq0mX2m6m0yq3C8g8Y1n1xJ8oW4h1yC2V7bqk understudy'

const COMPARE =
  'Compare with "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" on the console of each host, then repeat the call with the key as ssh.hostKey.'

/** Refuses nodes without a pinned key, and shows what their hosts offer: seen first, confirmed by repeating the call. */
export async function confirmHostKeys(
  services: Services,
  nodes: readonly NodeSpec[],
  pointer: (index: number) => string,
): Promise<void> {
  const scans = await Promise.all(
    nodes.flatMap((node, index) => (node.ssh.hostKey === undefined ? [scan(services, node, pointer(index))] : [])),
  )
  if (scans.length === 0) return
  const errors = scans.map(({ violation }) => violation)
  const found = sentences(...errors.map(({ detail }) => detail))
  const silent = scans.flatMap(({ failure }) => (failure ? [failure] : []))
  if (silent.length === scans.length) {
    const remedies = new Set(silent.map(({ remedy }) => remedy))
    throw new ProblemError('host-unreachable', sentences(found, ...remedies), { errors })
  }
  throw new ProblemError('host-key-unconfirmed', sentences(found, COMPARE), { errors })
}

async function scan(services: Services, node: NodeSpec, pointer: string) {
  try {
    const keys = await offeredKeys(services, node.host, node.ssh.port ?? 22)
    const best = keys.find(({ type }) => type === 'ssh-ed25519') ?? keys[0]
    return {
      violation: { pointer, detail: `${node.name} (${node.host}) offers ${best?.type} ${best?.fingerprint}` },
    }
  } catch (error) {
    if (!(error instanceof OperationError)) throw error
    return { violation: { pointer, detail: `${node.name}: ${error.message}` }, failure: error }
  }
}

/** The scan itself says who it pretends to be; nobody logs in, so to the reader that would be a riddle. */
async function offeredKeys(services: Services, host: string, port: number) {
  try {
    return await services.scanHostKeys(host, port)
  } catch (error) {
    if (error instanceof OperationError) error.message = error.message.replace(/^[a-z_][a-z0-9_-]*@/, '')
    throw error
  }
}

export const hostKeyRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.post(
    '/v1/host-keys/scan',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'scanHostKeys',
        tags: ['hosts'],
        summary: 'See the SSH host keys of a host',
        description:
          'Asks a host for its keys without logging in. Nothing is trusted by this: a key is pinned by giving it with the node.',
        body: Type.Object(
          { host: HostName, port: Type.Optional(SshPort) },
          {
            additionalProperties: false,
            title: 'HostAddress',
            description: 'Where sshd of a host listens.',
            'x-examples': { host: { summary: 'A host with sshd on port 22', value: { host: '192.0.2.11' } } },
          },
        ),
        querystring: NoQuery,
        response: {
          200: answer('The keys that it offers.', HostKeys, { example: exampleKeys }),
          ...problemResponses(...WITH_BODY, 'host-unreachable'),
        },
      },
    },
    async (request, reply) => {
      const { host, port = 22 } = request.body
      return reply.send({ host, port, keys: await offeredKeys(services, host, port) })
    },
  )

  app.get(
    '/v1/ssh-key',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getSshKey',
        tags: ['hosts'],
        summary: 'Read the service’s public key',
        description: 'The line to put into `~/.ssh/authorized_keys` of the login user on each host.',
        querystring: NoQuery,
        response: {
          200: answer('The public key.', SshKey, {
            example: { publicKey: examplePublicKey },
            text: `${examplePublicKey}\n`,
          }),
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const publicKey = services.sshPublicKey
      if (publicKey === undefined)
        throw new ProblemError('not-found', 'The service logs in with an SSH agent; `ssh-add -L` shows its keys.')
      return sendEither(request, reply, { publicKey }, body => `${body.publicKey}\n`)
    },
  )
}
