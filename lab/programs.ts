/** Programs in the parent namespace of a lab: the service, and those who talk to it or to the hosts. */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { groupOf, makeGroup, programs } from './cgroup.js'
import { namespaceFile, namespaceOfLab } from './paths.js'

/** How to start a program that keeps running. */
export interface SpawnOptions {
  /** Default: the environment of this process. */
  env?: NodeJS.ProcessEnv
  cwd?: string
  /** Default: standard output and standard error as pipes, no standard input. */
  stdio?: StdioOptions
  /** Let it outlive this process. `down` ends it all the same. */
  detached?: boolean
}

/** The command line that runs `argv` in the parent namespace and in a group that `down` ends. The process identifier is the program's. */
export async function inParentNamespace(lab: string, argv: readonly string[]): Promise<string[]> {
  const groups = await makeGroup(groupOf(lab, programs))
  const join = groups.map(procs => `echo $$ > ${procs}`).join(' && ')
  const namespace = namespaceFile(namespaceOfLab(lab))
  return ['sh', '-c', `${join} && exec nsenter --net=${namespace} -- "$@"`, 'sh', ...argv]
}

/** Starts a program in the parent namespace. */
export async function spawnProgram(lab: string, argv: readonly string[], options: SpawnOptions): Promise<ChildProcess> {
  const [file = 'true', ...args] = await inParentNamespace(lab, argv)
  const { env = process.env, cwd, stdio = ['ignore', 'pipe', 'pipe'], detached = false } = options
  const child = spawn(file, args, { env, stdio, detached, ...(cwd === undefined ? {} : { cwd }) })
  if (detached) child.unref()
  return child
}
