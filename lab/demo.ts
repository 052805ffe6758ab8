/**
 * The demonstration: three bare hosts become a replicating cluster, by calls to the API. Whatever it says it does it
 * really does; nothing is left running unless asked for.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Operation, PlanPreview } from '../src/operations/operation.js'
import { openStateDirectory, readIdentity } from '../src/state-directory.js'
import { LabError } from './command.js'
import { forward } from './forward.js'
import { bringUpLab, type Lab, takeLabDown, whatIsMissing } from './lab.js'
import { labDirectory } from './paths.js'
import { type LabService, projectRoot, startLabService } from './service.js'

/** Another name lets a second demonstration, such as a test's, run beside the first. */
const LAB = process.env.UNDERSTUDY_DEMO_NAME ?? 'demo'
const HOSTS = ['pg1', 'pg2', 'pg3']
const usage = `npm run demo              build a cluster on three lab hosts, and keep it until you press Ctrl-C
npm run demo -- --keep    the same, left running in the background
npm run demo -- --stop    end what --keep left running
npm run demo -- --once    the same, and gone at its end (also where there is no terminal)
Port 7433 of the loopback; another one: UNDERSTUDY_DEMO_PORT=8433 npm run demo
`

const say = (line = ''): void => {
  process.stdout.write(`${line}\n`)
}
const heading = (line: string) => say(`\n== ${line}`)
const directory = () => join(labDirectory(), `demonstration-${LAB}`)
const keptFile = () => join(directory(), 'kept.json')

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      keep: { type: 'boolean' },
      stop: { type: 'boolean' },
      once: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  })
  if (values.help) {
    say(usage)
    return
  }
  if (values.stop) return stopKept()
  const missing = await whatIsMissing()
  if (missing) throw new LabError(missing)
  await stopKept()
  const port = Number(process.env.UNDERSTUDY_DEMO_PORT ?? 7433)

  await refuseTakenPort(port)
  heading('Three bare Debian hosts (the first time this makes a Debian tree: about two minutes; later: seconds)')
  const stateDirectory = join(directory(), 'state')
  await rm(directory(), { recursive: true, force: true })
  await openStateDirectory(stateDirectory)
  // The key that the service will log in with, known before the hosts are made. Elsewhere: GET /v1/ssh-key.
  const { publicKey = '' } = await readIdentity(stateDirectory, { keyFile: undefined, agent: undefined })
  const lab = await bringUpLab({ name: LAB, hosts: HOSTS, publicKeys: [publicKey], log: line => say(`   ${line}`) })
  let service: LabService | undefined
  let stays = false
  const takeDown = async () => {
    say('\nTaking it down.')
    await service?.stop()
    await lab.down()
    await rm(directory(), { recursive: true, force: true })
  }
  // Ctrl-C while it builds: nothing is left then either.
  const interrupted = () => void takeDown().finally(() => process.exit(130))
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted)
  try {
    for (const host of await lab.hosts()) say(`   ${host.name}  ${host.address}  ${host.hostKey}`)
    heading('The service, with a Redis of its own')
    service = await startLabService(lab, { stateDirectory, detached: values.keep === true })
    say(`   listening; its admin token is in ${stateDirectory}/admin-token (0600)`)
    await build(lab, service)
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted)
    if (values.keep) await keep(port, service)
    showHow(port, stateDirectory)
    stays = values.keep === true
    if (stays) return
    if (values.once || !process.stdin.isTTY)
      return say('\nThere is no terminal to wait at, or --once was given, so it ends here. --keep leaves it running.')
    const server = await forward(port, service.socket)
    say('\nIt runs until you press Ctrl-C here.')
    await Promise.race([
      once(process, 'SIGINT'),
      once(process, 'SIGTERM'),
      service.process.exitCode === null ? once(service.process, 'exit') : undefined,
    ])
    server.close()
  } finally {
    if (!stays) await takeDown()
  }
}

/** Everything here is an HTTP call that you could make with curl. */
async function build(lab: Lab, service: LabService): Promise<void> {
  const hosts = await lab.hosts()
  const cluster = {
    name: 'demo',
    postgresVersion: 15,
    nodes: hosts.map(({ name, address, loginUser, hostKey }) => ({
      name,
      host: address,
      ssh: { user: loginUser, hostKey },
    })),
    bootstrap: true,
  }
  heading('POST /v1/clusters?dryRun=true: what would be done')
  const plan = await expect<PlanPreview>(service.call('POST', '/v1/clusters?dryRun=true', { body: cluster }), 200)
  say(`   ${plan.stepsThatWouldRun} of ${plan.steps.length} steps would change something; the first commands:`)
  const commands = plan.steps.flatMap(({ node, actions }) =>
    actions.flatMap(action => (action.kind === 'command' ? [`   ${node}$ ${action.text}`] : [])),
  )
  for (const line of commands.slice(0, 4)) say(line.length > 110 ? `${line.slice(0, 107)}...` : line)
  say(`   ... and ${commands.length - 4} more`)

  heading('POST /v1/clusters: build it (on two cores about a minute; installing packages is most of it)')
  const begun = performance.now()
  const { id } = await expect<Operation>(service.call('POST', '/v1/clusters', { body: cluster }), 202)
  const operation = await follow(service, id)
  if (operation.state !== 'succeeded') {
    throw new LabError(
      `the operation ${operation.state}: ${operation.error?.detail} ${operation.error?.remedy}\n${operation.error?.output ?? ''}`,
    )
  }
  say(`   ${operation.result?.summary} ${((performance.now() - begun) / 1000).toFixed(0)} s.`)

  heading('GET /v1/clusters/demo/status')
  say(indent(await text(service, '/v1/clusters/demo/status')))
  heading('The same POST again: it looks, and changes nothing')
  const again = await expect<Operation>(service.call('POST', '/v1/clusters?wait=60', { body: cluster }), 200)
  say(`   ${again.result?.summary}`)

  heading('A write on the primary, a read on a standby, and a write that a standby refuses')
  const psql = (host: string, statement: string) =>
    lab.exec(host, ['sudo', '-u', 'postgres', 'psql', '-XAtc', statement], { reject: false })
  for (const [host, statement] of [
    ['pg1', "CREATE TABLE greetings (word text); INSERT INTO greetings VALUES ('hello from pg1')"],
    ['pg3', 'SELECT word FROM greetings'],
    ['pg3', "INSERT INTO greetings VALUES ('not here')"],
  ] as const) {
    say(`   ${host}$ psql -c "${statement}"`)
    // The row is on its way: a standby shows it some milliseconds after the primary's answer.
    let answer = await psql(host, statement)
    for (let tries = 0; /does not exist/.test(answer.stderr) && tries < 50; tries += 1) {
      await sleep(100)
      answer = await psql(host, statement)
    }
    say(indent((answer.stdout || answer.stderr).trim()))
  }
}

async function follow(service: LabService, id: string): Promise<Operation> {
  const shown = new Set<string>()
  for (;;) {
    const operation = await expect<Operation>(service.call('GET', `/v1/operations/${id}?wait=1`), 200)
    for (const step of operation.steps) {
      const done = step.state === 'changed' || step.state === 'verified' || step.state === 'failed'
      if (!done || shown.has(step.id)) continue
      shown.add(step.id)
      say(`   ${step.state.padEnd(8)} ${(step.node ?? '').padEnd(4)} ${step.title}`)
    }
    if (operation.state === 'succeeded' || operation.state === 'failed') return operation
  }
}

function showHow(port: number, stateDirectory: string): void {
  heading('Talk to it')
  say(`
  TOKEN=$(cat ${stateDirectory}/admin-token)
  curl -s -H "Authorization: Bearer $TOKEN" -H 'Accept: text/plain' http://127.0.0.1:${port}/v1/clusters/demo/status
  curl -s -H "Authorization: Bearer $TOKEN" http://127.0.0.1:${port}/v1/clusters/demo/status
  curl -s -H "Authorization: Bearer $TOKEN" -H 'Accept: text/plain' http://127.0.0.1:${port}/v1/operations

  a write:  npm run -s lab -- exec ${LAB} pg1 -- sudo -u postgres psql -c "INSERT INTO greetings VALUES ('it is me')"
  a read:   npm run -s lab -- exec ${LAB} pg2 -- sudo -u postgres psql -c "SELECT * FROM greetings"

  the API's reference:  http://127.0.0.1:${port}/docs
  to end it:  Ctrl-C where it runs; after --keep:  npm run demo -- --stop`)
}

/** Before minutes are spent, not after. */
async function refuseTakenPort(port: number): Promise<void> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', () =>
      reject(new LabError(`port ${port} of 127.0.0.1 is taken. Take another: UNDERSTUDY_DEMO_PORT=8433 npm run demo`)),
    )
    server.listen(port, '127.0.0.1', () => server.close(() => resolve()))
  })
}

interface Kept {
  service: number
  forward: number
}

async function keep(port: number, service: LabService): Promise<void> {
  await mkdir(directory(), { recursive: true })
  const log = openSync(join(directory(), 'forward.log'), 'a')
  const child = spawn(process.execPath, [join(projectRoot, 'dist/lab/forward.js'), String(port), service.socket], {
    detached: true,
    stdio: ['ignore', log, log],
  })
  child.unref()
  const kept: Kept = { service: service.pid, forward: child.pid ?? -1 }
  await writeFile(keptFile(), JSON.stringify(kept))
  for (let tries = 0; ; tries += 1) {
    if (
      await fetch(`http://127.0.0.1:${port}/healthz`).then(
        ({ ok }) => ok,
        () => false,
      )
    )
      return
    if (tries > 100 || child.exitCode !== null)
      throw new LabError(`nothing answers on port ${port}: see ${directory()}/forward.log`)
    await sleep(50)
  }
}

async function stopKept(): Promise<void> {
  const kept = await readFile(keptFile(), 'utf8').then(
    text => JSON.parse(text) as Kept,
    () => undefined,
  )
  if (kept) {
    say('Ending the demonstration that was left running.')
    await endIfOurs(kept.forward, 'forward.js')
    await endIfOurs(kept.service, 'main.js')
  }
  await takeLabDown(LAB)
  await rm(directory(), { recursive: true, force: true })
}

/** A process id may belong to somebody else by now: only one that still runs our program is ended. */
async function endIfOurs(pid: number, program: string): Promise<void> {
  const ours = async () => (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).includes(program)
  if (!(await ours())) return
  process.kill(pid, 'SIGTERM')
  for (let tries = 0; tries < 200 && (await ours()); tries += 1) await sleep(100)
}

async function expect<T>(answer: Promise<{ status: number; body: unknown }>, status: number): Promise<T> {
  const { status: got, body } = await answer
  if (got !== status) throw new LabError(`the API answered ${got}: ${JSON.stringify(body)}`)
  return body as T
}

const text = async (service: LabService, path: string) =>
  String((await service.call('GET', path, { headers: { accept: 'text/plain' } })).body)
const indent = (block: string) =>
  block
    .trimEnd()
    .split('\n')
    .map(line => `   ${line}`)
    .join('\n')

try {
  await main()
} catch (error) {
  process.exitCode = 1
  process.stderr.write(
    `\nThe demonstration stopped: ${error instanceof LabError ? error.message : error instanceof Error ? error.stack : error}\n`,
  )
}
