import t from 'tap'
import { remoteLine, render } from '../../src/host/command.js'

t.test('render', async t => {
  const timeoutMs = 30_000
  t.equal(render({ argv: ['id', '-u'], as: 'login', timeoutMs }), 'id -u')
  t.equal(render({ argv: ['systemctl', 'stop', 'x'], as: 'root', timeoutMs }), 'sudo -n -- systemctl stop x')
  t.equal(
    render({ argv: ['psql', '-c', 'select 1'], as: 'postgres', env: { PGPORT: '5433' }, cwd: '/srv', timeoutMs }),
    "sudo -n -u postgres -- env -C /srv PGPORT=5433 psql -c 'select 1'",
  )
  t.equal(
    render({ argv: ['psql'], as: 'postgres', stdin: 'alter role', timeoutMs }),
    'sudo -n -u postgres -- psql <<< [input not shown]',
  )
  t.equal(
    render({ argv: ['psql', 'postgresql://repmgr:hunter22@db1/repmgr'], as: 'login', timeoutMs }),
    'psql postgresql://repmgr:[redacted]@db1/repmgr',
  )
})

t.test('the line that is sent has the directory, the locale and the time limit behind sudo', async t => {
  t.equal(
    remoteLine({ argv: ['repmgr', 'x y'], as: 'postgres', env: { A: 'b c' }, timeoutMs: 1500 }),
    "sudo -n -u postgres -- env -C / 'A=b c' LC_ALL=C.UTF-8 timeout --kill-after=5 1.5 repmgr 'x y'",
  )
  t.match(remoteLine({ argv: ['id'], as: 'login', cwd: '/tmp', timeoutMs: 1000 }), /^env -C \/tmp LC_ALL=C\.UTF-8 /)
})

t.test('a secret in an argument or in the environment is refused before it is sent, and not repeated', async t => {
  const secrets = ['hunter22']
  for (const command of [
    { argv: ['psql', 'password=hunter22'], as: 'root', timeoutMs: 1, secrets } as const,
    { argv: ['psql'], env: { PGPASSWORD: 'hunter22' }, as: 'root', timeoutMs: 1, secrets } as const,
  ]) {
    t.throws(() => remoteLine(command), { message: /a secret stands in the arguments/ })
    try {
      remoteLine(command)
    } catch (error) {
      t.notMatch(String(error), 'hunter22')
    }
  }
  t.doesNotThrow(() => remoteLine({ argv: ['psql'], stdin: 'hunter22', as: 'root', timeoutMs: 1, secrets }))
})

t.test('a name of a variable that is none is refused', async t => {
  t.throws(() => remoteLine({ argv: ['id'], env: { '-i x': '1' }, as: 'root', timeoutMs: 1 }), TypeError)
})
