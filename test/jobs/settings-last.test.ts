/** Lines at the bottom of a postgresql.conf that somebody else wrote, and what is managed: on a real server. */
import { execFile } from 'node:child_process'
import { appendFile, chown, mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { includeLast, isInMainFile } from '../../jobs/steps/settings-last.js'
import { parseSettingState, settingStateQuery } from '../../src/postgres/setting-state.js'
import { startPostgres } from '../fixtures/postgres.js'
import { eventually } from '../fixtures/redis.js'

t.test('what is managed counts before the lines below the include, and not before a file of one’s own', async t => {
  const server = await startPostgres(t)
  const configDirectory = server.dataDirectory
  const file = join(configDirectory, 'postgresql.conf')
  const managedSettings = join(configDirectory, 'conf.d', 'understudy.conf')
  const { uid, gid, mode } = await stat(file)
  const put = async (path: string, content: string) => {
    await writeFile(path, content)
    await chown(path, uid, gid)
  }
  await mkdir(join(configDirectory, 'conf.d'))
  await chown(join(configDirectory, 'conf.d'), uid, gid)
  await put(managedSettings, "work_mem = '8MB'\n")
  // No newline at its end, as an editor may leave it.
  await appendFile(file, "\ninclude_dir = 'conf.d'\nwork_mem = 2621kB")

  const inForce = async (wanted: string) => {
    await server.query('SELECT pg_reload_conf()')
    return eventually(async () => (await server.query('SHOW work_mem'))[0]?.work_mem === wanted, 10_000)
  }
  const inTheWay = async () => {
    const [row] = await server.query(settingStateQuery(managedSettings))
    const json = JSON.stringify(Object.values(row ?? {})[0])
    return parseSettingState(json).shadowed.map(({ name, by }) => `${name} ${isInMainFile({ configDirectory }, by)}`)
  }
  const include = async () => {
    const [program = '', ...words] = includeLast({ configDirectory, managedSettings }).argv
    await promisify(execFile)(program, words)
    const now = await stat(file)
    t.same([now.uid, now.gid, now.mode], [uid, gid, mode], 'its owner and its mode are kept')
  }

  t.ok(await inForce('2621kB'), 'the line at the bottom counts')
  t.same(await inTheWay(), ['work_mem true'])
  await include()
  t.same(await inTheWay(), [])
  t.ok(await inForce('8MB'), 'what is managed counts')

  const once = await readFile(file, 'utf8')
  t.match(once, /work_mem = 2621kB\ninclude_dir = '.*conf\.d' {2}# by Understudy/)
  await include()
  t.equal(await readFile(file, 'utf8'), once, 'twice is as once')

  await appendFile(file, 'work_mem = 3MB\n')
  t.same(await inTheWay(), ['work_mem true'], 'somebody set it again below')
  await include()
  t.ok(await inForce('8MB'))

  await put(join(configDirectory, 'conf.d', 'zz.conf'), 'work_mem = 9MB\n')
  t.ok(await inForce('9MB'), 'a file of one’s own that sorts later is meant to count')
  t.same(await inTheWay(), ['work_mem false'])
})
