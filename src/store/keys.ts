/**
 * Every Redis key of the service is named here. All share one hash tag, so that scripts which touch several of them
 * also work in Redis Cluster.
 */
const key = (...parts: string[]) => ['{understudy}', ...parts].join(':')

export const keys = {
  /** Hash: name → record. */
  clusters: key('clusters'),
  /** String: id of the one operation that may change this cluster. */
  activeOperation: (cluster: string) => key('cluster', cluster, 'active'),
  /** String: epoch of the last worker that took the cluster; only grows. */
  clusterEpoch: (cluster: string) => key('cluster', cluster, 'epoch'),
  /** Sorted sets of operation ids by time of creation: all, and a cluster's. */
  operations: key('operations'),
  operationsOf: (cluster: string) => key('cluster', cluster, 'operations'),
  /** Set: ids of the operations that have not ended. */
  openOperations: key('operations', 'open'),
  /** Hash: the record, its fields apart. */
  operation: (id: string) => key('operation', id),
  /** Hash: step id → record. */
  steps: (id: string) => key('operation', id, 'steps'),
  /** Stream: what happened, in order; its ids are the ids of the server-sent events. */
  events: (id: string) => key('operation', id, 'events'),
  /** String with an expiry: the worker that runs the operation now. */
  lease: (id: string) => key('operation', id, 'lease'),
  /** String with an expiry: somebody has queued this operation again just now. */
  requeued: (id: string) => key('operation', id, 'requeued'),
  /** Stream: the audit trail over all clusters; its ids are the ids of its server-sent events. */
  trail: key('events'),
  /** String with an expiry: what a request with an Idempotency-Key has led to. */
  once: (digest: string) => key('once', digest),
  /** String: the version of the records, see `schema.ts`. */
  schema: key('schema'),
  /** Strings with an expiry: who upgrades the records now; that old records were swept within the last hour. */
  migrating: key('migrating'),
  swept: key('swept'),
  /** String: a restore has begun here, and has not ended. */
  restoring: key('restoring'),
  /** Channel: ids of operations that changed, and `events` where the audit trail grew. */
  changed: key('changed'),
  /** Hash: token id → record with the token's hash. */
  tokens: key('tokens'),
  /** Hash: name → encrypted value. */
  secrets: key('secrets'),
  /** BullMQ's own keys start with this. */
  queuePrefix: '{understudy}:bull',
} as const

/** All keys that are an operation's alone. */
export const keysOfOperation = (id: string) => [
  keys.operation(id),
  keys.steps(id),
  keys.events(id),
  keys.lease(id),
  keys.requeued(id),
]

/** Everything of the service, the queue too. */
export const ALL_KEYS = '{understudy}:*'
