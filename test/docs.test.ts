import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { settingsSchema } from '../src/config.js'

const read = (file: string) => readFile(file, 'utf8')

t.test('every setting is documented, with its default', async t => {
  const rows = (await read('docs/settings.md')).split('\n').filter(line => line.startsWith('| `'))
  for (const [name, schema] of Object.entries(settingsSchema.properties)) {
    const row = rows.find(line => line.startsWith(`| \`${name}\` |`))
    t.ok(row, `${name} has a row`)
    const { default: value } = schema as { default?: unknown }
    const cell = row?.split('|')[2]?.trim()
    if (value !== undefined) t.equal(cell, `\`${value}\``, `the default of ${name}`)
  }
})

t.test('every way in which an operation can fail is documented', async t => {
  const docs = await read('docs/operations.md')
  const codes = new Set<string>()
  for (const folder of ['src', 'jobs']) {
    for (const file of await readdir(folder, { recursive: true })) {
      if (!file.endsWith('.ts')) continue
      const text = await read(join(folder, file))
      for (const [, code] of text.matchAll(/\bcode: '([a-z]+(?:-[a-z]+)+)',\n\s+outcome/g)) if (code) codes.add(code)
    }
  }
  t.ok(codes.size > 15, 'the search finds them')
  for (const code of codes) t.ok(docs.includes(`\`${code}\``), code)
  const rows = [...docs.matchAll(/^\| (`[a-z`, -]+`) \|/gm)].flatMap(
    ([, cell = '']) => cell.match(/[a-z]+(?:-[a-z]+)+/g) ?? [],
  )
  t.same(
    rows.filter((code, at) => rows.indexOf(code) !== at),
    [],
    'and each once',
  )
})

t.test('the README links to every page', async t => {
  const readme = await read('README.md')
  for (const name of await readdir('docs'))
    if (name.endsWith('.md')) t.ok(readme.includes(`](docs/${name})`), `docs/${name}`)
})

t.test('the README lists what the contract has', async t => {
  const table = (await read('README.md')).split('\n').filter(line => /^\| `(GET|POST|PUT|PATCH|DELETE)/.test(line))
  const { paths } = JSON.parse(await read('openapi/understudy.json')) as { paths: Record<string, object> }
  for (const path of Object.keys(paths)) {
    const last = path.split('/').findLast(part => part !== '' && !part.startsWith('{')) ?? ''
    t.ok(
      table.some(row => row.includes(`/${last}`)),
      path,
    )
  }
})

t.test('the pages link to what is there', async t => {
  for (const file of [
    'README.md',
    'bench/README.md',
    ...(await readdir('docs')).filter(name => name.endsWith('.md')).map(name => `docs/${name}`),
  ]) {
    for (const [, target = '', anchor] of (await read(file)).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)) {
      const path = target === '' ? file : join(file, '..', target)
      const text = await read(path).catch(async () => (await readdir(path)).join('\n'))
      if (anchor !== undefined) t.ok(anchorsOf(text).includes(anchor), `${file} → ${target}#${anchor}`)
    }
  }
})

/** As GitHub makes them of headings. */
const anchorsOf = (text: string) =>
  [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
