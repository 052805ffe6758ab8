import { PassThrough } from 'node:stream'
import t from 'tap'
import { makeLogger } from '../src/logging.js'

const SECRET = 'hunter2-Xyz_9'

function logTo(level = 'trace') {
  const stream = new PassThrough()
  const text = () => String(stream.read() ?? '')
  const lines = () =>
    text()
      .split('\n')
      .filter(line => line !== '')
      .map(line => JSON.parse(line))
  return { logger: makeLogger(level, stream), text, lines }
}

t.test('a line is JSON, with its time and its process', async t => {
  const log = logTo()
  log.logger.info({ operation: 'op_1', nested: { n: 1 } }, 'taken up')
  t.match(log.lines(), [
    {
      level: 30,
      time: /^\d{4}-\d\d-\d\dT[\d:.]+Z$/,
      pid: process.pid,
      operation: 'op_1',
      nested: { n: 1 },
      msg: 'taken up',
    },
  ])
})

t.test('what is below the level is not written', async t => {
  const log = logTo('warn')
  log.logger.info('no')
  log.logger.warn('yes')
  t.match(log.lines(), [{ msg: 'yes' }])
  const silent = logTo('silent')
  silent.logger.fatal('no')
  t.equal(silent.text(), '')
})

t.test('secrets by their place', async t => {
  const log = logTo()
  log.logger.info(
    {
      ...{ password: SECRET, token: SECRET, masterKey: SECRET, identity: { privateKey: SECRET } },
      ...{ req: { headers: { authorization: `Basic ${SECRET}`, host: 'api' } } },
      ...{ a: { b: { password: SECRET, c: { d: { password: SECRET } } } }, list: [{ token: SECRET }] },
    },
    'x',
  )
  const text = log.text()
  t.notMatch(text, SECRET)
  t.match(JSON.parse(text), {
    ...{ password: '[redacted]', token: '[redacted]', identity: { privateKey: '[redacted]' } },
    ...{
      req: { headers: { authorization: '[redacted]', host: 'api' } },
      a: { b: { c: { d: { password: '[redacted]' } } } },
    },
  })
})

t.test('secrets in the middle of a text, an error, or what a host printed', async t => {
  const cause = new Error(`psql: postgres://repmgr:${SECRET}@db1/repmgr`)
  const log = logTo()
  log.logger.info(`password=${SECRET}`)
  log.logger.info({ line: `{"password":"${SECRET}"}`, command: `psql "password='${SECRET}'" -c 'x'` }, 'printed')
  log.logger.error({ err: new Error(`Bearer ${SECRET}`, { cause }) }, 'failed')
  log.logger.info({ [`password=${SECRET}`]: 1 }, 'as a name')
  log.logger.info({ cut: `password="${SECRET}`, next: 'stays', and: ['a', '"'] }, 'cut')
  const text = log.text()
  t.notMatch(text, SECRET)
  const lines = text
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line))
  t.equal(lines.length, 5)
  t.match(lines[0], { msg: 'password=[redacted]' })
  t.match(lines[1], { line: '{"password":[redacted]}', command: `psql "password=[redacted]" -c 'x'`, msg: 'printed' })
  t.match(lines[2].err, { type: 'Error', message: /^Bearer \[redacted\]/, stack: /logging\.test/ })
  t.match(lines[4], { cut: 'password=[redacted]', next: 'stays', and: ['a', '"'] })
})

t.test('children inherit it', async t => {
  const log = logTo()
  log.logger.child({ operation: 'op_1', password: SECRET }).info(`token und_01h_${SECRET}`)
  const text = log.text()
  t.notMatch(text, SECRET)
  t.match(JSON.parse(text), { operation: 'op_1', msg: 'token und_[redacted]' })
})
