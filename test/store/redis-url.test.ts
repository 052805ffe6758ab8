import t from 'tap'
import { connectionOf, REDIS_URL_PATTERN } from '../../src/store/redis-url.js'

const sentinel = (host: string, port = 26_379) => ({ host, port })
const always = { role: 'master', failoverDetector: true }

t.test('where Redis is', async t => {
  const cases: [url: string, expected: ReturnType<typeof connectionOf>][] = [
    ['unix:/run/redis.sock', { target: '/run/redis.sock', options: {} }],
    ['redis://user:pw@redis.example:6380/1', { target: 'redis://user:pw@redis.example:6380/1', options: {} }],
    ['rediss://redis.example', { target: 'rediss://redis.example', options: {} }],
    [
      'redis+sentinel://a:26379,b:26380,c/mymaster',
      {
        target: undefined,
        options: { ...always, sentinels: [sentinel('a'), sentinel('b', 26_380), sentinel('c')], name: 'mymaster' },
      } as never,
    ],
    [
      'rediss+sentinel://app:p%40ss:w@[2001:db8::1]:26379/prod/3?sentinelUsername=s&sentinelPassword=x%26y',
      {
        target: undefined,
        options: {
          ...always,
          sentinels: [sentinel('2001:db8::1')],
          name: 'prod',
          db: 3,
          username: 'app',
          password: 'p@ss:w',
          sentinelUsername: 's',
          sentinelPassword: 'x&y',
          tls: {},
          enableTLSForSentinelMode: true,
        },
      } as never,
    ],
    [
      'redis+sentinel://:pw@a/m',
      { target: undefined, options: { ...always, sentinels: [sentinel('a')], name: 'm', password: 'pw' } } as never,
    ],
  ]
  for (const [url, expected] of cases) {
    t.match(url, new RegExp(REDIS_URL_PATTERN))
    t.same(connectionOf(url), expected, url)
  }
  for (const url of [
    'redis+sentinel://a',
    'redis+sentinel:///m',
    'redis+sentinel://a,/m',
    'redis+sentinel://a/m/x',
    'http://a',
  ])
    t.notMatch(url, new RegExp(REDIS_URL_PATTERN), url)
})
