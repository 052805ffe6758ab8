/** Structured logs: JSON lines on standard output, without secrets. */
import { type DestinationStream, type Logger, pino } from 'pino'
import { redactJson } from './redact.js'

export type { Logger } from 'pino'

const REDACTED_PATHS = ['authorization', 'password', 'privateKey', 'token', 'masterKey'].flatMap(name => [
  name,
  `*.${name}`,
  `*.*.${name}`,
])

/** By path, and then string by string: what a host printed can stand anywhere in a message. */
export function makeLogger(level: string, destination?: DestinationStream): Logger {
  return pino(
    {
      level,
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: [...REDACTED_PATHS, 'req.headers.authorization'], censor: '[redacted]' },
      hooks: { streamWrite: line => redactJson(line) },
    },
    destination ?? pino.destination({ sync: true }),
  )
}
