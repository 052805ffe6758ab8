import type { Host, RunOptions } from './host.js'

const USED = `for folder in "$@"; do
  [ ! -d "$folder" ] || [ -z "$(ls -A -- "$folder")" ] || printf '%s\\n' "$folder"
done`

/** Returns those of the folders that are there and hold something, a hidden file too. Looks as root. */
export async function foldersInUse(
  host: Host,
  folders: readonly string[],
  options: Pick<RunOptions, 'signal'> = {},
): Promise<string[]> {
  if (folders.length === 0) return []
  const { stdout } = await host.run(
    {
      argv: ['sh', '-c', USED, 'understudy-folders', ...folders],
      as: 'root',
      timeoutMs: 30_000,
      shownAs: `look whether ${folders.join(', ')} hold something`,
    },
    options,
  )
  return stdout.split('\n').filter(line => line !== '')
}
