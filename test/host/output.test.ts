import fc from 'fast-check'
import t from 'tap'
import { createBoundedText, createCleaner, createLineSplitter, createTail } from '../../src/host/output.js'

function clean(chunks: readonly Buffer[], secrets: readonly string[] = []): string {
  let text = ''
  const cleaner = createCleaner(secrets, piece => {
    text += piece
  })
  for (const chunk of chunks) cleaner.write(chunk)
  cleaner.end()
  return text
}

function cutAt(text: string, places: readonly number[]): Buffer[] {
  const bytes = Buffer.from(text)
  const cuts = [0, ...places.map(place => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b)
  return cuts.slice(1).map((end, index) => bytes.subarray(cuts[index], end))
}

t.test('however it is cut into chunks, text comes out the same and secrets do not', async t => {
  const secret = 'Zq7!pässwörd'
  const line = fc.constantFrom('plain\n', 'ünï€😀\r\n', `x ${secret} y\n`, '50%\r', secret, `password=${secret}`, '\n')
  const property = fc.property(
    fc.array(line, { maxLength: 30 }),
    fc.array(fc.nat(), { maxLength: 20 }),
    (lines, places) => {
      const text = lines.join('')
      const once = clean([Buffer.from(text)], [secret])
      t.equal(clean(cutAt(text, places), [secret]), once)
      t.notOk(once.includes(secret))
    },
  )
  fc.assert(property, { numRuns: 500, endOnFailure: true })
})

t.test('a secret across the place where an endless line is cut', async t => {
  const secret = 'correct-horse-battery'
  for (const before of [65_530, 65_536 - 21, 131_070, 200_000]) {
    const text = `${'x'.repeat(before)}${secret}${'y'.repeat(100_000)}`
    const chunks = cutAt(
      text,
      Array.from({ length: 400 }, (_, index) => index * 1021),
    )
    const out = clean(chunks, [secret])
    t.notMatch(out, 'battery')
    t.notMatch(out, 'correct')
    t.equal(out, `${'x'.repeat(before)}[redacted]${'y'.repeat(100_000)}`)
  }
})

t.test('a private key that comes line by line, in one piece, endless, and cut off', async t => {
  const body = Array.from({ length: 40 }, (_, index) => `key-material-${index}`).join('\n')
  const key = `-----BEGIN OPENSSH PRIVATE KEY-----\n${body}\n-----END OPENSSH PRIVATE KEY-----`
  const text = `before\n${key}\nafter\n`
  for (const step of [1, 7, 64, 5000]) {
    const places = Array.from({ length: Math.ceil(text.length / step) }, (_, index) => index * step)
    t.equal(clean(cutAt(text, places)), 'before\n[private key]\nafter\n')
  }
  const second = `-----BEGIN RSA PRIVATE KEY-----\n${body}\n`
  t.notMatch(clean(cutAt(second + second + text, [5, 99, 700, 1234])), 'material')
  t.equal(clean([Buffer.from(`before\n-----BEGIN PRIVATE KEY-----\n${body}`)]), 'before\n[private key]')
  const endless = `-----BEGIN PRIVATE KEY-----\n${'material\n'.repeat(20_000)}-----END PRIVATE KEY-----\nafter\n`
  const out = clean(
    cutAt(
      endless,
      Array.from({ length: 100 }, (_, index) => index * 1999),
    ),
  )
  t.notMatch(out, 'material')
  t.match(out, /after\n$/)
})

t.test('each longer line of a secret of several lines is a secret', async t => {
  const secret = 'db1:5432:*:repmgr:first-password\ndb2:5432:*:repmgr:second-password\n'
  t.equal(clean([Buffer.from('got db2:5432:*:repmgr:second-password here\n')], [secret]), 'got [redacted] here\n')
})

t.test('the first 64 KiB and the last 192 KiB are kept, and no character is cut', async t => {
  for (const character of ['a', 'é', '€', '😀']) {
    const bounded = createBoundedText()
    const total = 10 * 1024 * 1024
    const size = Buffer.byteLength(character)
    // Chunks of an odd size, and one byte of offset, so that the cuts fall inside characters.
    bounded.push('.')
    for (let written = 0; written < total; written += 999 * size) bounded.push(character.repeat(999))
    const text = bounded.text()
    const mark = /\n\[… (\d+) bytes left out …\]\n/.exec(text)
    t.ok(bounded.truncated())
    t.notMatch(text, '\ufffd')
    const [head = '', tail = ''] = text.split(mark?.[0] ?? 'no mark')
    t.ok(Buffer.byteLength(head) <= 65_536 && Buffer.byteLength(head) > 65_536 - 4, `head ${Buffer.byteLength(head)}`)
    t.ok(Buffer.byteLength(tail) <= 196_608 && Buffer.byteLength(tail) > 196_608 - 4, `tail ${Buffer.byteLength(tail)}`)
    t.ok(head.startsWith(`.${character}`))
    t.ok(tail.endsWith(character))
  }
})

t.test('what fits is not touched', async t => {
  const bounded = createBoundedText()
  const text = `${'x'.repeat(65_535)}€${'y'.repeat(196_606)}`
  bounded.push(text.slice(0, 1000))
  bounded.push(text.slice(1000))
  t.equal(bounded.text(), text)
  t.equal(bounded.truncated(), false)
  bounded.push('z')
  t.equal(bounded.truncated(), true)
})

t.test('lines end at \\n, \\r\\n and \\r, wherever the pieces are cut', async t => {
  const text = 'one\ntwo\r\n\r\n10%\r20%\r100%\n\nlast'
  const expected = ['one', 'two', '', '10%', '20%', '100%', '', 'last']
  for (let at = 0; at <= text.length; at += 1) {
    const lines: string[] = []
    const splitter = createLineSplitter(line => lines.push(line))
    splitter.push(text.slice(0, at))
    splitter.push(text.slice(at))
    splitter.end()
    t.strictSame(lines, expected, `cut at ${at}`)
  }
})

t.test('an endless line is passed on in part, once', async t => {
  const lines: string[] = []
  const splitter = createLineSplitter(line => lines.push(line))
  for (let index = 0; index < 100; index += 1) splitter.push('x'.repeat(10_000))
  splitter.push('\nnext\n')
  t.equal(lines.length, 2)
  t.equal(lines[0], `${'x'.repeat(8192)} [… line cut]`)
  t.equal(lines[1], 'next')
})

t.test('the tail of an error', async t => {
  const tail = createTail(3)
  for (const line of ['a', 'b', 'c', 'd']) tail.push(line)
  t.equal(tail.text(), 'b\nc\nd')
})
