/**
 * What a command prints, on its way out of this module: decoded, redacted, cut into lines, and bounded. Redaction comes
 * before every cut, so that no cut can leave half a secret that no pattern knows.
 */
import { StringDecoder } from 'node:string_decoder'
import { redact } from '../redact.js'

/** A line longer than this many characters is passed on in pieces. */
const PIECE = 64 * 1024
/** What `onLine` is given of one line at most, in characters. */
const LINE = 8 * 1024
const HEAD_BYTES = 64 * 1024
const TAIL_BYTES = 192 * 1024

export interface Cleaner {
  write(chunk: Buffer): void
  end(): void
}

/**
 * Passes what is written on to `emit`, redacted, in whole lines as far as they fit into memory. A private key that is
 * still being printed is held back until its last line has come.
 */
export function createCleaner(secrets: readonly string[], emit: (text: string) => void): Cleaner {
  const decoder = new StringDecoder('utf8')
  const known = knownValues(secrets)
  const holdBack = Math.max(256, ...known.map(value => value.length))
  let pending = ''
  let insideKey = false

  function take(text: string) {
    pending += text
    if (insideKey && !leaveKey()) return
    const end = Math.max(pending.lastIndexOf('\n'), pending.lastIndexOf('\r')) + 1
    // Asked of what would be emitted: the key's last line may be here already, but not its end.
    const cut = openKey(pending.slice(0, end)) ?? end
    if (cut > 0) {
      emit(redact(pending.slice(0, cut), known))
      pending = pending.slice(cut)
    }
    if (pending.length <= PIECE) return
    if (openKey(pending) === 0) {
      emit('[private key]\n')
      insideKey = true
      leaveKey()
      return
    }
    // One endless line. Its end stays: the next piece may complete a secret that begins there.
    const clean = redact(pending, known)
    const keep = wholeCharacters(clean, Math.max(0, clean.length - holdBack))
    emit(clean.slice(0, keep))
    pending = clean.slice(keep)
  }

  function leaveKey(): boolean {
    const end = /-----END [A-Z ]*PRIVATE KEY-----/.exec(pending)
    pending = end ? pending.slice(end.index + end[0].length) : pending.slice(-256)
    insideKey = end === null
    return !insideKey
  }

  return {
    write: chunk => take(decoder.write(chunk)),
    end() {
      take(decoder.end())
      if (insideKey) return
      const open = openKey(pending)
      const rest = open === undefined ? pending : `${pending.slice(0, open)}[private key]`
      if (rest !== '') emit(redact(rest, known))
      pending = ''
    },
  }
}

/** Where the first private key begins that does not end in this text. */
function openKey(text: string): number | undefined {
  const lastEnd = [...text.matchAll(/-----END [A-Z ]*PRIVATE KEY-----/g)].at(-1)
  const from = lastEnd ? lastEnd.index + lastEnd[0].length : 0
  const begin = /-----BEGIN [A-Z ]{0,40}(PRIVATE KEY-----|$)/.exec(text.slice(from))
  return begin ? from + begin.index : undefined
}

/** A secret of several lines is printed line by line, so each of its longer lines is a secret too. */
function knownValues(secrets: readonly string[]): string[] {
  const lines = secrets.flatMap(secret => secret.split(/\r?\n/)).filter(line => line.length >= 8)
  const whole = secrets.map(secret => secret.trim()).filter(secret => secret.length >= 4)
  return [...new Set([...whole, ...lines])].sort((a, b) => b.length - a.length)
}

function wholeCharacters(text: string, at: number): number {
  const unit = text.charCodeAt(at)
  return at > 0 && unit >= 0xdc00 && unit <= 0xdfff ? at - 1 : at
}

/** Calls `onLine` for each line, without its end; `\r` ends one too, since progress is printed so. */
export function createLineSplitter(onLine: (line: string) => void): { push(text: string): void; end(): void } {
  let line = ''
  let cut = false
  let afterReturn = false
  const append = (text: string) => {
    if (line.length + text.length > LINE) cut = true
    if (line.length < LINE) line += text.slice(0, LINE - line.length)
  }
  const finish = () => {
    onLine(cut ? `${line} [… line cut]` : line)
    line = ''
    cut = false
  }
  return {
    push(text) {
      for (const part of text.split(/(\r\n|\n|\r)/)) {
        if (part === '\n' && afterReturn && line === '') afterReturn = false
        else if (part === '\n' || part === '\r\n' || part === '\r') {
          finish()
          afterReturn = part === '\r'
        } else if (part !== '') {
          append(part)
          afterReturn = false
        }
      }
    },
    end() {
      if (line !== '') finish()
    },
  }
}

/** Keeps the first 64 KiB and the last 192 KiB of what is pushed. */
export function createBoundedText(): { push(text: string): void; text(): string; truncated(): boolean } {
  const head: Buffer[] = []
  let headBytes = 0
  const tail: Buffer[] = []
  let tailBytes = 0
  let droppedBytes = 0

  return {
    push(text) {
      let bytes: Buffer = Buffer.from(text)
      if (headBytes < HEAD_BYTES) {
        head.push(bytes.subarray(0, HEAD_BYTES - headBytes))
        const taken = Math.min(bytes.length, HEAD_BYTES - headBytes)
        headBytes += taken
        bytes = bytes.subarray(taken)
      }
      if (bytes.length === 0) return
      tail.push(bytes)
      tailBytes += bytes.length
      for (let first = tail[0]; first && tailBytes - first.length >= TAIL_BYTES; first = tail[0]) {
        tail.shift()
        tailBytes -= first.length
        droppedBytes += first.length
      }
    },
    truncated: () => droppedBytes + Math.max(0, tailBytes - TAIL_BYTES) > 0,
    text() {
      const end = Buffer.concat(tail)
      const over = Math.max(0, end.length - TAIL_BYTES)
      const missing = droppedBytes + over
      if (missing === 0) return Buffer.concat([...head, end]).toString()
      // A cut through a character leaves no replacement mark behind, on either side.
      const start = new StringDecoder('utf8').write(Buffer.concat(head))
      let from = over
      while (from < end.length && ((end[from] ?? 0) & 0xc0) === 0x80) from += 1
      return `${start}\n[… ${missing} bytes left out …]\n${end.subarray(from).toString()}`
    },
  }
}

/** Keeps the last `count` lines, for the error that a person reads. */
export function createTail(count = 20): { push(line: string): void; text(): string } {
  const lines: string[] = []
  return {
    push(line) {
      lines.push(line.length > 2000 ? `${line.slice(0, 2000)} [… line cut]` : line)
      if (lines.length > count) lines.shift()
    },
    text: () => lines.join('\n'),
  }
}
