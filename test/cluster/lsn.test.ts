import fc from 'fast-check'
import t from 'tap'
import { type Lsn, lagBytes, laterLsn, lsnBytes, parseLsn, shortLsn } from '../../src/cluster/lsn.js'

/** Written as PostgreSQL does: `%X/%X`. */
const format = (bytes: bigint) =>
  parseLsn(`${(bytes >> 32n).toString(16).toUpperCase()}/${(bytes & 0xffffffffn).toString(16).toUpperCase()}`)

const position = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const runs = { numRuns: 5000 }

t.test('positions are 64 bits wide, whatever the letters and zeros', async t => {
  fc.assert(
    fc.property(position, bytes => lsnBytes(format(bytes)) === bytes),
    runs,
  )
  t.equal(lsnBytes(parseLsn('16/B374D848')), 0x16_b374_d848n)
  t.equal(lsnBytes(parseLsn('16/b374d848')), 0x16_b374_d848n)
  t.equal(lsnBytes(parseLsn('00000016/0000000A')), 0x16_0000_000an)
  t.equal(lsnBytes(parseLsn('0/0')), 0n)
  t.equal(lsnBytes(parseLsn('FFFFFFFF/FFFFFFFF')), 2n ** 64n - 1n)
})

t.test('the later one is the greater number, and not the greater text', async t => {
  fc.assert(
    fc.property(position, position, (a, b) => {
      const later = laterLsn(format(a), format(b))
      return later !== undefined && lsnBytes(later) === (a > b ? a : b)
    }),
    runs,
  )
  t.equal(laterLsn(parseLsn('9/0'), parseLsn('10/0')), '10/0')
  t.equal(laterLsn(parseLsn('1/9'), parseLsn('1/A0')), '1/A0')
  t.equal(laterLsn(undefined, parseLsn('1/0')), '1/0')
  t.equal(laterLsn(parseLsn('1/0'), undefined), '1/0')
  t.equal(laterLsn(undefined, undefined), undefined)
})

t.test('a distance is exact, and the same both ways but for its sign', async () => {
  const nearby = fc
    .tuple(position, fc.integer({ min: 0, max: 2 ** 50 }))
    .filter(([at, by]) => at + BigInt(by) < 2n ** 64n)
  fc.assert(
    fc.property(nearby, ([at, by]) => {
      const [behind, ahead] = [format(at), format(at + BigInt(by))]
      return lagBytes(ahead, behind) === by && lagBytes(ahead, behind) + lagBytes(behind, ahead) === 0
    }),
    runs,
  )
  fc.assert(
    fc.property(position, position, (a, b) => lagBytes(format(a), format(b)) + lagBytes(format(b), format(a)) === 0),
    runs,
  )
})

t.test('anything else is refused', async t => {
  for (const text of [
    ...['', '/', '0', '0/', '/0', '0/0/0', '0/G', 'x/0', '-1/0', '0/-1', '0x1/0', ' 0/0', '0/0 ', '0/0\n', '0 /0'],
    ...['123456789/0', '0/123456789', '1.5/0', '１/0', '0\\0'],
  ]) {
    t.throws(() => parseLsn(text), RangeError, JSON.stringify(text))
    t.throws(() => lsnBytes(text as Lsn), RangeError, `${JSON.stringify(text)} that came in by a cast`)
  }
  fc.assert(
    fc.property(fc.string(), text => {
      if (/^[0-9a-f]{1,8}\/[0-9a-f]{1,8}$/i.test(text)) return true
      try {
        parseLsn(text)
        return false
      } catch (error) {
        return error instanceof RangeError
      }
    }),
    runs,
  )
})

t.test('as the server prints it, whoever has padded it', async t => {
  fc.assert(
    fc.property(position, bytes => {
      const plain = format(bytes)
      const padded = parseLsn(
        plain
          .split('/')
          .map(half => half.padStart(8, '0'))
          .join('/'),
      )
      return shortLsn(padded) === plain && shortLsn(plain) === plain
    }),
    runs,
  )
  t.equal(shortLsn(parseLsn('0/040209D0')), '0/40209D0')
})
