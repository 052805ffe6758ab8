/** Asks the PostgreSQL that is installed on a host whether it would take settings. No server runs for it, nothing is written. */
import type { SettingValue } from '../cluster/setting-overrides.js'
import { librariesIn } from '../cluster/setting-overrides.js'
import type { Host, RunOptions } from '../host/host.js'
import type { Layout } from './layout.js'

export interface SettingObjection {
  name: string
  /** In PostgreSQL’s own words, with its hint. */
  detail: string
}

/**
 * `postgres -C name -c name=value` goes through the same checks as a start does: name, unit, range, enumeration, and what a
 * setting’s own check knows (a time zone, a list of standbys). It needs a configuration file and no data, so an empty file
 * will do. `--describe-config` lists what may stand in a configuration file: what is missing there is internal, of a
 * session, or for developers only. A name with a dot is not checked: whoever defines it is not loaded here.
 */
const CHECK = `
bin=$1/postgres libraries=$2
shift 2
[ -x "$bin" ] || { echo absent; exit 0; }
offered=$("$bin" --describe-config | cut -f 1 | tr '[:upper:]' '[:lower:]')
while [ $# -gt 0 ]; do
  name=$1 value=$2
  shift 2
  if [ "$name" = '*library' ]; then
    [ -e "$libraries/$value.so" ] || echo "objection=$value there is no library $value.so in $libraries"
    continue
  fi
  if ! out=$("$bin" -C "$name" -D / -c config_file=/dev/null -c "$name=$value" 2>&1); then
    echo "objection=$name $(printf '%s' "$out" | tr '\\n' ' ')"
  elif ! printf '%s\\n' "$offered" | grep -qxF -- "$name"; then
    case $name in *.*) ;; *) echo "unoffered=$name" ;; esac
  fi
done`

const LIBRARY_LISTS = ['shared_preload_libraries', 'session_preload_libraries', 'local_preload_libraries']

/** What it objects to; undefined where PostgreSQL is not installed yet. */
export async function checkSettings(
  host: Host,
  layout: Layout,
  settings: Readonly<Record<string, SettingValue>>,
  options: RunOptions = {},
): Promise<SettingObjection[] | undefined> {
  const entries = Object.entries(settings)
  const libraries = entries
    .filter(([name]) => LIBRARY_LISTS.includes(name))
    .flatMap(([, value]) => librariesIn(value))
    // With a path it may be anywhere that the server knows.
    .filter(library => !library.includes('/'))
  const { stdout } = await host.run(
    {
      argv: [
        ...['sh', '-c', CHECK, 'understudy-settings', layout.binDirectory, layout.binDirectory.replace(/bin$/, 'lib')],
        ...entries.flatMap(([name, value]) => [name, text(value)]),
        ...libraries.flatMap(library => ['*library', library]),
      ],
      // There may be no user postgres yet; -C is the one thing that PostgreSQL does for root.
      as: 'root',
      timeoutMs: 60_000,
      shownAs: `ask ${layout.binDirectory}/postgres -C whether it takes ${entries.map(([name]) => name).join(', ')}`,
    },
    options,
  )
  if (/^absent$/m.test(stdout)) return undefined
  return parseObjections(stdout)
}

/** The lines of the script: `objection=<name> <what postgres printed>`, `unoffered=<name>`. */
export function parseObjections(stdout: string): SettingObjection[] {
  return stdout.split('\n').flatMap(line => {
    const [, kind, name = '', said = ''] = /^(objection|unoffered)=(\S+) ?(.*)$/.exec(line) ?? []
    if (kind === undefined) return []
    if (kind === 'unoffered') {
      return [
        { name, detail: `${name} is internal, of a session, or for developers: it has no place in a configuration.` },
      ]
    }
    return [{ name, detail: sentencesOf(said) }]
  })
}

/** `<time> <zone> [<pid>] FATAL:  …` and the same with HINT or DETAIL. */
function sentencesOf(said: string): string {
  const parts = said.split(/\S+ \S+ \S+ \[\d+\] ([A-Z]+): +/)
  const found: string[] = []
  for (let index = 1; index + 1 < parts.length; index += 2) {
    if (parts[index] === 'LOG') continue
    const sentence = (parts[index + 1] ?? '').trim()
    if (sentence !== '') found.push(/[.!?]$/.test(sentence) ? sentence : `${sentence}.`)
  }
  return found.length > 0 ? found.join(' ') : said.trim()
}

const text = (value: SettingValue) => (value === true ? 'on' : value === false ? 'off' : String(value))
