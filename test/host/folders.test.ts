import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { foldersInUse } from '../../src/host/folders.js'
import { openHostPool } from '../../src/host/host.js'
import { createUser, startSshd } from '../fixtures/sshd.js'

t.test('folders that hold something are named, others are not', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  const user = createUser({ sudo: true })
  const root = mkdtempSync('/tmp/understudy-folders-')
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
    user.remove()
    rmSync(root, { recursive: true, force: true })
  })
  const host = pool.host(sshd.address({ user: user.name }))
  const folder = (name: string, file?: string) => {
    const path = `${root}/${name}`
    // As a tablespace has it: nobody else may look in.
    mkdirSync(path, { mode: 0o700 })
    if (file !== undefined) writeFileSync(`${path}/${file}`, '')
    return path
  }
  const full = folder('full', 'PG_15')
  const hidden = folder("it's hidden", '.keep')
  const dash = folder('-n', 'file')
  const empty = folder('empty')
  t.same(await foldersInUse(host, [full, `${root}/absent`, empty, hidden, dash]), [full, hidden, dash])
  t.same(await foldersInUse(host, []), [], 'nothing is asked about nothing')
})
