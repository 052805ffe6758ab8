import { type Static, type TSchema, Type } from 'typebox'

/** `type: [string, null]` where the schema is of one simple type, which reads better in the contract than a union. */
export const nullable = <T extends TSchema & { type?: string; enum?: unknown[] }>(schema: T) =>
  Type.Unsafe<Static<T> | null>(
    schema.type === undefined || schema.type === 'object' || schema.type === 'array'
      ? { anyOf: [schema, { type: 'null' }] }
      : { ...schema, type: [schema.type, 'null'] },
  )
