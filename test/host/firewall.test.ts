/** The script for ufw, with a ufw that keeps its rules in a file and prints them as the real one does. */
import { execFile } from 'node:child_process'
import { chmod, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { firewallScript } from '../../src/host/firewall.js'

const run = promisify(execFile)

const UFW = `#!/bin/sh
# "show added" · "allow proto tcp from A to any port P comment C" · "delete allow …" as it was shown
state=$(dirname "$0")/rules
touch "$state"
case $1 in
show) cat "$state" ;;
allow)
  case $5 in */0) echo "ERROR: Bad source address" >&2; exit 1 ;; esac
  if [ "$5" = any ]; then rule="ufw allow $9/tcp"; else rule="ufw allow from $5 to any port $9 proto tcp"; fi
  shift 10
  grep -qxF "$rule comment '$1'" "$state" || echo "$rule comment '$1'" >>"$state"
  ;;
delete) shift; grep -vF "ufw $* comment" "$state" >"$state.new"; mv "$state.new" "$state" ;;
esac
`

t.test('ufw: what is told is found again, a network of all addresses too', async t => {
  const directory = t.testdir({ ufw: UFW })
  await chmod(join(directory, 'ufw'), 0o755)
  const state = join(directory, 'rules')
  const verb = async (from: string[], word: string) => {
    const rules = {
      cluster: 'orders',
      postgres: { port: 5432, from },
      ssh: { port: 22, from: ['10.0.0.1'] },
      strict: false,
    }
    const env = { PATH: `${directory}:${process.env.PATH}` }
    return run('sh', ['-c', firewallScript('ufw', rules), 'understudy-firewall', word], { env }).then(
      () => 0,
      (error: { code: number }) => error.code,
    )
  }
  await writeFile(state, "ufw allow 22/tcp\nufw allow from 10.9.9.9 to any port 80 proto tcp comment 'web'\n")
  const own = async () =>
    (await readFile(state, 'utf8'))
      .split('\n')
      .flatMap(line => /(.*) comment 'understudy orders'/.exec(line)?.[1] ?? [])

  t.equal(await verb(['10.0.0.1', '0.0.0.0/0', '::/0'], 'check'), 1)
  t.equal(await verb(['10.0.0.1', '0.0.0.0/0', '::/0'], 'apply'), 0)
  t.same(await own(), [
    'ufw allow from 10.0.0.1 to any port 22 proto tcp',
    'ufw allow from 10.0.0.1 to any port 5432 proto tcp',
    'ufw allow 5432/tcp',
  ])
  t.equal(await verb(['10.0.0.1', '0.0.0.0/0', '::/0'], 'check'), 0, 'both are any')
  t.equal(await verb(['10.0.0.1'], 'check'), 1, 'one too many')
  t.equal(await verb(['10.0.0.1', '10.1.0.0/16'], 'apply'), 0)
  t.same(await own(), [
    'ufw allow from 10.0.0.1 to any port 22 proto tcp',
    'ufw allow from 10.0.0.1 to any port 5432 proto tcp',
    'ufw allow from 10.1.0.0/16 to any port 5432 proto tcp',
  ])
  t.equal(await verb([], 'remove'), 0)
  t.match(await readFile(state, 'utf8'), /^ufw allow 22\/tcp\nufw allow from 10\.9\.9\.9 .*'web'\n$/, 'others stay')
})
