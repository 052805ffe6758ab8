/** Where labs keep their files, and what they may be called. */
import { join } from 'node:path'
import { LabError } from './command.js'

/** Everything a lab writes is below this directory (and below /run/netns and the control groups). */
export const labDirectory = (): string => process.env.UNDERSTUDY_LAB_DIR ?? '/var/lib/understudy-lab'

/** The directory of one lab: gone after `down`. */
export const directoryOfLab = (lab: string): string => join(labDirectory(), 'labs', lab)

/** The files of one lab host. */
export interface HostFiles {
  directory: string
  /** What the host is: address, host key, options. */
  record: string
  /** The host's own writes: its disk. */
  upper: string
  work: string
  /** The mount point of its root; mounted only in the machine's own mount namespace. */
  root: string
  /** The mount point of the small disk, where it has one. */
  smallDisk: string
  console: string
}

/** The files of one host of a lab. */
export function filesOfHost(lab: string, host: string): HostFiles {
  const directory = join(directoryOfLab(lab), 'hosts', host)
  const at = (name: string) => join(directory, name)
  return {
    directory,
    record: at('host.json'),
    upper: at('upper'),
    work: at('work'),
    root: at('root'),
    smallDisk: at('small-disk'),
    console: at('console.log'),
  }
}

/** The network namespace with a lab's bridge: the service and its clients run in it. */
export const namespaceOfLab = (lab: string): string => `understudy-${lab}`

/** The network namespace of a host. Names hold no dots, so that no host's namespace is ever another lab's. */
export const namespaceOfHost = (lab: string, host: string): string => `understudy-${lab}.${host}`

/** The name of a network namespace as a file. */
export const namespaceFile = (namespace: string): string => `/run/netns/${namespace}`

/** Throws unless the name can be a host name, a directory and part of a namespace's name. */
export function checkName(kind: 'lab' | 'host', name: string): void {
  if (!/^[a-z][a-z0-9-]{0,23}$/.test(name)) {
    throw new LabError(
      `"${name}" cannot name a ${kind}: take small letters, digits and "-", 24 at most, a letter first`,
    )
  }
}
