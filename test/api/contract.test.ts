/**
 * Hundreds of good and broken requests for every operation, made from the contract itself, against the real
 * application: what it answers must be what the contract says. A failure prints its seed; CONTRACT_SEED repeats it.
 */
import { Ajv, type AnySchemaObject, type ValidateFunction } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import fc from 'fast-check'
import type { InjectOptions, LightMyRequestResponse } from 'fastify'
import { createGeneratorSync, type JsonSchema } from 'json-schema-faker'
import t from 'tap'
import type { NodeSpec } from '../../src/cluster/model.js'
import { repmgrPassword } from '../../src/store/secrets.js'
import { startApp } from '../fixtures/app.js'
import type { Contract, ContractOperation, Parameter, Schema } from './fixtures/contract.js'
import { loopbackOnly } from './fixtures/loopback-only.js'
import { built, closedPort, failure, finish, node, queued, spec } from './fixtures/requests.js'

const SEED = Number(process.env.CONTRACT_SEED ?? Math.floor(Math.random() * 2 ** 31))
/** Of each kind, for each operation. */
const VALID = 120
const BROKEN = 200
/** Their endless answer has its own test. */
const STREAMS = ['followOperation']

interface Wanted {
  params: Record<string, string>
  query: Record<string, string>
  headers: Record<string, string>
  /** As text, so that it need not be JSON. */
  body?: string
  what: string
}

const guard = loopbackOnly()
t.teardown(() => guard.end())

t.test(`what is answered is what the contract says (CONTRACT_SEED=${SEED})`, async t => {
  const test = await startApp(t)
  const { app, token, store } = test
  const contract = app.swagger() as unknown as Contract
  const operations = Object.entries(contract.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  )

  const answers = new Ajv2020({ strict: false, allErrors: true })
  addFormats.default(answers)
  answers.addSchema({ ...contract, $id: 'contract' })
  const texts = new Ajv({ strict: false, coerceTypes: true })
  addFormats.default(texts)
  const compiled = new Map<Schema, ValidateFunction>()
  const fits = (schema: Schema) => {
    const known = compiled.get(schema)
    if (known) return known
    const check = answers.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"contract#/')))
    compiled.set(schema, check)
    return check
  }

  // A world in which every operation finds something.
  const WORLD = [
    // Beside the one host that requests name.
    ['orders', [node('pg1', { host: '127.0.0.2' })]],
    ['accounts', [node('pg1')]],
  ] as const
  const restore = async (name: string, nodes: readonly NodeSpec[]) => {
    if (!(await store.clusters.get(name))) await built(test, name, [...nodes])
    await store.secrets.getOrCreate(repmgrPassword(name), () => 'secret')
  }
  for (const [name, nodes] of WORLD) await restore(name, nodes)
  await app.inject({
    method: 'POST',
    url: '/v1/clusters',
    headers: { authorization: `Bearer ${token}` },
    payload: spec('plans'),
  })
  const ids = [(await queued(test, 'waits')).id]
  for (const error of [undefined, failure]) {
    const { id } = await queued(test, 'ends')
    await finish(test, id, error)
    ids.push(id)
  }

  /** How often each operation gave each status. */
  const seen = new Map<string, Map<number, number>>()
  const pages = new Map<string, number>()
  let sent = 0

  // One source of chance for the whole run, so that the seed alone repeats it.
  const [chance] = fc.sample(fc.gen(), { seed: SEED, numRuns: 1 })
  if (!chance) throw new Error('no source of chance')
  const one = <T>(arbitrary: fc.Arbitrary<T>) => chance(() => arbitrary)
  const pick = <T>(...values: T[]) => one(fc.constantFrom(...values))
  // Expensive to make.
  const patterns = new Map<string, fc.Arbitrary<string>>()
  const matching = (pattern: string) => {
    const made = patterns.get(pattern) ?? fc.stringMatching(new RegExp(pattern))
    patterns.set(pattern, made)
    return made
  }

  const faker = createGeneratorSync({ seed: SEED, maxDefaultItems: 1, optionalsProbability: 0.6, maxDepth: 20 })
  function fake(schema: Schema): unknown {
    const check = fits(schema)
    for (let attempt = 0; attempt < 50; attempt += 1) {
      const value = faker.generate({ ...schema, components: contract.components } as JsonSchema)
      if (check(value)) return value
      // The generator does not know every regular expression; fast-check fills in.
      for (const { keyword, instancePath, params } of check.errors ?? [])
        if (keyword === 'pattern') put(value, instancePath, one(matching(params.pattern)))
      if (check(value)) return value
    }
    throw new Error(`nothing fits ${JSON.stringify(schema)}: ${answers.errorsText(check.errors)}`)
  }

  const name = () =>
    pick(
      'orders',
      'accounts',
      'plans',
      'waits',
      'ends',
      'nowhere',
      ...Array.from({ length: 25 }, (_, at) => `c${at + 10}`),
    )

  function goodParameter({ name: called, schema, in: place }: Parameter): string {
    if (called === 'cluster') return name()
    if (called === 'confirm')
      return pick(schema.description?.toString().includes('cluster') ? 'orders' : 'pg1', String(fake(schema)))
    if (called === 'node') return pick('pg1', 'pg1', String(fake(schema)))
    if (called === 'id' || called === 'cursor') return pick(pick(...ids), pick(...ids), String(fake(schema)))
    if (called === 'code') return pick('bad-request', 'cluster-busy', 'nothing', String(fake(schema)))
    if (called === 'prefer') return pick('wait=0', 'respond-async', 'respond-async, wait=0', 'handling=lenient')
    if (called === 'idempotency-key') return pick('"once"', ...Array.from({ length: 4 }, () => one(fc.uuid())))
    if (called === 'if-match') return pick('*', '*', '"1-x"', 'W/"1-x", *')
    return place === 'header' ? ascii(String(fake(schema))) : String(fake(schema))
  }

  function good({ operation }: { operation: ContractOperation }): Wanted {
    const wanted: Wanted = { params: {}, query: {}, headers: { authorization: `Bearer ${token}` }, what: 'valid' }
    for (const parameter of operation.parameters ?? []) {
      const place = { path: wanted.params, query: wanted.query, header: wanted.headers }[parameter.in]
      if (parameter.required || pick(true, false)) place[parameter.name] = goodParameter(parameter)
    }
    if (operation.operationId === 'deleteCluster') {
      // By chance alone hardly any of them would forget a cluster.
      const how = pick('destroy', 'forget', 'anyhow')
      if (how === 'destroy')
        Object.assign(wanted.query, { destroy: 'true', confirm: wanted.params.cluster, dryRun: 'false' })
      if (how === 'forget') wanted.query = {}
    }
    if (wanted.params.node !== undefined) wanted.params.cluster = pick('orders', 'orders', 'accounts', name())
    const accept = pick('application/json', 'text/plain', '*/*', 'text/plain;q=0.9, application/json', undefined)
    if (accept !== undefined) wanted.headers.accept = accept
    const schema = operation.requestBody?.content['application/json']?.schema
    if (schema) {
      let body = fake(schema) as Record<string, unknown>
      if (operation.operationId === 'createCluster') {
        body.name = name()
        // More than one node on one host is refused, and every host is this one.
        if (pick(true, true, false)) body.nodes = (body.nodes as unknown[]).slice(0, 1)
        if (pick(true, false)) body = { ...spec(body.name as string), bootstrap: pick(true, false) }
      }
      if (operation.operationId === 'addNode') {
        wanted.params.cluster = pick('orders', 'orders', 'accounts', name())
        // A place made up at random is hardly ever one that can be had.
        for (const option of ['kind', 'upstream', 'applyDelayMs', 'priority', 'settings'])
          if (pick(true, true, false)) delete body[option]
        if (pick(true, false)) body = { ...node(`n${pick(1, 2, 3, 4, 5, 6, 7, 8, 9)}x`) }
      }
      wanted.body = JSON.stringify(body)
      wanted.headers['content-type'] = pick('application/json', 'application/json; charset=utf-8')
    }
    return wanted
  }

  function broken(target: { operation: ContractOperation }): Wanted {
    const wanted = good(target)
    const { operation } = target
    const { parameters = [], requestBody } = operation
    const ways = ['token', 'unknown query', 'accept']
    if (parameters.some(parameter => parameter.in === 'path')) ways.push('path', 'path')
    if (parameters.some(parameter => parameter.in === 'query')) ways.push('query', 'query')
    if (parameters.some(parameter => parameter.in === 'header')) ways.push('header')
    if (requestBody) ways.push(...Array(12).fill('field'), 'field twice', 'media type', 'not JSON', 'truncated', 'huge')
    const way = pick(...ways)
    wanted.what = way
    const of = (place: Parameter['in']) => pick(...parameters.filter(parameter => parameter.in === place)).name
    switch (way) {
      case 'token':
        wanted.headers.authorization = pick(
          '',
          'Bearer',
          'Bearer x',
          `Basic ${token}`,
          token,
          `Bearer ${token}x`,
          ascii(one(fc.string())),
        )
        break
      case 'unknown query':
        wanted.query[one(fc.string({ minLength: 1, unit: 'grapheme' }))] = one(fc.string())
        break
      case 'accept':
        wanted.headers.accept = pick('text/html', 'application/xml', 'nonsense', ';;,q=', ascii(one(fc.string())))
        break
      case 'path':
        // A path of dots is another path before it is sent.
        wanted.params[of('path')] = one(nasty).replace(/^\.{1,2}$/, '...')
        break
      case 'query':
        wanted.query[of('query')] = one(nasty)
        break
      case 'header':
        wanted.headers[of('header')] = ascii(one(nasty)).replaceAll(/\d/g, '0')
        break
      case 'media type':
        wanted.headers['content-type'] = pick(
          'text/plain',
          'application/xml',
          'multipart/form-data',
          'x',
          'application/jsonx',
          'text/json',
        )
        break
      case 'not JSON':
        wanted.body = one(fc.string({ unit: 'binary' }).filter(text => !isJson(text)))
        break
      case 'truncated':
        wanted.body = (wanted.body ?? '').slice(0, one(fc.nat((wanted.body ?? '').length - 1)))
        break
      case 'huge':
        wanted.body = JSON.stringify({ name: 'x'.repeat(1_100_000) })
        break
      default: {
        const body = JSON.parse(wanted.body ?? '{}')
        for (let times = way === 'field' ? 1 : 2; times > 0; times -= 1) wanted.what += `: ${damage(body)}`
        wanted.body = JSON.stringify(body)
      }
    }
    return wanted
  }

  /** Breaks, or merely changes, one place of a body. */
  function damage(body: unknown): string {
    const places = [...placesOf(body)]
    if (places.length === 0) {
      Object.assign(body as object, { x: 1 })
      return 'x in nothing'
    }
    const { pointer, holder, key } = pick(...places)
    switch (pick('drop', 'null', 'any', 'text', 'number', 'huge', 'nasty', 'unknown field', 'wrap', 'repeat')) {
      case 'drop':
        if (Array.isArray(holder)) holder.splice(Number(key), 1)
        else delete holder[key]
        return `without ${pointer}`
      case 'null':
        holder[key] = null
        break
      case 'any':
        holder[key] = one(fc.jsonValue({ depthSize: 'small' }))
        break
      case 'text':
        holder[key] = String(holder[key])
        break
      case 'number':
        holder[key] = one(fc.oneof(fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true })))
        break
      case 'huge':
        holder[key] = 'x'.repeat(one(fc.integer({ min: 64, max: 300_000 })))
        break
      case 'nasty':
        holder[key] = one(nasty)
        break
      case 'unknown field': {
        const field = one(
          fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('dryrun', 'toString', 'constructor')),
        )
        if (!Array.isArray(holder)) holder[field] = one(fc.jsonValue({ maxDepth: 1 }))
        return `${field} in ${pointer}`
      }
      case 'wrap':
        holder[key] = pick<unknown>([holder[key]], { value: holder[key] })
        break
      case 'repeat':
        if (Array.isArray(holder[key])) holder[key] = Array(20).fill((holder[key] as unknown[])[0])
        break
    }
    return `other ${pointer}`
  }

  async function send(target: (typeof operations)[number], wanted: Wanted): Promise<void> {
    const { method, path, operation } = target
    const tamed = wanted.body === undefined ? undefined : tameText(wanted.body)
    const query = Object.entries(wanted.query).map(([key, value]) => [
      key,
      key === 'wait' ? brief(value) : key === 'follow' && value === 'true' ? 'false' : value,
    ])
    const url =
      path.replaceAll(/\{(\w+)\}/g, (_, called) => encodeURIComponent(wanted.params[called] ?? '')) +
      (query.length > 0
        ? `?${query.map(pair => pair.map(text => encodeURIComponent(text ?? '')).join('=')).join('&')}`
        : '')
    const request: InjectOptions = {
      method: method as 'GET',
      url,
      headers: wanted.headers,
      ...(tamed === undefined ? {} : { payload: tamed }),
    }
    const response = await app.inject(request)
    sent += 1
    const counts = seen.get(operation.operationId) ?? new Map<number, number>()
    seen.set(operation.operationId, counts.set(response.statusCode, (counts.get(response.statusCode) ?? 0) + 1))
    const wrong = await objectionTo(target, request, wanted, response)
    if (wrong !== undefined) {
      t.fail(`${operation.operationId}: ${wrong}`, {
        seed: SEED,
        what: wanted.what,
        request: { ...request, payload: tamed?.slice(0, 2000) },
        answer: { status: response.statusCode, headers: response.headers, body: response.body.slice(0, 2000) },
      })
    }
    // What it has deleted is wanted by those that come after it.
    if (response.statusCode === 200 && operation.operationId === 'deleteCluster') {
      const { cluster } = response.body.startsWith('{') ? response.json() : { cluster: wanted.params.cluster }
      for (const [name, nodes] of WORLD) if (name === cluster) await restore(name, nodes)
    }
    // The clusters that everything is tried on must not be busy for ever; some others may.
    if (response.statusCode === 202) {
      const id = String(response.headers.location).split('/').at(-1) ?? ''
      const { cluster } = (await store.operations.get(id)) ?? {}
      if (WORLD.some(([name]) => name === cluster) || pick(true, true, false)) {
        await finish(test, id, pick(undefined, failure))
        ids.push(id)
      }
    }
  }

  async function objectionTo(
    { operation }: { operation: ContractOperation },
    request: InjectOptions,
    wanted: Wanted,
    response: LightMyRequestResponse,
  ): Promise<string | undefined> {
    const { statusCode: status, body } = response
    const documented = operation.responses[status]
    if (!documented) return `${status} is not documented`
    const media = String(response.headers['content-type']).split(';')[0] ?? ''
    const content = documented.content[media]
    if (!content) return `${media} is not documented for ${status}`
    if (media.endsWith('json')) {
      const check = fits(content.schema)
      if (!check(JSON.parse(body))) return `the body does not fit: ${answers.errorsText(check.errors)}`
    } else if (body === '' && operation.operationId !== 'getOperationLog') return 'an empty text'

    if (status >= 400) {
      if (media !== 'application/problem+json') return 'an error that is no problem'
      const { type, status: said, detail, errors } = JSON.parse(body)
      if (said !== status) return `the body says ${said}`
      if (!pages.has(type)) pages.set(type, (await app.inject(type)).statusCode)
      if (pages.get(type) !== 200) return `${type} leads nowhere`
      // Wrong requests are quoted, dots and all.
      const ours = request.payload === undefined ? detail : without(detail, dotted(String(request.payload)))
      if (!/[.!?]$/.test(detail) || (status > 404 && /[.]{2}(\s|$)/.test(ours))) return `not a sentence: ${detail}`
      if (detail.length > 6000) return `${detail.length} characters of detail`
      if (status === 400 && errors !== undefined && errors.length === 0) return 'an empty list of errors'
      if (status >= 500 && !(status === 502 && type === '/problems/host-unreachable'))
        return `${status} without a reason`
      if (status === 401 && !response.headers['www-authenticate']) return '401 without a challenge'
      if (type === '/problems/cluster-busy' && !response.headers['retry-after']) return 'busy without Retry-After'
    }
    if (status === 201 || status === 202) {
      const { location } = response.headers
      const there = await app.inject({ url: String(location), headers: { authorization: `Bearer ${token}` } })
      if (there.statusCode !== 200) return `Location leads to ${there.statusCode}`
    }

    // What the contract allows is not refused as wrong, and what it forbids is.
    const authorised = operation.security?.length === 0 || wanted.headers.authorization === `Bearer ${token}`
    if (!authorised) return status === 401 ? undefined : `${status} without a token`
    if (status === 401) return 'refused in spite of the token'
    if (wanted.what === 'media type')
      return status === 415 ? undefined : `${status} for ${wanted.headers['content-type']}`
    const fine = allowed(operation, request, wanted)
    if (fine && (status === 400 || status === 413 || status === 415)) return `${status} for what the contract allows`
    if (!fine && status < 400) return `${status} for what the contract forbids`
    return undefined
  }

  /** Whether a request is as the contract describes it. */
  function allowed(operation: ContractOperation, request: InjectOptions, wanted: Wanted): boolean {
    const of = (place: Parameter['in']) => (operation.parameters ?? []).filter(parameter => parameter.in === place)
    const asObject = (place: Parameter['in']) => ({
      type: 'object',
      properties: Object.fromEntries(of(place).map(parameter => [parameter.name, parameter.schema])),
      required: of(place).flatMap(parameter => (parameter.required ? [parameter.name] : [])),
      additionalProperties: false,
    })
    const check = (schema: AnySchemaObject, values: Record<string, string>) => texts.validate(schema, { ...values })
    const isPublic = operation.security?.length === 0
    const query = Object.fromEntries(new URL(String(request.url), 'http://localhost').searchParams)
    if (!check(asObject('path'), wanted.params)) return false
    // Balancers add parameters of their own when they ask for health.
    if (!isPublic && !check(asObject('query'), query)) return false
    if (!check({ ...asObject('header'), additionalProperties: true }, wanted.headers)) return false
    const last = wanted.headers['last-event-id']
    if (last !== undefined && !check(asObject('header'), { 'last-event-id': last })) return false
    const schema = operation.requestBody?.content['application/json']?.schema
    if (!schema) return true
    const text = String(request.payload)
    return (
      isJson(text) &&
      !/"(__proto__|constructor)"/.test(text) &&
      text.length <= 1_048_576 &&
      Boolean(fits(schema)(JSON.parse(text)))
    )
  }

  for (const target of operations) {
    if (STREAMS.includes(target.operation.operationId)) continue
    for (let at = 0; at < VALID; at += 1) await send(target, good(target))
    for (let at = 0; at < BROKEN; at += 1) await send(target, broken(target))
  }

  // A path with a name in it may also fit another one that has a word there.
  const like = (path: string) => new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/]+')}$`)
  for (const path of Object.keys(contract.paths)) {
    const methods = Object.assign(
      {},
      ...Object.entries(contract.paths).flatMap(([other, of]) => (like(other).test(path) ? [of] : [])),
    )
    const url = path
      .replace('{cluster}', 'orders')
      .replace('{node}', 'pg1')
      .replace('{id}', ids[0] ?? '')
      .replace('{code}', 'not-found')
    const has = Object.keys(methods).map(method => method.toUpperCase())
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'] as const) {
      if (has.includes(method)) continue
      const response = await app.inject({ method: method as 'GET', url, headers: { authorization: `Bearer ${token}` } })
      const allow = String(response.headers.allow).split(', ')
      if (response.statusCode !== 405 || !has.every(one => allow.includes(one)) || allow.includes(method))
        t.fail(`${method} ${url}`, { status: response.statusCode, allow })
      if (response.json().type !== '/problems/method-not-allowed') t.fail(`${method} ${url} is no problem`)
    }
  }

  const told = [...seen].map(
    ([id, counts]) =>
      `${id}: ${[...counts]
        .sort()
        .map(([status, count]) => `${status}×${count}`)
        .join(' ')}`,
  )
  t.comment(`${sent} requests, seed ${SEED}\n${told.join('\n')}`)
  t.same(guard.refused, [], 'nothing left this machine')

  // The requests are no good if they only ever meet one answer.
  const expected: Record<string, number[]> = {
    createCluster: [200, 201, 202, 400, 401, 409, 413, 415, 422, 502],
    addNode: [202, 400, 401, 404, 409, 413, 415, 422, 502],
    getNode: [200, 400, 401, 404],
    removeNode: [202, 400, 401, 404, 409, 422],
    deleteCluster: [200, 202, 400, 401, 404, 409, 422],
    provisionNode: [202, 400, 401, 404, 413, 415, 502],
    stopNode: [202, 400, 401, 404, 409, 413, 415, 502],
    scanHostKeys: [400, 401, 413, 415, 502],
    getCluster: [200, 400, 401, 404],
    getClusterStatus: [200, 400, 401, 404],
    listClusters: [200, 400, 401],
    listOperations: [200, 400, 401],
    getOperation: [200, 400, 401, 404],
    getOperationLog: [200, 400, 401, 404],
    listEvents: [200, 400, 401],
    getSshKey: [200, 400, 401],
    explainProblem: [200, 404],
  }
  for (const [id, statuses] of Object.entries(expected)) {
    const missed = statuses.filter(status => !seen.get(id)?.has(status))
    t.same(missed, [], `${id} was brought to all of its answers`)
  }
  const untested = operations.filter(({ operation }) => !seen.has(operation.operationId))
  t.same(
    untested.map(({ operation }) => operation.operationId),
    STREAMS,
  )
})

/** What of a request may be quoted in its answer, and has dots of its own. */
const dotted = (payload: string) => payload.split(/["\\]/).filter(part => part.includes('..'))
const without = (text: string, parts: readonly string[]) =>
  parts.reduce((rest, part) => rest.replaceAll(part, ''), text)

/** What people and programs get wrong in text. */
const nasty = fc.oneof(
  fc.constantFrom('', ' ', '0', '-1', '61', '1.5', '1e9', 'NaN', 'null', 'true', 'True', 'yes', '[]', '{}', '%', '%00'),
  fc.constantFrom(
    '../../etc/passwd',
    "'; drop table x; --",
    '<script>',
    '\u0000',
    '\ud83d\ude00',
    '\u202e',
    'ﬀ',
    'İ',
    'op_',
  ),
  fc.string({ unit: 'grapheme' }),
  fc.string({ minLength: 90, maxLength: 400 }),
  fc.stringMatching(/^[a-z][a-z0-9-]{0,50}$/),
)

/** A header holds no other characters. */
const ascii = (text: string) => text.replaceAll(/[^\x21-\x7e]+/g, ' ').trim()

/** A wait that would be granted is not waited for. */
const brief = (value: string) =>
  Number(value) > 0 && Number(value) <= 60 && Number.isInteger(Number(value)) ? '0' : value

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** The rule of this test: no host but this one is ever named, and no port of it but a closed one. */
function tameText(text: string): string {
  return isJson(text) ? JSON.stringify(tame(JSON.parse(text))) : text
}

function tame(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(tame)
  if (typeof value !== 'object' || value === null) return value
  const object = Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, tame(inner)]))
  if ('host' in object && (typeof object.host === 'string' || typeof object.host === 'number'))
    object.host = '127.0.0.1'
  // Whether it is a node's or stands alone. One that is no port at all stays, and is refused.
  const { ssh } = object
  if (typeof ssh === 'object' && ssh !== null && !Array.isArray(ssh)) closePort(ssh as Record<string, unknown>)
  if ('host' in object || 'port' in object || 'postgresVersion' in object) {
    if (!('ssh' in object)) closePort(object)
  }
  return object
}

function closePort(object: Record<string, unknown>): void {
  const { port } = object
  if (port === undefined || (typeof port === 'number' && Number.isInteger(port) && port >= 1 && port <= 65_535))
    object.port = closedPort
}

function put(root: unknown, pointer: string, value: unknown): void {
  const parts = pointer.split('/').slice(1)
  let holder = root as Record<string, unknown>
  for (const part of parts.slice(0, -1)) holder = holder[part] as Record<string, unknown>
  holder[parts.at(-1) ?? ''] = value
}

function* placesOf(
  value: unknown,
  pointer = '',
): Generator<{ pointer: string; holder: Record<string, unknown>; key: string }> {
  if (typeof value !== 'object' || value === null) return
  for (const [key, inner] of Object.entries(value)) {
    yield { pointer: `${pointer}/${key}`, holder: value as Record<string, unknown>, key }
    yield* placesOf(inner, `${pointer}/${key}`)
  }
}
