/**
 * Runs every ring of tests and closes with one plain line made from what the tests themselves reported.
 *
 *   npm test                      every ring; of the lab hosts' the part whose turn it is (turns.ts)
 *   npm run test:all              every ring, whole
 *   npm test -- test/store/...    these files only
 *
 * Each file is a program of its own that prints TAP. They are run compiled, and without tap's own runner, which takes three
 * seconds of a core for each file to load a compiler that has nothing left to do.
 */

import { createWriteStream } from 'node:fs'
import { mkdir, readdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { execa } from 'execa'
import pLimit from 'p-limit'
import { type FinalResults, Parser } from 'tap-parser'
import { whatIsMissing } from '../lab/requirements.js'
import { today, turnOf } from './turns.js'

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

/** Where what each file printed is kept. */
const RESULTS = 'dist/test-results'
/** A file that took longer is told of when it ends. */
const LONG_S = 60

const say = (line: string) => process.stdout.write(`${line}\n`)

async function main(): Promise<void> {
  const total: Count = { passed: 0, failed: 0, skipped: 0 }
  const add = (count: Count) => {
    total.passed += count.passed
    total.failed += count.failed
    total.skipped += count.skipped
  }
  const all = process.argv.includes('--all')
  const named = process.argv.slice(2).filter(word => word !== '--all')
  const missing = named.length === 0 ? await whatIsMissing() : undefined
  if (missing) {
    say(`The tests cannot run here. ${missing}`)
    process.exitCode = 1
    return
  }
  if (named.length === 0) add(await check())
  for (const ring of named.length > 0
    ? // As long as they want: a whole sweep takes hours, and each file has limits of its own.
      [{ title: 'the files that were named', files: named, jobs: 1, timeout: 5 * 3600 }]
    : await rings(all)) {
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

const isTimed = (file: string) => file === 'test/lab/bootstrap.test.ts'

async function rings(whole: boolean): Promise<Ring[]> {
  const names = await readdir('test', { recursive: true })
  const all = await longestFirst(names.filter(name => name.endsWith('.test.ts')).map(name => join('test', name)))
  const inLab = (file: string) => file.startsWith('test/lab/')
  const { now, later } = whole ? { now: all.filter(inLab), later: [] } : turnOf(all.filter(inLab), today())
  const waiting = later.length === 0 ? '' : `; not today: ${later.map(file => file.slice(9, -8)).join(', ')}`
  return [
    {
      title: 'the code, and real Redis, PostgreSQL and sshd on loopback (about 6 minutes)',
      files: all.filter(file => !inLab(file)),
      // They wait more than they compute; but some have time limits of their own, which a busy machine would break.
      jobs: 2,
      timeout: 600,
    },
    // What has time limits of its own has the machine to itself.
    { title: 'lab hosts, one cluster at a time (about 5 minutes)', files: now.filter(isTimed), jobs: 1, timeout: 900 },
    // Two at a time: each is several machines, and an operation on them must end within what a test waits.
    {
      title: `lab hosts (about ${whole ? 100 : 30} minutes; the first time two more${waiting})`,
      files: now.filter(file => !isTimed(file)),
      jobs: 2,
      timeout: 900,
    },
  ]
}

/** Formatter and linter count as one test: they can fail like any other. The compiler has run, or nothing would. */
async function check(): Promise<Count> {
  say('== formatter, linter')
  const { exitCode } = await execa('npx', ['biome', 'check', '.'], {
    stdio: ['ignore', 'inherit', 'inherit'],
    reject: false,
  })
  return exitCode === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 }
}

async function runRing({ title, files, jobs, timeout }: Ring): Promise<Count> {
  say(`\n== ${title}`)
  await mkdir(RESULTS, { recursive: true })
  const begun = performance.now()
  const limit = pLimit(jobs)
  const counts = await Promise.all(files.map(file => limit(() => runFile(file, timeout))))
  const sum = (of: keyof Count) => counts.reduce((total, count) => total + count[of], 0)
  const total: Count = { passed: sum('passed'), failed: sum('failed'), skipped: sum('skipped') }
  say(
    `  ${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped in ${files.length} files, ${seconds(begun)} s`,
  )
  return total
}

const seconds = (since: number) => ((performance.now() - since) / 1000).toFixed(0)

async function runFile(file: string, timeout: number): Promise<Count> {
  const begun = performance.now()
  const child = execa(process.execPath, ['--enable-source-maps', join('dist', file.replace(/\.ts$/, '.js'))], {
    stdio: ['ignore', 'pipe', 'inherit'],
    buffer: false,
    reject: false,
    env: { TAP_TIMEOUT: String(timeout) },
    // tap ends a test whose time is up, and says so: this is for one that does not even do that.
    timeout: (timeout + 60) * 1000,
    killSignal: 'SIGKILL',
  })
  const kept = join(RESULTS, `${file.replaceAll('/', '-')}.tap`)
  await mkdir(dirname(kept), { recursive: true })
  child.stdout.pipe(createWriteStream(kept))
  const { count, failures } = await readResults(child.stdout)
  const ended = await child
  // A program that died, or said nothing, must not look like success.
  if (count.failed === 0 && (ended.exitCode !== 0 || count.passed + count.skipped === 0)) {
    const how = ended.timedOut ? `did not end within ${timeout} s` : `ended with ${ended.exitCode ?? ended.signal}`
    failures.push(`the file ${how}, after ${count.passed} that passed`)
    count.failed += 1
  }
  for (const failure of failures) say(`  FAILED  ${file} > ${failure}`)
  const tookS = Number(seconds(begun))
  if (tookS >= LONG_S) say(`  ${file}: ${count.passed} passed, ${count.failed} failed, ${tookS} s`)
  return count
}

/** Counts the leaves: a subtest is not one more test than what is in it. */
async function readResults(output: NodeJS.ReadableStream): Promise<{ count: Count; failures: string[] }> {
  const count: Count = { passed: 0, failed: 0, skipped: 0 }
  const failures: string[] = []
  const listen = (parser: Parser, path: string[]) => {
    let children = 0
    parser.on('child', (child: Parser) => {
      children += 1
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
  output.pipe(parser)
  await complete
  return { count, failures }
}

await main()
