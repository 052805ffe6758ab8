/** The script that looks at a server, run on this machine: what it reads of the files of real servers, and changes nothing. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import type { Command } from '../../src/host/command.js'
import type { Host } from '../../src/host/host.js'
import { inspectServer } from '../../src/postgres/inspect.js'
import { debianLayout } from '../../src/postgres/layout.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import { HELD } from '../../src/postgres/start-conf.js'
import { makeRepmgrRole, startPostgres, startStandby, type TestPostgres } from '../fixtures/postgres.js'
import { eventually } from '../fixtures/redis.js'

const here = {
  async run({ argv }: Command) {
    const [program = '', ...args] = argv
    const { stdout, stderr } = await promisify(execFile)(program, args)
    return { stdout, stderr }
  },
} as unknown as Host

const inspect = (paths: { dataDirectory: string } | { configDirectory: string }) =>
  inspectServer(here, { ...debianLayout(15), marker: '/nonexistent', ...paths }, 5432)

t.test('timeline: a standby has seen the newer one of the server that it follows, running or stopped', async t => {
  const settings = { hot_standby: 'on' }
  const old = await startPostgres(t, { settings })
  await makeRepmgrRole(old, scramVerifier('a-password'))
  const follow = (upstream: TestPostgres, name: string) =>
    startStandby(t, upstream, { name, password: 'a-password', settings })
  const promoted = await follow(old, 'pg2')
  const follower = await follow(promoted, 'pg3')
  const timelines = async () =>
    Promise.all([old, promoted, follower].map(async server => (await inspect(server)).timeline))
  t.same(await timelines(), [1, 1, 1])

  await promoted.query('SELECT pg_promote()')
  await eventually(async () => {
    const [row] = await follower.query('SELECT received_tli FROM pg_stat_wal_receiver')
    return row?.received_tli === 2
  }, 60_000)
  t.same(await timelines(), [1, 2, 2])
  for (const server of [follower, promoted, old]) await server.stop()
  t.same(await timelines(), [1, 2, 2])
})

t.test('start.conf', async t => {
  const configDirectory = await mkdtemp(join(tmpdir(), 'understudy-conf-'))
  t.teardown(() => rm(configDirectory, { recursive: true }))
  const mode = async (content: string) => {
    await writeFile(join(configDirectory, 'start.conf'), content)
    return (await inspect({ configDirectory })).startMode
  }
  t.equal((await inspect({ configDirectory })).startMode, 'auto', 'as Debian takes it where there is none')
  t.equal(await mode('# Automatic startup configuration\n#   auto: …\n\nauto\n'), 'auto')
  t.equal(await mode('# by hand\n  manual # for now\n'), 'manual')
  t.equal(await mode('disabled\n'), 'disabled')
  t.equal(await mode(HELD), 'held')
  t.equal(await mode(HELD.replace('manual\n', 'auto\n')), 'auto', 'somebody has put it back')
})
