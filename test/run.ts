/**
 * Runs every ring of tests and closes with one plain line made from what the tests themselves reported.
 *
 *   npm test                      every ring
 *   npm test -- test/store/...    these files only
 */
import { createReadStream } from 'node:fs'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import { type FinalResults, Parser } from 'tap-parser'
import { whatIsMissing } from '../lab/requirements.js'

interface Ring {
  title: string
  files: string[]
  /** Test files at a time. */
  jobs: number
  /** Seconds for one file. */
  timeout: number
}

interface Count {
  passed: number
  failed: number
  skipped: number
}

const say = (line: string) => process.stdout.write(`${line}\n`)

async function main(): Promise<void> {
  const total: Count = { passed: 0, failed: 0, skipped: 0 }
  const add = (count: Count) => {
    total.passed += count.passed
    total.failed += count.failed
    total.skipped += count.skipped
  }
  const named = process.argv.slice(2)
  const missing = named.length === 0 ? await whatIsMissing() : undefined
  if (missing) {
    say(`The tests cannot run here. ${missing}`)
    process.exitCode = 1
    return
  }
  if (named.length === 0) add(await check())
  for (const ring of named.length > 0
    ? [{ title: 'the files that were named', files: named, jobs: 1, timeout: 900 }]
    : await rings()) {
    add(await runRing(ring))
  }
  say(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
  process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0
}

/** Long files first, so that none runs alone at the end. How long one is says roughly how long it takes. */
async function longestFirst(files: readonly string[]): Promise<string[]> {
  const sized = await Promise.all(files.map(async file => ({ file, size: (await stat(file)).size })))
  return sized.sort((a, b) => b.size - a.size).map(({ file }) => file)
}

async function rings(): Promise<Ring[]> {
  const names = await readdir('test', { recursive: true })
  const all = await longestFirst(names.filter(name => name.endsWith('.test.ts')).map(name => join('test', name)))
  const inLab = (file: string) => file.startsWith('test/lab/')
  return [
    {
      title: 'the code, and real Redis, PostgreSQL and sshd on loopback (about 10 minutes)',
      files: all.filter(file => !inLab(file)),
      // They wait more than they compute; but some have time limits of their own, which a busy machine would break.
      jobs: 2,
      timeout: 600,
    },
    // Two at a time: each is several machines, and an operation on them must end within what a test waits.
    {
      title: 'lab hosts (about 40 minutes; the first time two more)',
      files: all.filter(inLab),
      jobs: 2,
      timeout: 900,
    },
  ]
}

/** Formatter, linter and compiler count as one test: they can fail like any other. */
async function check(): Promise<Count> {
  say('== formatter, linter, compiler')
  const { exitCode } = await execa('npm', ['run', '-s', 'lint'], {
    stdio: ['ignore', 'inherit', 'inherit'],
    reject: false,
  })
  return exitCode === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 }
}

async function runRing({ title, files, jobs, timeout }: Ring): Promise<Count> {
  say(`\n== ${title}`)
  const directory = await mkdtemp(join(tmpdir(), 'understudy-tap-'))
  const output = join(directory, 'results.tap')
  try {
    const begun = performance.now()
    const ended = await execa(
      'node_modules/.bin/tap',
      [
        'run',
        '--disable-coverage',
        '--allow-empty-coverage',
        '--reporter=tap',
        `--output-file=${output}`,
        `--jobs=${jobs}`,
        `--timeout=${timeout}`,
        ...files,
      ],
      { stdio: ['ignore', 'ignore', 'inherit'], reject: false },
    )
    const { count, failures, filesSeen } = await readResults(output)
    for (const failure of failures) say(`  FAILED  ${failure}`)
    say(
      `  ${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped in ${filesSeen} files, ${((performance.now() - begun) / 1000).toFixed(0)} s`,
    )
    // A runner that died, or a file that never ran, must not look like success.
    if (count.failed === 0 && (ended.exitCode !== 0 || filesSeen < files.length)) {
      say(
        `  FAILED  the test runner ended with ${ended.exitCode ?? ended.signal}, after ${filesSeen} of ${files.length} files`,
      )
      return { ...count, failed: 1 }
    }
    return count
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** Counts the leaves: a subtest is not one more test than what is in it. */
async function readResults(file: string): Promise<{ count: Count; failures: string[]; filesSeen: number }> {
  const count: Count = { passed: 0, failed: 0, skipped: 0 }
  const failures: string[] = []
  let filesSeen = 0
  const listen = (parser: Parser, path: string[]) => {
    let children = 0
    parser.on('child', (child: Parser) => {
      children += 1
      if (path.length === 0) filesSeen += 1
      listen(child, [...path, child.name])
    })
    parser.on('assert', result => {
      // The line of a subtest sums up what was counted inside it.
      if (children > 0) {
        children -= 1
        return
      }
      if (result.skip || result.todo) count.skipped += 1
      else if (result.ok) count.passed += 1
      else {
        count.failed += 1
        const { diag } = result
        failures.push(
          [...path, result.name].join(' > ') + (diag ? `\n${JSON.stringify(diag, null, 2).slice(0, 3000)}` : ''),
        )
      }
    })
    parser.on('bailout', reason => {
      count.failed += 1
      failures.push(`${path.join(' > ')}: bailed out: ${reason}`)
    })
  }
  const parser = new Parser()
  listen(parser, [])
  const complete = new Promise<FinalResults>(resolve => parser.on('complete', resolve))
  createReadStream(file).pipe(parser)
  await complete
  return { count, failures, filesSeen }
}

await main()
