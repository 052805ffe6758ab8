/** Lab hosts from the command line. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { command, LabError } from './command.js'
import { readPublicKeys } from './identity.js'
import { bringUpLab, type Lab, type LabHost, listLabs, openLab, type Suite, suites, takeLabDown } from './lab.js'
import { enter, machineRuns } from './machine.js'
import { ensurePackages } from './packages.js'
import { labDirectory } from './paths.js'
import { inParentNamespace } from './programs.js'

const usage = `Throw-away lab hosts: Debian machines without PostgreSQL, on this machine. Needs Linux, root and apt-get.

  node dist/lab/cli.js up NAME HOST... [--suite RELEASE] [--key FILE]...
                                                         make a lab and boot its hosts (the first time: a minute more)
  node dist/lab/cli.js add NAME HOST [--no-sudo] [--postgres-disk MIB] [--suite RELEASE]
  node dist/lab/cli.js list                              the labs, their hosts, addresses and host keys
  node dist/lab/cli.js exec NAME HOST -- CMD...          run a command inside a host, as root
  node dist/lab/cli.js run NAME -- CMD...                run a command here, in the lab's network: ssh, curl, the service
  node dist/lab/cli.js power-off|power-on NAME HOST      a power cut; the disk stays
  node dist/lab/cli.js link-down|link-up NAME HOST       pull the cable; put it back
  node dist/lab/cli.js down NAME                         end and remove everything of a lab

  --suite RELEASE   another Debian: bullseye (11), bookworm (12, the default) or trixie (13)
  --key FILE   a public key that may log in as "admin"; more than one may be given.
               Without it, a key made for the purpose: its file is printed.
`

const verbs = ['up', 'add', 'list', 'exec', 'run', 'power-off', 'power-on', 'link-down', 'link-up', 'down']

/** Thrown when the command line makes no sense; the usage is printed with it. */
class UsageError extends LabError {}

async function main(argv: string[]): Promise<number> {
  const dashes = argv.indexOf('--')
  const program = dashes === -1 ? [] : argv.slice(dashes + 1)
  const { values, positionals } = parseArgs({
    args: dashes === -1 ? argv : argv.slice(0, dashes),
    allowPositionals: true,
    options: {
      key: { type: 'string', multiple: true },
      'no-sudo': { type: 'boolean', default: false },
      'postgres-disk': { type: 'string' },
      suite: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  const [verb, name, ...hosts] = positionals
  if (values.help || verb === undefined) {
    process.stdout.write(usage)
    return 0
  }
  if (!verbs.includes(verb)) throw new UsageError(`there is no "${verb}"`)
  if (verb === 'list') return list()
  if (name === undefined) throw new UsageError(`${verb}: which lab?`)
  if (verb === 'up') return up(name, hosts, values.key, values.suite)
  if (verb === 'down') return takeLabDown(name).then(() => 0)

  const lab = await openLab(name)
  if (!lab) throw new LabError(`there is no lab ${name} that is up; "list" shows those there are`)
  if (verb === 'run') return foreground(await inParentNamespace(name, needProgram(program)))

  const [host] = hosts
  if (host === undefined) throw new UsageError(`${verb}: which host?`)
  switch (verb) {
    case 'add':
      print(lab, [
        await lab.addHost(host, {
          sudo: !values['no-sudo'],
          ...(values['postgres-disk'] ? { postgresDiskBytes: mebibytes(values['postgres-disk']) } : {}),
          ...(values.suite === undefined ? {} : { suite: suiteNamed(values.suite) }),
        }),
      ])
      return 0
    case 'exec':
      if (!(await lab.hosts()).some(it => it.name === host)) throw new LabError(`lab ${name} has no host ${host}`)
      return foreground(await enter(name, host, needProgram(program)))
    case 'power-off':
      return lab.powerOff(host).then(() => 0)
    case 'power-on':
      return lab.powerOn(host).then(() => 0)
    case 'link-down':
      return lab.linkDown(host).then(() => 0)
    case 'link-up':
      return lab.linkUp(host).then(() => 0)
    default:
      return 1
  }
}

async function up(
  name: string,
  hosts: string[],
  keyFiles: string[] | undefined,
  suite: string | undefined,
): Promise<number> {
  // To make it again would end what is running there.
  if (await openLab(name)) throw new LabError(`lab ${name} is up already: "down ${name}" first, or "add ${name} HOST"`)
  const files = keyFiles ?? [`${await ownKey()}.pub`]
  const publicKeys: string[] = []
  for (const file of files) {
    const keys = await readPublicKeys(file)
    if (keys.length === 0) throw new LabError(`${file} holds no public key`)
    publicKeys.push(...keys)
  }
  const lab = await bringUpLab({
    name,
    hosts,
    publicKeys,
    ...(suite === undefined ? {} : { suite: suiteNamed(suite) }),
    log: line => process.stderr.write(`${line}\n`),
  })
  print(lab, await lab.hosts())
  if (!keyFiles) process.stdout.write(`log in with the key ${await ownKey()}\n`)
  return 0
}

/** The key for those who bring none. Kept between labs. */
async function ownKey(): Promise<string> {
  const path = join(labDirectory(), 'key')
  if (!existsSync(path)) {
    await mkdir(dirname(path), { recursive: true })
    await ensurePackages(line => process.stderr.write(`${line}\n`))
    await command(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'understudy-lab', '-f', path])
  }
  return path
}

async function list(): Promise<number> {
  for (const name of await listLabs()) {
    const lab = await openLab(name)
    if (!lab) {
      process.stdout.write(`${name}  not up, left over: "down ${name}" removes it\n`)
      continue
    }
    const hosts = await lab.hosts()
    const running = await Promise.all(hosts.map(host => machineRuns(name, host.name)))
    print(lab, hosts, running)
  }
  return 0
}

function print(lab: Lab, hosts: LabHost[], running?: boolean[]): void {
  process.stdout.write(`lab ${lab.name}  namespace ${lab.namespace}  gateway ${lab.gateway}\n`)
  for (const [index, host] of hosts.entries()) {
    const off = running?.[index] === false ? '  off' : ''
    process.stdout.write(
      `  ${host.name.padEnd(12)} ${host.loginUser}@${host.address}:${host.sshPort}  ${host.hostKey}${off}\n`,
    )
  }
}

function needProgram(program: string[]): string[] {
  if (program.length === 0) throw new UsageError('which command? It goes after "--"')
  return program
}

function mebibytes(text: string): number {
  if (!/^[1-9][0-9]*$/.test(text)) throw new UsageError(`--postgres-disk takes a number of MiB, not "${text}"`)
  return Number(text) * 1024 * 1024
}

function suiteNamed(text: string): Suite {
  const known = Object.keys(suites)
  if (!known.includes(text)) throw new UsageError(`--suite takes one of ${known.join(', ')}, not "${text}"`)
  return text as Suite
}

/** Runs a command on this terminal; its exit code becomes ours. */
function foreground([file = 'true', ...args]: string[]): Promise<number> {
  const child = spawn(file, args, { stdio: 'inherit' })
  // The terminal sends the interrupt to both; the command decides what it means.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', code => resolve(code ?? 1))
  })
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  const usageError = error instanceof UsageError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS')
  process.stderr.write(`lab: ${error instanceof Error ? error.message : String(error)}\n`)
  if (usageError) process.stderr.write(`\n${usage}`)
  process.exitCode = 1
}
