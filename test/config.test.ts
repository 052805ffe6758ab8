import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { readConfig, SettingWrong, settingsSchema } from '../src/config.js'

const directory = mkdtempSync(join(tmpdir(), 'understudy-config-'))
t.teardown(() => rmSync(directory, { recursive: true }))
const file = (content: string) => {
  const path = join(directory, 'understudy.env')
  writeFileSync(path, content)
  return path
}
const problemsOf = (env: Record<string, string | undefined>): string => {
  try {
    readConfig(env)
  } catch (error) {
    if (error instanceof SettingWrong) return error.message
    throw error
  }
  return ''
}

t.test('without any setting', async t => {
  const defaults = {
    roles: { api: true, worker: true },
    listen: { host: '127.0.0.1', port: 7433 },
    stateDirectory: '/var/lib/understudy-service',
    redisUrl: undefined,
    masterKeyFile: undefined,
    ssh: { keyFile: undefined, agent: undefined },
    controllerAddresses: [],
    logLevel: 'info',
    workerConcurrency: 8,
    workerLeaseMs: 10_000,
    fence: { command: undefined, url: undefined, tokenFile: undefined, timeoutMs: 20_000 },
    bodyLimitBytes: 1_048_576,
    shutdownGraceMs: 20_000,
    retention: { operationDays: 90, eventDays: 400 },
  }
  t.strictSame(readConfig({}), defaults)
  t.strictSame(
    readConfig({ PATH: '/bin', HOME: '/root', REDIS: 'x', UNDERSTUDY: 'x', NODE_OPTIONS: '', UNSET: undefined }),
    defaults,
    'what is not ours is not our business',
  )
})

t.test('every setting', async t => {
  t.strictSame(
    readConfig({
      UNDERSTUDY_ROLES: 'worker',
      UNDERSTUDY_HOST: '::',
      UNDERSTUDY_PORT: '0',
      UNDERSTUDY_STATE_DIR: '/srv/understudy//',
      REDIS_URL: 'rediss://user:pw@redis.example:6380/1',
      UNDERSTUDY_MASTER_KEY_FILE: '/run/secrets/key',
      UNDERSTUDY_SSH_KEY_FILE: '/run/secrets/ssh',
      UNDERSTUDY_SSH_AGENT: '/run/agent',
      UNDERSTUDY_CONTROLLER_ADDRESSES: '10.0.0.7,10.1.0.0/28,api.example.net',
      UNDERSTUDY_LOG_LEVEL: 'debug',
      UNDERSTUDY_WORKER_CONCURRENCY: '3',
      UNDERSTUDY_WORKER_LEASE_MS: '2500',
      UNDERSTUDY_FENCE_COMMAND: '/usr/local/bin/power-off',
      UNDERSTUDY_FENCE_URL: 'https://power.example.net/off',
      UNDERSTUDY_FENCE_TOKEN_FILE: '/run/secrets/power',
      UNDERSTUDY_FENCE_TIMEOUT_MS: '5000',
      UNDERSTUDY_BODY_LIMIT_BYTES: '2048',
      UNDERSTUDY_SHUTDOWN_GRACE_MS: '0',
      UNDERSTUDY_OPERATION_RETENTION_DAYS: '7',
      UNDERSTUDY_EVENT_RETENTION_DAYS: '30',
    }),
    {
      roles: { api: false, worker: true },
      listen: { host: '::', port: 0 },
      stateDirectory: '/srv/understudy',
      redisUrl: 'rediss://user:pw@redis.example:6380/1',
      masterKeyFile: '/run/secrets/key',
      ssh: { keyFile: '/run/secrets/ssh', agent: '/run/agent' },
      controllerAddresses: ['10.0.0.7', '10.1.0.0/28', 'api.example.net'],
      logLevel: 'debug',
      workerConcurrency: 3,
      workerLeaseMs: 2500,
      fence: {
        command: '/usr/local/bin/power-off',
        url: 'https://power.example.net/off',
        tokenFile: '/run/secrets/power',
        timeoutMs: 5000,
      },
      bodyLimitBytes: 2048,
      shutdownGraceMs: 0,
      retention: { operationDays: 7, eventDays: 30 },
    },
  )
  t.match(problemsOf({ UNDERSTUDY_CONTROLLER_ADDRESSES: '10.0.0.1/8' }), /Write 10\.0\.0\.0\/8/)
  t.strictSame(readConfig({ UNDERSTUDY_SOCKET: '/run/understudy.sock', UNDERSTUDY_PORT: '80' }).listen, {
    path: '/run/understudy.sock',
  })
  for (const [roles, wanted] of [
    ['api', { api: true, worker: false }],
    ['worker,api', { api: true, worker: true }],
    ['api,api', { api: true, worker: false }],
  ] as const) {
    t.strictSame(readConfig({ UNDERSTUDY_ROLES: roles }).roles, wanted, roles)
  }
})

t.test('a wrong value names its setting, the value, and what it may be', async t => {
  const wrong: Record<string, string[]> = {
    UNDERSTUDY_OPERATION_RETENTION_DAYS: ['0', '-1', '1.5', 'forever'],
    UNDERSTUDY_EVENT_RETENTION_DAYS: ['0', '40000'],
    UNDERSTUDY_ROLES: ['', 'monitor', 'api,', 'api worker', 'API'],
    UNDERSTUDY_HOST: [''],
    UNDERSTUDY_PORT: ['', 'x', '-1', '65536', '80.5', '0x50', ' ', '7433 '],
    UNDERSTUDY_SOCKET: ['', 'run/x.sock', `/${'x'.repeat(107)}`],
    UNDERSTUDY_STATE_DIR: ['', 'state', './state'],
    REDIS_URL: [
      '',
      'localhost:6379',
      'http://redis',
      'unix:redis.sock',
      'redis+sentinel://host:26379',
      'redis+sentinel:///name',
    ],
    UNDERSTUDY_MASTER_KEY_FILE: ['', 'key'],
    UNDERSTUDY_SSH_KEY_FILE: ['id_ed25519'],
    UNDERSTUDY_SSH_AGENT: ['agent'],
    UNDERSTUDY_CONTROLLER_ADDRESSES: ['10.0.0.1/8', ',', '10.0.0.1,', '10.0.0.1 10.0.0.2', '10.1', '!'],
    UNDERSTUDY_LOG_LEVEL: ['', 'verbose', 'INFO'],
    UNDERSTUDY_WORKER_CONCURRENCY: ['0', '101', 'many', 'true'],
    UNDERSTUDY_WORKER_LEASE_MS: ['999', '600001', '10s'],
    UNDERSTUDY_FENCE_COMMAND: ['', 'power-off'],
    UNDERSTUDY_FENCE_URL: ['', 'ftp://power.example.net', 'power.example.net'],
    UNDERSTUDY_FENCE_TOKEN_FILE: ['', 'token'],
    UNDERSTUDY_FENCE_TIMEOUT_MS: ['99', '300001', '1s'],
    UNDERSTUDY_BODY_LIMIT_BYTES: ['1023', '1MB', '1e10'],
    UNDERSTUDY_SHUTDOWN_GRACE_MS: ['-1', '3600001'],
  }
  t.strictSame(Object.keys(wrong).sort(), Object.keys(settingsSchema.properties).sort(), 'all of them are tried')
  for (const [name, values] of Object.entries(wrong)) {
    const { description } = (settingsSchema.properties as Record<string, { description?: string }>)[name] ?? {}
    for (const value of values) {
      const problem = problemsOf({ [name]: value })
      t.ok(problem.startsWith(`${name}: ${JSON.stringify(value)} is not possible`), `${name}=${value}: ${problem}`)
      t.ok(description !== undefined && problem.endsWith(description), 'and says what it is')
    }
  }
})

t.test('a password in a value that is refused is not repeated', async t => {
  const problem = problemsOf({ REDIS_URL: 'http://user:hunter2@redis' })
  t.match(problem, /^REDIS_URL: "http:\/\/user:\[redacted\]@redis" is not possible/)
  t.notMatch(problem, /hunter2/)
})

t.test('all that is wrong is told at once', async t => {
  t.match(
    problemsOf({ UNDERSTUDY_PORT: 'x', UNDERSTUDY_LOG_LEVEL: 'loud', UNDERSTUDY_HOST: '0.0.0.0' }),
    /^UNDERSTUDY_PORT: .*\nUNDERSTUDY_LOG_LEVEL: .*$/,
  )
})

t.test('a setting that nobody knows is refused, with the one that was meant', async t => {
  for (const [name, meant] of [
    ['UNDERSTUDY_STATE_DIRECTORY', undefined],
    ['UNDERSTUDY_STATEDIR', 'UNDERSTUDY_STATE_DIR'],
    ['UNDERSTUDY_WORKER_CONCURENCY', 'UNDERSTUDY_WORKER_CONCURRENCY'],
    ['UNDERSTUDY_WOKER_CONCURRENCY', 'UNDERSTUDY_WORKER_CONCURRENCY'],
    ['UNDERSTUDY_PROT', 'UNDERSTUDY_PORT'],
    ['UNDERSTUDY_REDIS_URL', 'REDIS_URL'],
    ['UNDERSTUDY_LOGLEVEL', 'UNDERSTUDY_LOG_LEVEL'],
    ['UNDERSTUDY_XYZZY', undefined],
    ['UNDERSTUDY_constructor', undefined],
  ] as const) {
    const problem = problemsOf({ [name]: '1' })
    t.ok(problem.startsWith(`${name}: no such setting (in the environment).`), problem)
    if (meant) t.ok(problem.endsWith(`Was ${meant} meant?`), problem)
    else t.match(problem, /See docs\/settings\.md/)
  }
})

t.test('what the lab is told is not our business', async t => {
  t.equal(problemsOf({ UNDERSTUDY_LAB_DIR: '/var/tmp/lab', UNDERSTUDY_LAB: '1' }), '')
})

t.test('a file under the environment', async t => {
  const path = file(
    `# where it listens\nUNDERSTUDY_PORT=8000\nUNDERSTUDY_HOST="0.0.0.0"\n\nREDIS_URL=unix:/run/redis.sock # ours\nUNDERSTUDY_LOG_LEVEL='warn'\n`,
  )
  t.match(readConfig({ UNDERSTUDY_CONFIG: path }), {
    listen: { host: '0.0.0.0', port: 8000 },
    redisUrl: 'unix:/run/redis.sock',
    logLevel: 'warn',
  })
  t.match(readConfig({ UNDERSTUDY_CONFIG: path, UNDERSTUDY_PORT: '9000' }), {
    listen: { host: '0.0.0.0', port: 9000 },
  })
  t.match(
    readConfig({ UNDERSTUDY_CONFIG: path, UNDERSTUDY_PORT: undefined }).listen,
    { port: 8000 },
    'what is not set does not win',
  )
})

t.test('a file with something wrong in it', async t => {
  for (const [content, message] of [
    ['UNDERSTUDY_PORT=x\n', /^UNDERSTUDY_PORT: "x" is not possible/],
    ['PATH=/bin\n', /^PATH: no such setting \(in .*understudy\.env\)/],
    ['constructor=1\n', /^constructor: no such setting/],
    ['UNDERSTUDY_CONFIG=/etc/other\n', /^UNDERSTUDY_CONFIG: no such setting/],
  ] as const) {
    t.match(problemsOf({ UNDERSTUDY_CONFIG: file(content) }), message)
  }
  t.match(problemsOf({ UNDERSTUDY_CONFIG: join(directory, 'missing') }), /^UNDERSTUDY_CONFIG: cannot read .*ENOENT/)
  t.match(problemsOf({ UNDERSTUDY_CONFIG: directory }), /^UNDERSTUDY_CONFIG: cannot read .*EISDIR/)
})
