/**
 * The version of the records in the store. Each kind of record carries it (`schema`), and the store as a whole has the one
 * to which all of them were brought: `migrate.ts`. A change of a record that an older reader would misread, or that needs
 * the old ones to be rewritten, is a new version; a field that may be absent is not.
 *
 * 1  clusters, operations and tokens as they were before they carried a version
 * 2  they carry it; operations say in `origin` who asked for them, for the audit trail
 *
 * Entries of streams carry their own (`v`), since they are never rewritten; a secret begins with its own (`v1.`).
 */
export const SCHEMA_VERSION = 2

/** A record as it is kept. */
export const withSchema = (record: object) => JSON.stringify({ schema: SCHEMA_VERSION, ...record })

/** And as it is used. */
export function withoutSchema<T>(text: string): T {
  const { schema: _schema, ...record } = JSON.parse(text) as { schema?: number }
  return record as T
}
