/**
 * Files that are not ours alone: one block is, first in the file, because in pg_hba.conf and .pgpass the first line that
 * matches decides. Everything else stays as it was. Pure.
 */

const BEGIN = '# BEGIN understudy (managed: what is changed in here is overwritten)'
const END = '# END understudy'

export const asManagedBlock = (lines: readonly string[]): string => [BEGIN, ...lines, END, ''].join('\n')

/** The file with our block first and everything else as it was. */
export function withManagedBlock(existing: string, block: string): string {
  // Somebody may have added a line right behind it: that is no reason to write the file anew.
  if (existing.startsWith(block)) return existing
  const rest = withoutManagedBlock(existing).replace(/^\n+/, '')
  return rest === '' ? block : `${block}\n${rest}`
}

export function withoutManagedBlock(text: string): string {
  const lines = text.split('\n')
  const begin = lines.indexOf(BEGIN)
  const end = lines.indexOf(END, begin + 1)
  if (begin < 0 || end < 0) return text
  return [...lines.slice(0, begin), ...lines.slice(end + 1)].join('\n')
}
