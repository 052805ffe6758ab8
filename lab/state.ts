/** What is written down about labs, so that another process can go on with them. */
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { directoryOfLab, filesOfHost, labDirectory } from './paths.js'

/** A lab, as written down. */
export interface LabRecord {
  name: string
  publicKeys: string[]
  /** The golden tree that its hosts stand on, but for those with one of their own. */
  golden: string
}

/** A host, as written down. */
export interface HostRecord {
  name: string
  address: string
  hostKey: string
  sudo: boolean
  /** The golden tree that it stands on. Absent: the lab's. */
  golden?: string
  postgresDiskBytes?: number
}

const recordOfLab = (lab: string) => join(directoryOfLab(lab), 'lab.json')

/** Writes a lab down. */
export const writeLab = (record: LabRecord): Promise<void> => writeWhole(recordOfLab(record.name), record)

/** Reads a lab; undefined if there is none of that name. */
export const readLab = (lab: string): Promise<LabRecord | undefined> => readRecord<LabRecord>(recordOfLab(lab))

/** Writes a host down. */
export const writeHost = (lab: string, record: HostRecord): Promise<void> =>
  writeWhole(filesOfHost(lab, record.name).record, record)

/** Reads a host; undefined if the lab has none of that name. */
export const readHost = (lab: string, host: string): Promise<HostRecord | undefined> =>
  readRecord<HostRecord>(filesOfHost(lab, host).record)

/** The hosts of a lab, by address. */
export async function readHosts(lab: string): Promise<HostRecord[]> {
  const names = await namesIn(join(directoryOfLab(lab), 'hosts'))
  const records = await Promise.all(names.map(name => readHost(lab, name)))
  const octet = (record: HostRecord) => Number(record.address.split('.').at(-1))
  return records.filter(record => record !== undefined).sort((a, b) => octet(a) - octet(b))
}

/** The names of the labs that are written down. */
export const labNames = (): Promise<string[]> => namesIn(join(labDirectory(), 'labs'))

const namesIn = async (directory: string) => (existsSync(directory) ? (await readdir(directory)).sort() : [])

async function readRecord<T>(path: string): Promise<T | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined)
  return text === undefined ? undefined : (JSON.parse(text) as T)
}

/** A reader sees the old record or the new one, never half of one. */
async function writeWhole(path: string, record: object): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(`${path}.new`, `${JSON.stringify(record, null, 2)}\n`)
  await rename(`${path}.new`, path)
}
