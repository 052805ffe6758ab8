/** The files by which apt knows a repository. Pure. */
import type { RemoteFile } from './files.js'
import type { PackageRepository } from './package-manager.js'

export const KEY_FILE = '/etc/apt/keyrings/understudy.asc'
export const SOURCES_FILE = '/etc/apt/sources.list.d/understudy.sources'
export const PREFERENCES_FILE = '/etc/apt/preferences.d/understudy'

/** deb822-style, with the one key that is believed. Never `Trusted: yes`. */
export function sourcesText({ uri, suite, components }: PackageRepository, keyFile: string): string {
  const flat = suite.endsWith('/')
  return [
    'Types: deb',
    `URIs: ${uri}`,
    `Suites: ${suite}`,
    ...(flat ? [] : [`Components: ${components.join(' ')}`]),
    `Signed-By: ${keyFile}`,
    '',
  ].join('\n')
}

/**
 * PostgreSQL and repmgr come from this source, also where another has a newer version: above 500, which every other source
 * has. Not above 1000, which would downgrade.
 *
 * @see apt_preferences(5)
 */
function preferencesText({ knownBy }: PackageRepository): string {
  const pin = 'origin' in knownBy ? `release o=${knownBy.origin}` : `origin "${knownBy.host}"`
  return `Package: postgresql* repmgr* libpq*\nPin: ${pin}\nPin-Priority: 990\n`
}

/** The source last: before it counts, its key and its place among the others are there. */
export function repositoryFiles(repository: PackageRepository, about: string): RemoteFile[] {
  const head = `# Managed by Understudy: ${about}. What is changed here is overwritten.\n`
  const ours = { owner: 'root:root', mode: '0644' }
  return [
    { ...ours, path: KEY_FILE, content: `${repository.signingKey.replaceAll('\r\n', '\n').trim()}\n` },
    { ...ours, path: PREFERENCES_FILE, content: head + preferencesText(repository) },
    { ...ours, path: SOURCES_FILE, content: head + sourcesText(repository, KEY_FILE) },
  ]
}
