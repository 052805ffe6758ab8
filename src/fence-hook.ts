/**
 * The fence hook: what the owner of this service has set up to cut a host off where SSH does not reach it. A program, or an
 * HTTP call; set by the service’s own configuration alone, for it runs with the service’s rights.
 */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import type { FenceHook } from './cluster/fence-hook.js'
import { redact } from './redact.js'

export interface FenceSettings {
  command: string | undefined
  url: string | undefined
  /** File with a bearer token for the URL. */
  tokenFile: string | undefined
  timeoutMs: number
}

const RECEIPT_LENGTH = 500
const cut = (text: string) => redact(text.replaceAll(/\s+/g, ' ').trim()).slice(0, RECEIPT_LENGTH)

/** Undefined where none is set. */
export function openFenceHook({ command, url, tokenFile, timeoutMs }: FenceSettings): FenceHook | undefined {
  if (command !== undefined) {
    return async ({ cluster, node, host }, signal) => {
      const until = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
      try {
        const { stdout } = await promisify(execFile)(command, [cluster, node, host], {
          signal: until,
          maxBuffer: 65_536,
        })
        return cut(stdout) || `${command} ended with exit status 0`
      } catch (error) {
        signal.throwIfAborted()
        if (until.aborted) throw new Error(`${command} did not end within ${timeoutMs} ms`)
        const { code, stderr = '' } = error as { code?: unknown; stderr?: string }
        throw new Error(`${command} ended with ${code}: ${cut(stderr) || 'it said nothing'}`)
      }
    }
  }
  if (url === undefined) return undefined
  return async (request, signal) => {
    const token = tokenFile === undefined ? undefined : (await readFile(tokenFile, 'utf8')).trim()
    const until = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
    const response = await fetch(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      body: JSON.stringify(request),
      redirect: 'error',
      signal: until,
    }).catch(error => {
      signal.throwIfAborted()
      throw new Error(until.aborted ? `it did not answer within ${timeoutMs} ms` : String(error.cause ?? error))
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`it answered ${response.status}: ${cut(text)}`)
    const answer = receiptIn(text)
    if (answer === undefined) throw new Error(`it answered ${response.status} without {"fenced": true, "receipt": "…"}`)
    return cut(answer)
  }
}

/** A page of a proxy is an answer, too: only the agreed one counts. */
function receiptIn(text: string): string | undefined {
  try {
    const { fenced, receipt } = JSON.parse(text) as { fenced?: unknown; receipt?: unknown }
    return fenced === true && typeof receipt === 'string' && receipt !== '' ? receipt : undefined
  } catch {
    return undefined
  }
}
