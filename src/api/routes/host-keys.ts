/** Which hosts the service logs in to, and as whom. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { HostKey, HostName, type NodeSpec, Port } from '../../cluster/model.js'
import { OperationError } from '../../operations/errors.js'
import { ProblemError } from '../problems.js'
import { COMMON, json, jsonOrText, problemResponses, WITH_BODY } from '../responses.js'
import type { Services } from '../services.js'

const ScannedKeys = Type.Object(
  {
    host: HostName,
    port: Port,
    keys: Type.Array(
      Type.Object(
        { type: Type.String({ examples: ['ssh-ed25519'] }), fingerprint: HostKey },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false },
)

/** Refuses nodes without a pinned key, and shows what their hosts offer: seen first, confirmed by repeating the call. */
export async function confirmHostKeys(
  services: Services,
  nodes: readonly NodeSpec[],
  pointer: (index: number) => string,
): Promise<void> {
  const unconfirmed = nodes.flatMap((node, index) => (node.ssh.hostKey === undefined ? [{ node, index }] : []))
  if (unconfirmed.length === 0) return
  const errors = await Promise.all(
    unconfirmed.map(async ({ node, index }) => {
      try {
        const keys = await services.scanHostKeys(node.host, node.ssh.port ?? 22)
        const best = keys.find(({ type }) => type === 'ssh-ed25519') ?? keys[0]
        return {
          pointer: pointer(index),
          detail: `${node.name} (${node.host}) offers ${best?.type} ${best?.fingerprint}`,
        }
      } catch (error) {
        if (!(error instanceof OperationError)) throw error
        return { pointer: pointer(index), detail: `${node.name} (${node.host}) could not be asked: ${error.message}` }
      }
    }),
  )
  throw new ProblemError(
    'host-key-unconfirmed',
    `${errors.map(({ detail }) => detail).join('; ')}. Compare with "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" on each host’s console, then repeat the call with it as ssh.hostKey.`,
    { errors },
  )
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
          { host: HostName, port: Type.Optional(Port) },
          { additionalProperties: false, examples: [{ host: '192.0.2.11' }] },
        ),
        response: {
          200: json('The keys that it offers.', ScannedKeys),
          ...problemResponses(...WITH_BODY, 'host-unreachable'),
        },
      },
    },
    async (request, reply) => {
      const { host, port = 22 } = request.body
      return reply.send({ host, port, keys: await services.scanHostKeys(host, port) })
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
        response: {
          200: jsonOrText(
            'The public key.',
            Type.Object({ publicKey: Type.String() }, { additionalProperties: false }),
          ),
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const publicKey = services.sshPublicKey
      if (publicKey === undefined)
        throw new ProblemError('not-found', 'The service logs in with an SSH agent; `ssh-add -L` shows its keys.')
      return request.type(['application/json', 'text/plain']) === 'text/plain'
        ? reply.type('text/plain; charset=utf-8').send(`${publicKey}\n`)
        : reply.send({ publicKey })
    },
  )
}
