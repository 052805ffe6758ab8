/**
 * Putting a pg_hba.conf into place so that a mistake in it is never in force, nor left for the next start: the server is
 * asked while the old file is still kept beside it, and the old one comes back when the server says no, when the script
 * is ended half-way, or when later nobody comes in by the new one.
 *
 * Beside the file are then, with its owner and mode:
 *   pg_hba.conf.understudy-unproven           the last one that is known to work, until the new one has been proven
 *   pg_hba.conf.understudy-<time of replacement>   those of the last five changes
 */
import { CommandFailed } from '../host/errors.js'
import type { RemoteFile } from '../host/files.js'
import type { Host, RunOptions } from '../host/host.js'

const KEPT = 5
const TIMEOUT_MS = 60_000
const REFUSED = 65

export const unprovenHba = (path: string) => `${path}.understudy-unproven`

/** A line of the view, with the number of the line in the file. */
export interface HbaError {
  /** The file, as lines of an included one count there. */
  file: string
  line: number
  error: string
}

/** pg_hba_file_rules reads the file as it is on disk now, and not what is in force. `file_name` is there since 16. */
const ASK = `SELECT coalesce(to_jsonb(r) ->> 'file_name', current_setting('hba_file')) || E'\\t' || line_number || E'\\t' || error
  FROM pg_hba_file_rules r WHERE error IS NOT NULL ORDER BY line_number`

const REPLACE = `path=$1 bytes=$2 owner=$3 mode=$4 ask=$5 psql=$6 port=$7
unproven="$path.understudy-unproven"
umask 077
new=$(mktemp -- "$(dirname -- "$path")/.understudy.XXXXXXXX") || exit 1
replaced=no
put_back() {
  if [ "$replaced" = yes ] && [ -e "$unproven" ]; then mv -fT -- "$unproven" "$path" && sync -- "$path"; fi
  replaced=no
}
trap 'put_back; rm -f -- "$new" "$unproven.part"' EXIT
# PIPE too: with the connection gone, so is whoever reads what is said below.
trap 'exit 143' TERM INT HUP PIPE
cat >"$new" || exit 1
if [ "$(stat -c %s -- "$new")" -ne "$bytes" ]; then
  echo "understudy: the content of $path came only in part, and the file was left as it was" >&2
  exit 1
fi
chown -- "$owner" "$new" && chmod -- "$mode" "$new" && sync -- "$new" || exit 1
# One that is still unproven has not become the last good one by being replaced in its turn.
if [ -e "$path" ] && [ ! -e "$unproven" ] && ! cmp -s -- "$new" "$path"; then
  cp -p -- "$path" "$unproven.part" && sync -- "$unproven.part" && mv -fT -- "$unproven.part" "$unproven" || exit 1
fi
replaced=yes
mv -fT -- "$new" "$path" && sync -- "$(dirname -- "$path")" || exit 1
if [ -n "$ask" ]; then
  errors=$(timeout 20 sudo -n -u postgres "$psql" -XAtqw -p "$port" -d postgres -c "$ask") || exit 1
  if [ -n "$errors" ]; then
    printf '%s\\n' "$errors"
    exit ${REFUSED}
  fi
fi
replaced=no`

export interface AskedServer {
  psql: string
  port: number
}

/**
 * Replaces the file. A running server is asked what it thinks of it: where it finds an error, the old file is back, and
 * the errors are returned.
 */
export async function replaceHba(
  host: Host,
  file: RemoteFile,
  running: AskedServer | undefined,
  options: Pick<RunOptions, 'signal'> = {},
): Promise<HbaError[]> {
  const bytes = String(Buffer.byteLength(file.content))
  const { psql, port } = running ?? { psql: '', port: 0 }
  const args = [file.path, bytes, file.owner, file.mode, running ? ASK : '', psql, String(port)]
  const result = await host.run(
    {
      argv: ['sh', '-c', REPLACE, 'understudy-replace-hba', ...args],
      as: 'root',
      stdin: file.content,
      timeoutMs: TIMEOUT_MS,
      shownAs: `write ${file.path} (${file.owner} ${file.mode}, ${bytes} bytes)`,
    },
    { ...options, acceptExit: [0, REFUSED] },
  )
  return result.exitCode === 0 ? [] : errorsIn(result.stdout)
}

function errorsIn(printed: string): HbaError[] {
  return printed
    .split('\n')
    .filter(text => text !== '')
    .map(text => {
      const [file = '', line = '', ...error] = text.split('\t')
      return { file, line: Number(line), error: error.join(' ') }
    })
}

const SETTLE = `path=$1
unproven="$path.understudy-unproven"
[ -e "$unproven" ] || exit 0
mv -fT -- "$unproven" "$path.understudy-$(date -u +%Y%m%dT%H%M%SZ)" || exit 1
ls -1d -- "$path".understudy-2* | sort -r | tail -n +${KEPT + 1} | while IFS= read -r old; do rm -f -- "$old"; done`

/** The new file is proven: the old one is kept under the time of now, the five last of them. */
export const settleHba = (host: Host, path: string, options: Pick<RunOptions, 'signal'> = {}) =>
  aboutKept(host, SETTLE, path, 'keep the old pg_hba.conf', options)

const PUT_BACK = `path=$1
unproven="$path.understudy-unproven"
if [ ! -e "$unproven" ]; then echo "understudy: no earlier $path is kept" >&2; exit 1; fi
mv -fT -- "$unproven" "$path" && sync -- "$(dirname -- "$path")"`

/** False where there is nothing to put back: then the file was not changed by us. The server has to be reloaded after it. */
export async function putHbaBack(host: Host, path: string, options: Pick<RunOptions, 'signal'> = {}): Promise<boolean> {
  try {
    await aboutKept(host, PUT_BACK, path, 'put the old pg_hba.conf back', options)
    return true
  } catch (error) {
    if (error instanceof CommandFailed && /no earlier/.test(error.output ?? '')) return false
    throw error
  }
}

async function aboutKept(
  host: Host,
  script: string,
  path: string,
  shownAs: string,
  options: Pick<RunOptions, 'signal'>,
): Promise<void> {
  const argv = ['sh', '-c', script, 'understudy-hba', path]
  await host.run({ argv, as: 'root', timeoutMs: TIMEOUT_MS, shownAs }, options)
}
