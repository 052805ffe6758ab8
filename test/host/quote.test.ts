import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import t from 'tap'
import { quote } from '../../src/host/quote.js'

/** What /bin/sh makes of the lines: the arguments of each, as a program would get them. */
function throughShell(lines: readonly string[]): string[][] {
  // Each line prints the number of its arguments and then the arguments, all ended by NUL.
  const script = `show() { printf '%s\\0' "$#" "$@"; }\n${lines.map(line => `show ${line}`).join('\n')}\n`
  const words = execFileSync('/bin/sh', { input: script, maxBuffer: 1 << 28 })
    .toString('utf8')
    .split('\0')
  const commands: string[][] = []
  for (let at = 0; at < words.length - 1; ) {
    const count = Number(words[at])
    commands.push(words.slice(at + 1, at + 1 + count))
    at += 1 + count
  }
  return commands
}

const nasty = fc.string({ unit: fc.constantFrom(...` '"\\$\`!#&*()[]{}|;<>?~=:,@%^+-\n\r\t/aZ0é€😀`.split('')) })
const word = fc
  .oneof(fc.string({ unit: 'binary' }), nasty, fc.constantFrom('', '-n', '--', '~', '*', "it's", 'a=b', '$(id)', '!!'))
  // A lone surrogate has no UTF-8, and so no way into an argument.
  .map(text => Buffer.from(text.replaceAll('\0', '')).toString('utf8'))

t.test('thousands of argument lists come out of /bin/sh as they went in', async t => {
  const list = fc.array(word, { minLength: 1, maxLength: 6 })
  const property = fc.property(fc.array(list, { minLength: 200, maxLength: 200 }), lists => {
    t.strictSame(throughShell(lists.map(quote)), lists)
  })
  fc.assert(property, { numRuns: 25, endOnFailure: true })
})

t.test('the cases that broke other quoting', async t => {
  const lists = [
    [''],
    ['', '', ''],
    ["'"],
    [`'"'"'`],
    ['a\nb'],
    ['\n'],
    ["it's a $HOME \\ `id`!"],
    ['\\'],
    ["\\'"],
    ['~root'],
    ['{a,b}'],
    ['C:\\x'],
    ['-', '--', '-e'],
    ['$\n\\\n"'],
  ]
  t.strictSame(throughShell(lists.map(quote)), lists)
})

t.test('a first word with "=" is a program and no assignment', async t => {
  const output = execFileSync('/bin/sh', ['-c', `${quote(['a=b'])} 2>&1 || echo "$?"`]).toString()
  t.match(output, /not found\s+127/)
})

t.test('plain words stay readable', async t => {
  t.equal(quote(['systemctl', 'stop', 'postgresql@15-main']), 'systemctl stop postgresql@15-main')
  t.equal(quote(['x', '--property=Type=exec', '/a/b.conf']), 'x --property=Type=exec /a/b.conf')
})

t.test('NUL is refused, and the word that holds it is not repeated', async t => {
  t.throws(() => quote(['echo', 'pass\0word']), { message: 'argument 1 of the command holds a NUL character' })
})
