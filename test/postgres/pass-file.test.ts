import { chown, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { passFile } from '../../src/postgres/pass-file.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import { makeRepmgrRole, ownDirectory, runAsPostgres, startPostgres } from '../fixtures/postgres.js'

/** As libpq reads a line: a backslash takes the next character as it is, a colon ends a field. */
function fields(line: string): string[] {
  const parts = line.match(/\\.|:|[^\\:]+/gsu) ?? []
  return parts
    .reduce<string[]>(
      ([field = '', ...before], part) =>
        part === ':' ? ['', field, ...before] : [field + (part.startsWith('\\') ? part.slice(1) : part), ...before],
      [''],
    )
    .reverse()
}

t.test('two lines a host, in the same order whoever is listed first', async t => {
  t.equal(
    passFile(['10.0.0.2', '10.0.0.1'], 5432, 'secret'),
    [
      '# BEGIN understudy (managed: what is changed in here is overwritten)',
      '10.0.0.1:5432:repmgr:repmgr:secret',
      '10.0.0.1:5432:replication:repmgr:secret',
      '10.0.0.2:5432:repmgr:repmgr:secret',
      '10.0.0.2:5432:replication:repmgr:secret',
      '# END understudy',
      '',
    ].join('\n'),
  )
  t.equal(passFile(['b', 'a'], 1, 'x'), passFile(['a', 'b'], 1, 'x'))
  t.match(passFile(['2001:db8::1'], 5432, 'x'), /^2001\\:db8\\:\\:1:5432:repmgr:repmgr:x$/m)
})

t.test('whatever stands in a field comes back out of it', async () => {
  const text = fc.string({ minLength: 1 }).map(value => value.replace(/[\n\r]/g, ''))
  fc.assert(
    fc.property(text, fc.integer({ min: 1, max: 65535 }), text, (host, port, password) => {
      const [, first = '', second = ''] = passFile([host], port, password).split('\n')
      const wanted = (database: string) => JSON.stringify([host, String(port), database, 'repmgr', password])
      return (
        JSON.stringify(fields(first)) === wanted('repmgr') && JSON.stringify(fields(second)) === wanted('replication')
      )
    }),
    { numRuns: 5000 },
  )
})

t.test('psql reads it', async t => {
  const server = await startPostgres(t)
  const password = String.raw`a:b\c\:d\\`
  await makeRepmgrRole(server, scramVerifier(password))
  const directory = join(await ownDirectory(t), 'home')
  await mkdir(directory, { mode: 0o755 })
  const connect = async (content: string, conninfo: string, statement: string) => {
    const file = join(directory, 'pgpass')
    await writeFile(file, content, { mode: 0o600 })
    if (process.getuid?.() === 0) {
      const id = async (flag: string) => Number(await runAsPostgres('id', [flag]))
      await chown(file, await id('-u'), await id('-g'))
    }
    const target = `port=${server.port} user=repmgr ${conninfo}`
    return runAsPostgres('psql', ['-XAtqw', '-c', statement, target], { PGPASSFILE: file }).then(
      out => out.trim(),
      (error: { stderr: string }) => error.stderr,
    )
  }
  const right = passFile(['10.0.0.1', '127.0.0.1'], server.port, password)
  t.equal(await connect(right, 'host=127.0.0.1 dbname=repmgr', 'SELECT current_user'), 'repmgr')
  t.match(
    await connect(right, 'host=127.0.0.1 dbname=replication replication=true', 'IDENTIFY_SYSTEM'),
    /^\d+\|1\|0\/[0-9A-F]+\|$/,
    'for replication too',
  )
  t.match(
    await connect(right, 'host=127.0.0.1 dbname=postgres', 'SELECT 1'),
    /no password supplied/,
    'and for no other database',
  )
  t.match(
    await connect(passFile(['127.0.0.1'], server.port, `${password}x`), 'host=127.0.0.1 dbname=repmgr', 'SELECT 1'),
    /password authentication failed/,
  )
})
