import { Type } from 'typebox'

/** A time in a query. Narrower than what the format allows, so that every one of them can be read. */
export const Instant = (description: string) =>
  Type.String({
    format: 'date-time',
    pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d{1,9})?(Z|[+-]\\d\\d:\\d\\d)$',
    description: `${description} RFC 3339, such as \`2026-11-22T09:00:00Z\`.`,
    examples: ['2026-11-22T09:00:00Z'],
  })

/** Milliseconds since 1970, never less than 0. JavaScript knows no leap second: it is the second before. */
export function milliseconds(instant: string): number {
  return Math.max(0, Date.parse(instant.replace(/:60(?=[.Z+-])/, ':59')))
}
