/** Puts the house together for one process, and takes it apart again in the right order. */
import type { FastifyInstance } from 'fastify'
import { openQueue } from '../jobs/queue.js'
import { startWorker } from '../jobs/worker.js'
import { buildApp } from './api/app.js'
import type { Config } from './config.js'
import { openFenceHook } from './fence-hook.js'
import { openHostPool } from './host/host.js'
import type { Logger } from './logging.js'
import { ensureAdminToken, openStateDirectory, readIdentity, readMasterKey } from './state-directory.js'
import { listenForChanges } from './store/changes.js'
import { startEmbeddedRedis } from './store/embedded-redis.js'
import { migrate } from './store/migrate.js'
import { startPauseWatch } from './store/pause-watch.js'
import { takeProcessLock } from './store/process-lock.js'
import { checkRedis, connectRedis, untilReady } from './store/redis.js'
import { startSweeping } from './store/retention.js'
import { openStore } from './store/store.js'
import { wireServices } from './wire-services.js'

export interface Service {
  /** Where the API listens; undefined without it. */
  address: string | undefined
  /** The token that was made at this start, to be shown once, and the file that has it. */
  adminToken: { file: string; created: string | undefined }
  /** Takes no more requests and no more operations, then lets what runs come to a good end. */
  stop(): Promise<void>
}

const REDIS_START_TIMEOUT_MS = 10_000

export async function startService(config: Config, logger: Logger): Promise<Service> {
  const closers: (() => Promise<void>)[] = []
  const stop = async () => {
    for (const close of closers.splice(0).reverse()) {
      await close().catch(error => logger.warn({ err: error }, 'while stopping'))
    }
  }
  try {
    await openStateDirectory(config.stateDirectory)
    let url = config.redisUrl
    if (url === undefined) {
      closers.push(await takeProcessLock(config.stateDirectory))
      const embedded = await startEmbeddedRedis(config.stateDirectory, { onExit: detail => logger.error(detail) })
      closers.push(embedded.stop)
      url = embedded.url
    }
    const connect = (purpose: 'requests' | 'operations') => {
      const redis = connectRedis(url, { purpose, onError: error => logger.warn({ err: error }, 'redis') })
      closers.push(async () => redis.disconnect())
      return redis
    }
    const requests = connect('requests')
    await untilReady(requests, REDIS_START_TIMEOUT_MS)
    await checkRedis(requests)
    const upgraded = await migrate(requests)
    if (upgraded.length > 0) logger.info({ to: upgraded.at(-1) }, 'the records of the store were upgraded')

    const masterKey = await readMasterKey(config.stateDirectory, config.masterKeyFile)
    const { identity, publicKey } = await readIdentity(config.stateDirectory, config.ssh)
    const store = openStore(requests, masterKey)
    const adminToken = await ensureAdminToken(config.stateDirectory, store.tokens)
    const pool = openHostPool({ identity })
    const fenceHook = openFenceHook(config.fence)
    closers.push(() => pool.close())
    const queue = openQueue(requests)
    closers.push(() => queue.close())

    const endSweeping = startSweeping(requests, config.retention, logger)
    closers.push(endSweeping)
    closers.push(startPauseWatch(store.clusters, logger))

    let app: FastifyInstance | undefined
    if (config.roles.worker) {
      const operations = connect('operations')
      const patientQueue = openQueue(operations)
      closers.push(() => patientQueue.close())
      const worker = startWorker({
        store: openStore(operations, masterKey),
        queue: patientQueue,
        pool,
        controllers: config.controllerAddresses,
        fenceHook,
        connection: operations,
        concurrency: config.workerConcurrency,
        leaseMs: config.workerLeaseMs,
        logger,
      })
      closers.push(() => worker.close(config.shutdownGraceMs))
    }
    let address: string | undefined
    if (config.roles.api) {
      const changes = await listenForChanges(connect('operations'))
      const services = wireServices({
        store,
        changes,
        queue,
        pool,
        controllers: config.controllerAddresses,
        fenceHook,
        sshPublicKey: publicKey,
        worker: config.roles.worker,
      })
      app = await buildApp({ services, loggerInstance: logger, bodyLimitBytes: config.bodyLimitBytes })
      const listening = app
      closers.push(async () => listening.close())
      address = await app.listen(config.listen)
    }
    return { address, adminToken, stop }
  } catch (error) {
    await stop()
    throw error
  }
}
