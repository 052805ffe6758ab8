import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import t from 'tap'
import { CommandFailed } from '../../src/host/errors.js'
import { fileMatches, type RemoteFile, readFile, writeFile } from '../../src/host/files.js'
import { type Host, openHostPool } from '../../src/host/host.js'
import { createUser, startSshd, until } from '../fixtures/sshd.js'

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    value => new Error(`no error, but ${JSON.stringify(value)}`),
    error => error,
  )
}

t.test('files', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  const user = createUser({ sudo: true })
  const directory = mkdtempSync('/tmp/understudy-files-')
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
    user.remove()
    rmSync(directory, { recursive: true, force: true })
  })
  // As a user that may not write there itself.
  const host = pool.host(sshd.address({ user: user.name }))
  const file = (change: Partial<RemoteFile> = {}): RemoteFile => ({
    path: `${directory}/pg_hba.conf`,
    content: "# ü\nconninfo = 'host=db1 password=hunter22'\n",
    owner: 'postgres:postgres',
    mode: '0640',
    ...change,
  })
  const modeOf = (path: string) => (lstatSync(path).mode & 0o7777).toString(8)

  await t.test('written, read and compared, byte for byte', async t => {
    const contents = [
      '',
      'x',
      'no newline at the end',
      '\n\n',
      'quotes \' " \\ $HOME `id`\r\n',
      file().content,
      'é€😀\n',
    ]
    for (const [index, content] of contents.entries()) {
      const one = file({ path: `${directory}/a file ${index}'s`, content })
      await writeFile(host, one)
      t.equal(readFileSync(one.path, 'utf8'), content)
      t.equal(await readFile(host, one.path), content, 'what looks like a password is not taken out of a file')
      t.equal(await fileMatches(host, one), true)
    }
    await writeFile(host, file())
    t.equal(modeOf(file().path), '640')
    const owner = execFileSync('stat', ['-c', '%U:%G', file().path], { encoding: 'utf8' }).trim()
    t.equal(owner, 'postgres:postgres')
  })

  await t.test('what does not match', async t => {
    await writeFile(host, file())
    t.equal(await fileMatches(host, file({ mode: '640' })), true, 'a mode is a number')
    const different: Partial<RemoteFile>[] = [
      { content: 'other' },
      { content: `${file().content} ` },
      { owner: 'root:root' },
      { owner: 'postgres:root' },
      { mode: '0600' },
      { path: `${directory}/absent` },
    ]
    for (const change of different) t.equal(await fileMatches(host, file(change)), false, JSON.stringify(change))
    symlinkSync(file().path, `${directory}/link`)
    t.equal(await fileMatches(host, file({ path: `${directory}/link` })), false)
  })

  await t.test('what is not there, and what cannot be read', async t => {
    t.equal(await readFile(host, `${directory}/absent`), undefined)
    t.equal(await readFile(host, `${directory}/absent/below`), undefined)
    t.ok((await errorOf(readFile(host, directory))) instanceof CommandFailed)
    await writeFile(host, file({ content: 'x'.repeat(101) }))
    t.equal((await readFile(host, file().path, { maxBytes: 101 }))?.length, 101)
    t.match(await errorOf(readFile(host, file().path, { maxBytes: 100 })), { output: /101 bytes, more than the 100/ })
    await t.rejects(readFile(host, 'relative'), TypeError)
  })

  await t.test('3 MB, there and back', async t => {
    const content = Array.from({ length: 60_000 }, (_, index) => `line ${index} é ${'x'.repeat(index % 70)}`).join('\n')
    const big = file({ path: `${directory}/big`, content })
    await writeFile(host, big)
    t.equal(await fileMatches(host, big), true)
    const read = (await readFile(host, big.path)) ?? ''
    const hash = (text: string) => createHash('sha256').update(text).digest('hex')
    t.equal(hash(read), hash(content))
  })

  await t.test('replaced at once, and a reader that has the old one open keeps it', async t => {
    const old = file({ content: 'old\n'.repeat(1000) })
    await writeFile(host, old)
    const before = lstatSync(old.path).ino
    await writeFile(host, file({ content: 'new\n' }))
    t.not(lstatSync(old.path).ino, before)
  })

  await t.test('a write that fails leaves the old file and nothing beside it', async t => {
    await writeFile(host, file({ content: 'old' }))
    const before = readdirSync(directory).sort()
    const failing: Partial<RemoteFile>[] = [{ owner: 'no-such-user:nobody' }, { owner: '--reference=/etc/shadow' }]
    for (const change of failing) {
      t.ok((await errorOf(writeFile(host, file({ content: 'new', ...change })))) instanceof CommandFailed)
    }
    await t.rejects(writeFile(host, file({ mode: 'u+x' })), TypeError)
    mkdirSync(`${directory}/directory`)
    t.ok((await errorOf(writeFile(host, file({ path: `${directory}/directory` })))) instanceof CommandFailed)
    const nowhere = await errorOf(writeFile(host, file({ path: `${directory}/nowhere/x` })))
    t.ok(nowhere instanceof CommandFailed, String(nowhere))
    t.match(nowhere, { output: `there is no directory ${directory}/nowhere` })
    t.strictSame(readdirSync(directory).sort(), [...before, 'directory'].sort())
    t.equal(readFileSync(file().path, 'utf8'), 'old')
  })

  await t.test('a connection lost halfway leaves the old file and nothing beside it', async t => {
    await writeFile(host, file({ content: 'old' }))
    const before = readdirSync(directory).sort()
    // Enough that it cannot be in flight whole: the session is killed as soon as the temporary file grows.
    const running = errorOf(writeFile(host, file({ content: 'n'.repeat(64 * 1024 * 1024) })))
    await until(() =>
      readdirSync(directory).some(
        name => name.startsWith('.understudy.') && lstatSync(`${directory}/${name}`).size > 0,
      ),
    )
    sshd.killSessions()
    t.match(await running, { code: 'connection-lost' })
    await until(() => !readdirSync(directory).some(name => name.startsWith('.understudy.')))
    t.equal(readFileSync(file().path, 'utf8'), 'old')
    t.strictSame(readdirSync(directory).sort(), before)
  })

  await t.test('owner and mode are there before the name is', async t => {
    const path = `${directory}/secret`
    writeFileSync(path, '')
    chmodSync(path, 0o666)
    const secret = file({ path, content: 'top-secret-value', mode: '0600', secret: true })
    let watching = true
    const seen = new Set<string>()
    const watch = async (watcher: Host) => {
      while (watching) {
        const { stdout } = await watcher.run({
          argv: ['sh', '-c', 'i=0; while [ $i -lt 100 ]; do stat -c "%a %U %s" "$1"; i=$((i+1)); done', 'x', path],
          as: 'root',
          timeoutMs: 20_000,
        })
        for (const line of stdout.trim().split('\n')) seen.add(line)
      }
    }
    const watched = watch(pool.host(sshd.address()))
    await until(() => true)
    await writeFile(host, secret)
    watching = false
    await watched
    for (const line of seen) t.ok(['666 root 0', '600 postgres 16'].includes(line), line)
  })

  await t.test('a symbolic link is replaced and not followed', async t => {
    writeFileSync(`${directory}/target`, 'target')
    symlinkSync(`${directory}/target`, `${directory}/linked`)
    await writeFile(host, file({ path: `${directory}/linked`, content: 'new' }))
    t.equal(readFileSync(`${directory}/target`, 'utf8'), 'target')
    t.equal(lstatSync(`${directory}/linked`).isSymbolicLink(), false)
    t.equal(await readFile(host, `${directory}/linked`), 'new')
  })

  await t.test('the content of a secret file does not show in an error', async t => {
    const error = await errorOf(
      writeFile(host, file({ owner: 'top-secret-value:x', content: 'top-secret-value', secret: true })),
    )
    t.ok(error instanceof Error)
    t.notMatch(`${error} ${(error as CommandFailed).output}`, 'top-secret-value')
  })
})
