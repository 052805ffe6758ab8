import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import t from 'tap'
import { asText, contractDocument } from '../../openapi/document.js'
import { PROBLEMS } from '../../src/api/problems.js'
import { startApp } from '../fixtures/app.js'
import type { Contract, Media } from './fixtures/contract.js'

const FILE = 'openapi/understudy.json'
const run = promisify(execFile)

const contract = (await contractDocument()) as unknown as Contract
const operations = Object.entries(contract.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
)

t.test('the committed contract is what the routes give', async t => {
  const committed = await readFile(FILE, 'utf8')
  t.equal(committed, asText(contract as never), 'run "npm run openapi" and commit the file')
  const { version } = JSON.parse(await readFile('package.json', 'utf8'))
  t.equal(contract.info.version, version)
  t.equal(asText(await contractDocument()), committed, 'the same at every writing')
})

t.test('the service serves it', async t => {
  const { app } = await startApp(t)
  t.same((await app.inject('/openapi.json')).json(), JSON.parse(JSON.stringify(contract)))
})

t.test('it is OpenAPI 3.1, and the linter has nothing to say', async t => {
  t.equal(contract.openapi, '3.1.0')
  const { stdout } = await run(
    process.execPath,
    ['node_modules/@redocly/cli/bin/cli.js', 'lint', FILE, '--format=json', '--max-problems=1000'],
    { env: { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' } },
  ).catch((error: { stdout: string }) => error)
  const { totals, problems } = JSON.parse(stdout.slice(stdout.indexOf('{')))
  t.same(totals, { errors: 0, warnings: 0, ignored: 0 })
  t.same(problems, [])
})

t.test('every operation tells a client developer what it needs', async t => {
  const ids = operations.map(({ operation }) => operation.operationId)
  t.equal(new Set(ids).size, ids.length, 'ids are unique')
  t.ok(ids.length >= 13)
  for (const { path, method, operation } of operations) {
    const name = `${method} ${path}`
    t.match(operation.operationId, /^[a-z][A-Za-z]+$/, name)
    t.ok(operation.summary.length > 5 && !operation.summary.endsWith('.'), `${name}: summary`)
    t.ok(operation.description.length > operation.summary.length / 2, `${name}: description`)
    t.equal(operation.tags.length, 1, `${name}: tag`)
    t.ok(
      contract.tags.some(tag => tag.name === operation.tags[0]),
      `${name}: the tag is explained`,
    )
    for (const parameter of operation.parameters ?? []) t.ok(parameter.description, `${name}: ${parameter.name}`)
    const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(match => match[1])
    t.same(
      (operation.parameters ?? []).filter(one => one.in === 'path').map(one => one.name),
      inPath,
      name,
    )

    const media: [string, Media][] = Object.entries(operation.requestBody?.content ?? {})
    t.ok(media.length <= (['post', 'put', 'patch'].includes(method) ? 1 : 0), `${name}: body`)
    const succeeds = Object.keys(operation.responses).some(status => status.startsWith('2'))
    t.ok(succeeds, `${name}: an answer when all is well`)
    for (const [status, response] of Object.entries(operation.responses)) {
      t.ok(response.description.length > 5, `${name} ${status}: description`)
      const types = Object.keys(response.content)
      if (status.startsWith('2')) t.notOk(types.includes('application/problem+json'), `${name} ${status}`)
      else t.same(types, ['application/problem+json'], `${name} ${status}`)
      media.push(...Object.entries(response.content))
    }
    for (const [type, { schema, example, examples }] of media) {
      const shown = example === undefined ? Object.keys(examples ?? {}).length : 1
      t.ok(shown > 0, `${name}: an example of ${type}`)
      if (type.endsWith('json')) t.ok(schema.$ref ?? schema.oneOf, `${name}: ${type} has a name`)
    }
    t.ok(operation.responses[500] && operation.responses[400], `${name}: what every operation can answer`)
    if (operation.security === undefined) t.ok(operation.responses[401] && operation.responses[503], name)
  }
})

t.test('components have names that read well, and are used', async t => {
  const text = JSON.stringify(contract)
  for (const name of Object.keys(contract.components.schemas)) {
    t.match(name, /^[A-Z][a-z]+([A-Z][a-z]+)*$/, name)
    t.ok(text.includes(`"#/components/schemas/${name}"`), `${name} is referred to`)
    t.ok(contract.components.schemas[name]?.description, `${name} is described`)
  }
  for (const name of [
    'Cluster',
    'ClusterStatus',
    'Operation',
    'PlanPreview',
    'Problem',
    'NewCluster',
    'NodeSpec',
    'Step',
  ])
    t.ok(contract.components.schemas[name], name)
  const components: Record<string, Record<string, unknown>> = contract.components
  for (const [, kind = '', name = ''] of text.matchAll(/"\$ref":"#\/components\/(\w+)\/([\w-]+)"/g))
    if (components[kind]?.[name] === undefined) t.fail(`there is no ${name} in ${kind}`)
})

t.test('examples are true: each fits its schema', async t => {
  const ajv = new Ajv2020({ strict: false })
  addFormats.default(ajv)
  ajv.addSchema({ ...contract, $id: 'contract' })
  for (const { path, method, operation } of operations) {
    const all = [operation.requestBody, ...Object.values(operation.responses)]
    for (const [type, { schema, example, examples }] of all.flatMap(one => Object.entries(one?.content ?? {}))) {
      const check = ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"contract#/')))
      const values = [
        ...(example === undefined ? [] : [example]),
        ...Object.entries(examples ?? {}).map(([code, one]) =>
          '$ref' in one ? contract.components.examples[code]?.value : one.value,
        ),
      ]
      for (const value of values) t.ok(check(value), `${method} ${path} ${type} ${ajv.errorsText(check.errors)}`)
    }
  }
})

t.test('every kind of problem is in the contract, or can only come before a route is found', async t => {
  const nowhere = ['method-not-allowed', 'request-timeout', 'headers-too-large']
  t.same(
    Object.keys(PROBLEMS)
      .filter(code => !(code in contract.components.examples))
      .sort(),
    nowhere.sort(),
  )
})
