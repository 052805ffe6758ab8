/** postgresql.auto.conf of a server that is stopped: while it runs, ALTER SYSTEM is what writes it. Pure. */
import { settingString } from './settings.js'

/** The same file with these settings at its end, and nowhere else. Twice the same is the same as once. */
export function withSettings(content: string, settings: Readonly<Record<string, string>>): string {
  const others = content.split('\n').filter(line => {
    const name = /^\s*([A-Za-z_.]+)\s*(?:=|\s)/.exec(line)?.[1]?.toLowerCase()
    return name === undefined || !Object.hasOwn(settings, name)
  })
  while (others.at(-1) === '') others.pop()
  return `${[...others, ...Object.entries(settings).map(([name, value]) => `${name} = ${settingString(value)}`)].join('\n')}\n`
}
