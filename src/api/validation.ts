/** What is checked of a request before a route sees it. */
import { Ajv, type ErrorObject } from 'ajv'
import addFormats from 'ajv-formats'
import type { FastifySchemaCompiler } from 'fastify'

/** A request larger than that, as JSON, is told its first mistake only: to find all of a megabyte takes seconds. */
const EXPLAINED_CHARACTERS = 65_536

/**
 * Fastify's own Ajv drops unknown fields and turns "true" into true: a misspelt dryRun would be a real run. Only what
 * comes from a URL or a header is text and has to be converted.
 */
export function validatorCompiler(): FastifySchemaCompiler<object> {
  const body = [checker({ coerceTypes: false }), checker({ coerceTypes: false, allErrors: true })] as const
  const text = [checker({ coerceTypes: true }), checker({ coerceTypes: true, allErrors: true })] as const
  return ({ schema, httpPart }) => {
    const [first, all] = (httpPart === 'body' ? body : text).map(ajv => ajv.compile(schema))
    if (!first || !all) throw new TypeError('a schema without its checks')
    return (data: unknown): { value: unknown } | { error: ErrorObject[] } => {
      if (first(data)) return { value: data }
      const explained = (JSON.stringify(data)?.length ?? 0) <= EXPLAINED_CHARACTERS && !all(data)
      return { error: (explained ? all.errors : first.errors) ?? [] }
    }
  }
}

function checker(options: { coerceTypes: boolean; allErrors?: boolean }): Ajv {
  const ajv = new Ajv({ ...options, verbose: true, removeAdditional: false, useDefaults: false, strict: false })
  addFormats.default(ajv)
  return ajv
}
