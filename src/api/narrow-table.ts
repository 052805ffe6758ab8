/** Text for a terminal of a given width: long lines are folded, nothing is cut off. */
import { table } from './text.js'

/** Folded between words; a word that is longer than the line is folded within. Further lines begin with `indent`. */
export function fold(text: string, width: number, indent = ''): string {
  const [lead = ''] = /^ */.exec(text) ?? []
  const lines: string[] = []
  let line = lead
  let blank = true
  for (const word of text
    .trimStart()
    .split(' ')
    .flatMap(word => pieces(word, width - Math.max(indent.length, lead.length)))) {
    if (!blank && line.length + 1 + word.length > width) {
      lines.push(line)
      line = indent
      blank = true
    }
    line = blank ? `${line}${word}` : `${line} ${word}`
    blank = false
  }
  return [...lines, line].join('\n')
}

/** A table in at most `width` columns: the widest column gives way first, and its cells take several lines. */
export function narrowTable(head: string[], rows: (string | number | null | undefined)[][], width: number): string {
  const texts = rows.map(row => row.map(cell => (cell === null || cell === undefined ? '' : String(cell))))
  const widths = head.map((title, at) => Math.max(title.length, ...texts.map(row => row[at]?.length ?? 0)))
  const gaps = (head.length - 1) * 2
  while (widths.reduce((sum, one) => sum + one, gaps) > width) {
    const widest = widths.indexOf(Math.max(...widths))
    widths[widest] = (widths[widest] ?? 0) - 1
  }
  return table(
    head.map((title, at) => pieces(title, widths[at] ?? title.length).join('\n')),
    texts.map(row => row.map((cell, at) => pieces(cell, widths[at] ?? cell.length).join('\n'))),
  )
}

function pieces(text: string, width: number): string[] {
  const found: string[] = []
  for (let at = 0; at < text.length; at += width) found.push(text.slice(at, at + width))
  return found.length === 0 ? [''] : found
}
