import { access } from 'node:fs/promises'
import { execa } from 'execa'
import t from 'tap'
import { openLab } from '../../lab/lab.js'
import { labDirectory } from '../../lab/paths.js'

const NAME = 'demo-test'
const demo = (...args: string[]) =>
  execa(process.execPath, ['dist/lab/demo.js', ...args], {
    env: { UNDERSTUDY_DEMO_NAME: NAME, UNDERSTUDY_DEMO_PORT: '17433' },
    stdin: 'ignore',
    all: true,
    reject: false,
  })

t.test('the demonstration does what the README says, and leaves nothing', { timeout: 300_000 }, async t => {
  t.teardown(() => demo('--stop'))
  const { exitCode, all } = await demo('--keep')
  t.equal(exitCode, 0, all)
  for (const line of [
    /38 of 45 steps would change something/,
    /demo: healthy\. pg1 accepts writes and every standby follows/,
    /pg3 +standby +streaming +pg1/,
    /Nothing had to be changed/,
    /hello from pg1/,
    /cannot execute INSERT in a read-only transaction/,
  ]) {
    t.match(all, line)
  }

  await t.test('the lines that it ends with can be copied', async t => {
    const lines = all.split('\n').map(line => line.trim())
    const token = lines.find(line => line.startsWith('TOKEN='))
    const calls = lines.filter(line => line.startsWith('curl '))
    t.equal(calls.length, 3)
    const answers = await Promise.all(calls.map(call => execa('sh', ['-c', `${token}; ${call}`])))
    t.match(answers[0]?.stdout, /pg1 +primary +running/)
    t.match(JSON.parse(answers[1]?.stdout ?? '{}'), { primary: 'pg1' })
    t.match(answers[2]?.stdout, /bootstrap-cluster/)
    const word = async (prefix: string) => {
      const command =
        lines
          .find(line => line.startsWith(prefix))
          ?.slice(prefix.length)
          .trim() ?? 'false'
      return (await execa('sh', ['-c', command])).stdout
    }
    t.match(await word('a write:'), /INSERT 0 1/)
    t.match(await word('a read:'), /it is me/)
    t.equal((await fetch('http://127.0.0.1:17433/docs/')).status, 200)
  })

  const stopped = await demo('--stop')
  t.equal(stopped.exitCode, 0, stopped.all)
  t.equal(await openLab(NAME), undefined)
  await t.rejects(access(`${labDirectory()}/demonstration-${NAME}`))
  await t.rejects(fetch('http://127.0.0.1:17433/healthz'), 'nobody listens any more')
})
