/**
 * The archive's script itself, on loopback: the real script on both sides, with a stand-in for ssh between them that
 * does what sshd does with a forced command, and that can be told that a node is away.
 */
import { execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import t from 'tap'
import { quote } from '../../src/host/quote.js'

const SCRIPT = fileURLToPath(new URL('../../src/postgres/wal-archive.sh', import.meta.url))
const IDENTIFIER = '7575205301829416217'
const SHELLS = ['sh', 'bash'].filter(shell => existsSync(`/bin/${shell}`))

interface Run {
  code: number
  stdout: Buffer
  stderr: string
}

interface Options {
  settings?: Record<string, string | number>
  /** Programs that stand in front of the real ones, by name, as shell text. */
  instead?: Record<string, string>
  shell?: string
}

type Test = { teardown(close: () => unknown): unknown }

/** Nodes that archive to each other, each with a data directory and an archive of its own. */
function makeWorld(t: Test, names: readonly string[], { settings = {}, instead = {}, shell = 'sh' }: Options = {}) {
  const root = mkdtempSync(join(tmpdir(), 'understudy-archive-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  const at = (...parts: string[]) => join(root, ...parts)
  mkdirSync(at('down'))
  mkdirSync(at('bin'))
  const fake = at('fake-ssh')
  writeFileSync(
    fake,
    `#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n[ ! -e ${root}/down/"$2" ] || exit 255\n` +
      `SSH_ORIGINAL_COMMAND=$3 PATH=/usr/sbin:/usr/bin:/sbin:/bin exec ${shell} ${SCRIPT} -c ${root}/"$2".conf serve\n`,
    { mode: 0o755 },
  )
  const useInstead = (programs: Record<string, string>) => {
    rmSync(at('bin'), { recursive: true })
    mkdirSync(at('bin'))
    for (const [name, text] of Object.entries(programs))
      writeFileSync(at('bin', name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  }
  useInstead(instead)
  const configure = (name: string, more: Record<string, string | number> = {}) => {
    const values: Record<string, string | number> = {
      cluster: 'orders',
      node: name,
      directory: at(name, 'archive'),
      data_directory: at(name, 'data'),
      minimum_copies: 1,
      max_waiting_bytes: 10 * 1024 ** 3,
      retention_hours: 168,
      retention_bytes: 20 * 1024 ** 3,
      identity: '/nonexistent',
      known_hosts: '/nonexistent',
      targets: names
        .filter(other => other !== name)
        .map(other => `${other} ${other} 22`)
        .join('\n'),
      ssh: fake,
      ...settings,
      ...more,
    }
    const lines = Object.entries(values).map(([key, value]) => `${key}=${quote([String(value)])}\n`)
    writeFileSync(at(`${name}.conf`), lines.join(''))
  }
  const identifier = Buffer.alloc(8)
  identifier.writeBigUInt64LE(BigInt(IDENTIFIER))
  for (const name of names) {
    for (const directory of ['archive', 'data/global', 'data/pg_wal/archive_status'])
      mkdirSync(at(name, directory), { recursive: true })
    writeFileSync(at(name, 'data/global/pg_control'), Buffer.concat([identifier, Buffer.alloc(100)]))
    configure(name)
  }
  const start = (node: string, args: string[], env: NodeJS.ProcessEnv = {}) =>
    spawn(shell, [SCRIPT, '-c', at(`${node}.conf`), ...args], {
      cwd: at(node, 'data'),
      env: { PATH: `${at('bin')}:/usr/sbin:/usr/bin:/sbin:/bin`, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  const run = (node: string, args: string[], env: NodeJS.ProcessEnv = {}) =>
    new Promise<Run>(resolve => {
      const child = start(node, args, env)
      const stdout: Buffer[] = []
      let stderr = ''
      child.stdout.on('data', chunk => stdout.push(chunk))
      child.stderr.on('data', chunk => {
        stderr += chunk
      })
      child.once('close', code => resolve({ code: code ?? 999, stdout: Buffer.concat(stdout), stderr }))
    })
  const write = (node: string, name: string, content: string | Buffer) => {
    writeFileSync(at(node, 'data/pg_wal', name), content)
    return `pg_wal/${name}`
  }
  return {
    root,
    at,
    run,
    start,
    configure,
    useInstead,
    write,
    archive: (node: string, name: string, content: string | Buffer) =>
      run(node, ['archive', write(node, name, content), name]),
    restore: async (node: string, name: string) => {
      const result = await run(node, ['restore', name, 'pg_wal/RECOVERYXLOG'])
      const path = at(node, 'data/pg_wal/RECOVERYXLOG')
      const content = existsSync(path) ? readFileSync(path, 'utf8') : undefined
      rmSync(path, { force: true })
      return { ...result, content }
    },
    kept: (node: string, name: string) => {
      const path = at(node, 'archive', IDENTIFIER, name)
      return existsSync(path) ? readFileSync(path, 'utf8') : undefined
    },
    names: (node: string) =>
      existsSync(at(node, 'archive', IDENTIFIER)) ? readdirSync(at(node, 'archive', IDENTIFIER)).sort() : [],
    setDown: (node: string, down: boolean) =>
      down ? writeFileSync(at('down', node), '') : rmSync(at('down', node), { force: true }),
    /** As if the time in which a node that was away is not asked again had passed. */
    forgetDown: () => {
      for (const name of names)
        for (const other of names) rmSync(at(name, 'archive/.state', `down.${other}`), { force: true })
    },
    owed: (node: string, to: string) => {
      const path = at(node, 'archive/.state/pending', to)
      return existsSync(path) ? readdirSync(path).sort() : []
    },
    lastFailure: (node: string) => {
      const path = at(node, 'archive/.state/last-failure')
      return existsSync(path) ? readFileSync(path, 'utf8') : undefined
    },
  }
}

const segment = (number: number, timeline = 1) =>
  (timeline.toString(16).padStart(8, '0') + number.toString(16).padStart(16, '0')).toUpperCase()

for (const shell of SHELLS) {
  t.test(`a segment is on every node once it is archived (${shell})`, async t => {
    const world = makeWorld(t, ['pg1', 'pg2', 'pg3'], { shell })
    for (const name of [segment(1), `${segment(2)}.partial`, `${segment(1)}.00000028.backup`, '00000002.history']) {
      const { code, stderr } = await world.archive('pg1', name, `content of ${name}`)
      t.equal(code, 0, stderr)
      for (const node of ['pg1', 'pg2', 'pg3'])
        t.equal(world.kept(node, name), `content of ${name}`, `${name} on ${node}`)
    }
    t.equal(statSync(world.at('pg2', 'archive', IDENTIFIER, segment(1))).mode & 0o777, 0o600, 'nobody else reads it')
    t.equal(
      (await world.archive('pg1', segment(1), `content of ${segment(1)}`)).code,
      0,
      'the same once more, as after a crash, is fine',
    )
    t.equal(
      (await world.archive('pg2', segment(1), `content of ${segment(1)}`)).code,
      0,
      'and so it is from a node that was promoted',
    )
    t.same(
      world.names('pg2').filter(name => name.startsWith('.')),
      [],
      'nothing half-done is left',
    )
  })
}

t.test('another content under the same name is refused, loudly, wherever it is', async t => {
  const world = makeWorld(t, ['pg1', 'pg2', 'pg3'])
  t.equal((await world.archive('pg1', segment(1), 'first')).code, 0)
  const here = await world.archive('pg1', segment(1), 'second')
  t.equal(here.code, 3)
  t.match(here.stderr, /another content: nothing was overwritten/)
  t.match(
    world.lastFailure('pg1'),
    new RegExp(`^\\d{4}-.*Z ${segment(1)} is in the archive of pg1 with another content`),
  )
  // A node with a history of its own, whose archive knows nothing of the name.
  rmSync(world.at('pg3', 'archive', IDENTIFIER), { recursive: true })
  writeFileSync(world.at('pg2', 'archive', IDENTIFIER, segment(7)), 'of pg2')
  const there = await world.archive('pg3', segment(7), 'of pg3')
  t.equal(there.code, 3)
  t.match(there.stderr, /in the archive of pg2 with another content/)
  for (const node of ['pg1', 'pg2', 'pg3']) {
    if (node !== 'pg3') t.equal(world.kept(node, segment(1)), 'first', 'what was there first stays')
  }
  t.equal(world.kept('pg2', segment(7)), 'of pg2')
})

t.test('a node that is away: archiving goes on, and it is brought what it missed', async t => {
  const world = makeWorld(t, ['pg1', 'pg2', 'pg3'])
  world.setDown('pg3', true)
  for (const number of [1, 2, 3]) t.equal((await world.archive('pg1', segment(number), `s${number}`)).code, 0)
  t.same(world.names('pg2'), [segment(1), segment(2), segment(3)])
  t.same(world.names('pg3'), [])
  t.equal(world.owed('pg1', 'pg3').length, 3)
  t.equal((await world.run('pg1', ['sync'])).code, 0, 'while it is away this is no failure')
  t.equal(world.owed('pg1', 'pg3').length, 3)
  world.setDown('pg3', false)
  t.equal((await world.run('pg1', ['sync'])).code, 0)
  t.same(world.names('pg3'), [segment(1), segment(2), segment(3)])
  t.same(world.owed('pg1', 'pg3'), [])
})

t.test('a node that was away is not asked for each segment, unless it is needed', async t => {
  const world = makeWorld(t, ['pg1', 'pg2', 'pg3'])
  world.setDown('pg3', true)
  await world.archive('pg1', segment(1), 'one')
  world.setDown('pg3', false)
  t.equal((await world.archive('pg1', segment(2), 'two')).code, 0)
  t.equal(world.kept('pg3', segment(2)), undefined, 'it did not answer just now')
  world.setDown('pg2', true)
  t.equal((await world.archive('pg1', segment(3), 'three')).code, 0, 'but it is asked before archiving fails')
  t.equal(world.kept('pg3', segment(3)), 'three')
  t.match(world.owed('pg1', 'pg2'), [`${IDENTIFIER}.${segment(3)}`])
})

t.test('without another copy it fails, and says why; nothing is claimed', async t => {
  const world = makeWorld(t, ['pg1', 'pg2', 'pg3'])
  world.setDown('pg2', true)
  world.setDown('pg3', true)
  for (const again of [1, 2]) {
    const { code, stderr } = await world.archive('pg1', segment(1), 'one')
    t.equal(code, 1, `try ${again}`)
    t.match(stderr, /is on 0 of the 1 other nodes that must have it, pg2 does not answer, pg3 does not answer/)
  }
  t.match(world.lastFailure('pg1'), /0 of the 1 other nodes/)
  world.setDown('pg2', false)
  t.equal((await world.archive('pg1', segment(1), 'one')).code, 0)
  t.equal(world.lastFailure('pg1'), undefined, 'a failure that is over is not told of')
  world.configure('pg1', { minimum_copies: 2 })
  t.equal((await world.archive('pg1', segment(2), 'two')).code, 1, 'two were asked for')
  world.configure('pg1', { minimum_copies: 9 })
  world.setDown('pg3', false)
  t.equal((await world.archive('pg1', segment(2), 'two')).code, 0, 'never more than there are')
})

t.test('a lone node keeps its own', async t => {
  const world = makeWorld(t, ['pg1'])
  t.equal((await world.archive('pg1', segment(1), 'one')).code, 0)
  t.equal(world.kept('pg1', segment(1)), 'one')
  t.equal((await world.restore('pg1', segment(1))).content, 'one')
})

t.test('before the disk of the primary is full, its own archive is enough, and that is told', async t => {
  const world = makeWorld(t, ['pg1', 'pg2'], { settings: { max_waiting_bytes: 30 } })
  world.setDown('pg2', true)
  const ready = (number: number) => world.at('pg1', 'data/pg_wal/archive_status', `${segment(number)}.ready`)
  for (const number of [1, 2]) writeFileSync(ready(number), '')
  t.equal((await world.archive('pg1', segment(1), 'ten bytes.')).code, 1, 'twenty bytes wait')
  for (const number of [3, 4]) writeFileSync(ready(number), '')
  const released = await world.archive('pg1', segment(1), 'ten bytes.')
  t.equal(released.code, 0)
  t.match(released.stderr, /kept on pg1 alone: 30 bytes were waiting/)
  t.same(readdirSync(world.at('pg1', 'archive/.state/alone')), [`${IDENTIFIER}.${segment(1)}`])
  t.equal(world.owed('pg1', 'pg2').length, 1)
  rmSync(ready(1))
  rmSync(ready(2))
  t.equal((await world.archive('pg1', segment(2), 'ten bytes.')).code, 1, 'and no longer than needed')
  world.setDown('pg2', false)
  t.equal((await world.run('pg1', ['sync'])).code, 0)
  t.same(readdirSync(world.at('pg1', 'archive/.state/alone')), [])
  t.equal(world.kept('pg2', segment(1)), 'ten bytes.')
})

t.test('a crash at any point: no half file under its name, and the next try finishes it', async t => {
  // Programs that end the script, or the other side's, in the middle of their work.
  const dies = 'kill -9 "$PPID"; exit 1'
  for (const [where, instead] of Object.entries({
    'before the link': { ln: dies },
    'after the link, before the directory is on the disk': { ln: `/bin/ln "$@"; ${dies}` },
    'while it is written': { cat: `head -c 3; ${dies}` },
    'while it is synced': { sync: dies },
    'before it is shipped': { timeout: dies },
  })) {
    const world = makeWorld(t, ['pg1', 'pg2'], { instead })
    const first = await world.archive('pg1', segment(1), 'the whole content')
    t.not(first.code, 0, where)
    t.ok(
      [undefined, 'the whole content'].includes(world.kept('pg1', segment(1))),
      `${where}: nothing half under the name`,
    )
    world.useInstead({})
    t.equal((await world.archive('pg1', segment(1), 'the whole content')).code, 0, `${where}: then it goes on`)
    for (const node of ['pg1', 'pg2']) t.equal(world.kept(node, segment(1)), 'the whole content')
    for (const name of world.names('pg1').filter(name => name.startsWith('.incoming')))
      utimesSync(world.at('pg1', 'archive', IDENTIFIER, name), Date.now() / 1000, Date.now() / 1000 - 7200)
    t.equal((await world.run('pg1', ['sync'])).code, 0)
    t.same(world.names('pg1'), [segment(1)], `${where}: what was left is swept up`)
  }
})

t.test('a transfer that is cut off leaves nothing', async t => {
  const world = makeWorld(t, ['pg1', 'pg2'])
  const sum = createHash('sha256').update('the whole content').digest('hex')
  const receive = (content: string, ...words: string[]) => {
    writeFileSync(world.at('sent'), content)
    return execFileSync(
      'sh',
      ['-c', `sh "$1" -c "$2" serve <"$3"; echo $?`, 'sh', SCRIPT, world.at('pg2.conf'), world.at('sent')],
      {
        env: { PATH: process.env.PATH, SSH_ORIGINAL_COMMAND: ['wal-archive', ...words].join(' ') },
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    ).trim()
  }
  t.equal(receive('the who', 'receive', IDENTIFIER, segment(1), sum, '17'), '1')
  t.equal(receive('the whole CONTENT', 'receive', IDENTIFIER, segment(1), sum, '17'), '1')
  t.same(world.names('pg2'), [])
  t.equal(receive('the whole content', 'receive', IDENTIFIER, segment(1), sum, '17'), '0')
})

t.test('a key for the archive does nothing else', async t => {
  const world = makeWorld(t, ['pg1', 'pg2'])
  await world.archive('pg1', segment(1), 'one')
  writeFileSync(world.at('pg2', 'secret'), 'secret')
  const sum = 'a'.repeat(64)
  for (const words of [
    '',
    'id',
    'wal-archive',
    'sh -c id',
    'wal-archive archive pg_wal/x x',
    'wal-archive sync',
    'wal-archive serve',
    `wal-archive fetch ${IDENTIFIER} ../../secret`,
    `wal-archive fetch ../${IDENTIFIER} ${segment(1)}`,
    `wal-archive fetch ${IDENTIFIER} $(id)`,
    `wal-archive fetch ${IDENTIFIER} \`id\``,
    `wal-archive fetch ${IDENTIFIER} *`,
    `wal-archive fetch ${IDENTIFIER} ${segment(1)}; id`,
    `wal-archive fetch ${IDENTIFIER} .incoming.12345678`,
    `wal-archive receive ${IDENTIFIER} ${segment(2)} ${sum}`,
    `wal-archive receive ${IDENTIFIER} ${segment(2)} ${'Z'.repeat(64)} 3`,
    `wal-archive receive ${IDENTIFIER} ${segment(2)} ${sum} 3x`,
    `wal-archive receive ${IDENTIFIER}/.. ${segment(2)} ${sum} 3`,
  ]) {
    const { code, stdout } = await world.run('pg2', ['serve'], { SSH_ORIGINAL_COMMAND: words })
    t.equal(code, 5, words)
    t.equal(stdout.length, 0)
  }
  const hello = await world.run('pg2', ['serve'], { SSH_ORIGINAL_COMMAND: 'wal-archive hello' })
  t.equal(hello.stdout.toString(), 'wal-archive 1 orders pg2\n')
  const fetched = await world.run('pg2', ['serve'], {
    SSH_ORIGINAL_COMMAND: `wal-archive fetch ${IDENTIFIER} ${segment(1)}`,
  })
  t.equal(fetched.stdout.toString(), 'one')
})

t.test('names: 20 000 of them, as a regular expression has it', async t => {
  const right = /^(?:[0-9A-F]{24}(?:\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history)$/
  const hex = (length: number) =>
    fc.string({ unit: fc.constantFrom(...'0123456789ABCDEF'), minLength: length, maxLength: length })
  const good = fc.oneof(
    hex(24),
    hex(24).map(name => `${name}.partial`),
    fc.tuple(hex(24), hex(8)).map(([name, offset]) => `${name}.${offset}.backup`),
    hex(8).map(name => `${name}.history`),
  )
  const bent = fc
    .tuple(good, fc.nat(), fc.constantFrom('a', 'G', '.', '/', ' ', '*', '$', '-', '', 'é'))
    .map(([name, place, mark]) => {
      const cut = place % name.length
      return name.slice(0, cut) + mark + name.slice(cut + 1)
    })
  const pieces = fc
    .array(fc.constantFrom('.partial', '.backup', '.history', '00000001', 'A', '.', '..', '0'.repeat(24)), {
      maxLength: 4,
    })
    .map(parts => parts.join(''))
  const names = fc.sample(fc.oneof(good, bent, pieces), 20_000).filter(name => !name.includes('\n'))
  const functions = readFileSync(SCRIPT, 'utf8')
  const cut = functions.slice(functions.indexOf('is_segment() {'), functions.indexOf('is_number()'))
  for (const shell of SHELLS) {
    const said = execFileSync(
      shell,
      ['-c', `LC_ALL=C; ${cut}\nwhile IFS= read -r name; do if is_name "$name"; then echo 1; else echo 0; fi; done`],
      {
        input: names.map(name => `${name}\n`).join(''),
        encoding: 'utf8',
        maxBuffer: 1e8,
      },
    )
      .trim()
      .split('\n')
    t.same(
      names.filter((name, index) => (said[index] === '1') !== right.test(name)),
      [],
      shell,
    )
    t.equal(said.length, names.length)
  }
})

t.test('restore: from here, from another node, or nowhere; never a status that ends a recovery', async t => {
  const world = makeWorld(t, ['pg1', 'pg2', 'pg3'])
  await world.archive('pg1', segment(1), 'one')
  t.equal((await world.restore('pg2', segment(1))).content, 'one', 'from its own')
  rmSync(world.at('pg2', 'archive', IDENTIFIER), { recursive: true })
  t.match(await world.restore('pg2', segment(1)), { code: 0, content: 'one' }, 'from another node')
  world.setDown('pg1', true)
  t.match(await world.restore('pg2', segment(1)), { code: 0, content: 'one' }, 'from the next one')
  t.match(await world.restore('pg2', segment(9)), { code: 1, content: undefined }, 'nowhere')
  world.setDown('pg3', true)
  t.match(await world.restore('pg2', segment(1)), { code: 1, content: undefined }, 'nobody answers')
  t.match(await world.restore('pg2', 'nonsense'), { code: 1, content: undefined })
  rmSync(world.at('pg2', 'data/global/pg_control'))
  t.match(await world.restore('pg2', segment(1)), { code: 1, content: undefined }, 'a data directory that is not whole')
})

t.test('another database cluster in the same place never meets the files of the one before it', async t => {
  const world = makeWorld(t, ['pg1', 'pg2'])
  t.equal((await world.archive('pg1', segment(1), 'of the old one')).code, 0)
  const other = Buffer.alloc(108)
  other.writeBigUInt64LE(42n)
  for (const node of ['pg1', 'pg2']) writeFileSync(world.at(node, 'data/global/pg_control'), other)
  t.equal((await world.archive('pg1', segment(1), 'of the new one')).code, 0)
  t.equal(readFileSync(world.at('pg2', 'archive/42', segment(1)), 'utf8'), 'of the new one')
  t.equal(world.kept('pg2', segment(1)), 'of the old one')
  t.equal((await world.restore('pg2', segment(1))).content, 'of the new one')
})

t.test('what a promoted node has, and nobody archived before, is archived then', async t => {
  const world = makeWorld(t, ['pg1', 'pg2', 'pg3'])
  await world.archive('pg1', segment(1), 'one')
  for (const number of [1, 2, 3]) {
    world.write('pg2', segment(number), number === 1 ? 'one' : `streamed ${number}`)
    writeFileSync(world.at('pg2', 'data/pg_wal/archive_status', `${segment(number)}.done`), '')
  }
  world.write('pg2', segment(4), 'not finished')
  t.equal((await world.archive('pg2', '00000002.history', 'history')).code, 0)
  t.equal(world.kept('pg2', segment(2)), 'streamed 2')
  t.equal(world.kept('pg2', segment(3)), 'streamed 3')
  t.equal(world.kept('pg2', segment(4)), undefined)
  await world.run('pg2', ['sync'])
  t.equal(world.kept('pg1', segment(3)), 'streamed 3')
  t.equal(world.kept('pg3', segment(2)), 'streamed 2')
})

t.test('retention: by age, by size, the oldest first; histories stay', async t => {
  const world = makeWorld(t, ['pg1', 'pg2'], { settings: { retention_hours: 2, retention_bytes: 3500 } })
  const hoursAgo = (hours: number) => Date.now() / 1000 - hours * 3600
  const put = (name: string, hours: number) => {
    const path = world.at('pg1', 'archive', IDENTIFIER, name)
    mkdirSync(world.at('pg1', 'archive', IDENTIFIER), { recursive: true })
    writeFileSync(path, Buffer.alloc(1000))
    utimesSync(path, hoursAgo(hours), hoursAgo(hours))
  }
  for (let number = 1; number <= 6; number += 1) put(segment(number), 1.9 - number / 10)
  put(segment(0), 3)
  put('00000002.history', 500)
  put(`${segment(0)}.00000028.backup`, 3)
  const { code } = await world.run('pg1', ['sync'])
  t.equal(code, 0)
  t.same(world.names('pg1'), [segment(4), segment(5), segment(6), '00000002.history'].sort())
  t.ok(existsSync(world.at('pg1', 'archive/.state')), 'what it has to remember stays')
})

t.test('retention: what is not the archive’s own stays, however old and however large', async t => {
  const world = makeWorld(t, ['pg1', 'pg2'], { settings: { retention_hours: 1, retention_bytes: 1 } })
  const ages = (...parts: string[]) => {
    const path = world.at('pg1', 'archive', ...parts)
    mkdirSync(join(path, '..'), { recursive: true })
    writeFileSync(path, Buffer.alloc(1000))
    utimesSync(path, 1, 1)
    return path
  }
  const stay = [
    ages('notes'),
    ages(segment(1)),
    ages('base', segment(1)),
    ages('base', '.incoming.12345678'),
    ages('2024-01', segment(1)),
    ages('16', 'main'),
    ages(IDENTIFIER, 'README'),
    ages(IDENTIFIER, `${segment(1)}.gz`),
    ages(IDENTIFIER, `${segment(1)} of friday`),
    ages(IDENTIFIER, 'deeper', segment(1)),
    ages(IDENTIFIER, '00000002.history'),
  ]
  const go = [
    ages(IDENTIFIER, segment(1)),
    ages(IDENTIFIER, `${segment(2)}.partial`),
    ages(IDENTIFIER, '.incoming.12345678'),
    ages('7575205301829416218', segment(1)),
  ]
  t.equal((await world.run('pg1', ['sync'])).code, 0)
  t.same(
    stay.filter(path => !existsSync(path)),
    [],
  )
  t.same(
    go.filter(path => existsSync(path)),
    [],
  )
})

t.test('a full disk: the other one’s, then its own', async t => {
  const world = makeWorld(t, ['pg1', 'pg2', 'pg3'])
  const small = (node: string) => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'understudy-test', world.at(node, 'archive')])
    t.teardown(() => execFileSync('umount', ['-l', world.at(node, 'archive')]))
  }
  small('pg2')
  const megabyte = randomBytes(1024 * 1024)
  const first = await world.archive('pg1', segment(1), megabyte)
  t.equal(first.code, 0, 'pg3 has it')
  t.match(first.stderr, /too little room/)
  t.same(world.names('pg2'), [])
  t.equal(world.owed('pg1', 'pg2').length, 1, 'pg2 is owed it')
  world.setDown('pg3', true)
  world.forgetDown()
  const second = await world.archive('pg1', segment(2), megabyte)
  t.equal(second.code, 1)
  t.match(second.stderr, /pg2 has too little room/)
  world.setDown('pg3', false)
  small('pg1')
  t.equal(
    (await world.archive('pg1', segment(2), megabyte)).code,
    0,
    'its own disk is full: another has it, so the WAL need not wait',
  )
  t.equal(statSync(world.at('pg3', 'archive', IDENTIFIER, segment(2))).size, megabyte.length)
  world.setDown('pg3', true)
  t.equal((await world.archive('pg1', segment(3), megabyte)).code, 1, 'and where nobody has it, it must wait')
})

t.test('many at once, the same and different contents: one wins, and all others are told', async t => {
  const world = makeWorld(t, ['pg1', 'pg2', 'pg3'])
  const contents = Array.from({ length: 24 }, (_, index) => `content ${index % 3}`)
  const results = await Promise.all(
    contents.map((content, index) => {
      const path = `pg_wal/copy-${index}`
      writeFileSync(world.at('pg1', 'data', path), content)
      return world.run('pg1', ['archive', path, segment(1)])
    }),
  )
  const kept = world.kept('pg1', segment(1))
  for (const [index, { code }] of results.entries())
    t.equal(code, contents[index] === kept ? 0 : 3, `${contents[index]}, kept is ${kept}`)
  for (const node of ['pg2', 'pg3']) t.equal(world.kept(node, segment(1)), kept)
  t.same(world.names('pg2'), [segment(1)])
})

t.test(
  'whatever happens in whatever order: what was said to be archived is, and nothing is ever replaced',
  { timeout: 600_000 },
  async t => {
    const NODES = ['pg1', 'pg2', 'pg3'] as const
    const nodes = fc.constantFrom(...NODES)
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({
          what: fc.constant('archive' as const),
          node: nodes,
          number: fc.integer({ min: 1, max: 4 }),
          content: fc.constantFrom('a', 'a', 'a', 'b'),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({
          what: fc.constant('killed' as const),
          node: nodes,
          number: fc.integer({ min: 1, max: 4 }),
          afterMs: fc.integer({ min: 1, max: 120 }),
        }),
      },
      { weight: 2, arbitrary: fc.record({ what: fc.constantFrom('down' as const, 'up' as const), node: nodes }) },
      { weight: 1, arbitrary: fc.record({ what: fc.constant('sync' as const), node: nodes }) },
    )
    let calls = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 6, maxLength: 14 }), async steps => {
        const closing: (() => unknown)[] = []
        const world = makeWorld({ teardown: close => closing.push(close) }, NODES)
        const first = new Map<string, string>()
        const look = () => {
          for (const node of NODES) {
            for (const name of world.names(node).filter(name => !name.startsWith('.'))) {
              const content = world.kept(node, name) ?? ''
              const known = first.get(`${node} ${name}`)
              if (known !== undefined && known !== content)
                throw new Error(`${name} on ${node} was ${known}, is ${content}`)
              if (!['a', 'b'].includes(content[0] ?? '') || content.length !== 5000)
                throw new Error(`${name} on ${node} is not whole`)
              first.set(`${node} ${name}`, content)
            }
          }
        }
        const promised = new Map<string, string>()
        try {
          for (const one of steps) {
            world.forgetDown()
            if (one.what === 'archive') {
              calls += 1
              const name = segment(one.number)
              const content = one.content.repeat(5000)
              const { code } = await world.archive(one.node, name, content)
              if (code === 0) {
                const copies = NODES.filter(node => node !== one.node && world.kept(node, name) === content)
                if (copies.length === 0) throw new Error(`${name} was said to be archived, and no other node has it`)
                if (promised.has(name) && promised.get(name) !== content)
                  throw new Error(`two contents of ${name} were accepted`)
                promised.set(name, content)
              } else if (![1, 3].includes(code)) throw new Error(`status ${code}`)
            } else if (one.what === 'killed') {
              calls += 1
              const path = world.write(one.node, segment(one.number), 'a'.repeat(5000))
              const child = world.start(one.node, ['archive', path, segment(one.number)])
              const ended = new Promise(resolve => child.once('close', resolve))
              setTimeout(() => child.kill('SIGKILL'), one.afterMs)
              await ended
            } else if (one.what === 'sync') {
              calls += 1
              await world.run(one.node, ['sync'])
            } else world.setDown(one.node, one.what === 'down')
            look()
          }
          for (const node of NODES) world.setDown(node, false)
          world.forgetDown()
          for (const [name, content] of promised) {
            calls += 1
            for (const node of NODES) {
              const restored = await world.restore(node, name)
              // Where a node has another content of its own, it is that one's: it was refused before, not replaced.
              const own = first.get(`${node} ${name}`)
              if (restored.content !== (own ?? content))
                throw new Error(`${node} restored ${restored.content?.[0]} as ${name}, not ${content[0]}`)
            }
          }
        } finally {
          for (const close of closing) await close()
        }
      }),
      { numRuns: 45, endOnFailure: true },
    )
    t.ok(calls > 200, `${calls} calls`)
  },
)
