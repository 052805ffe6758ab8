/** What a running server says of the settings in our file: in effect, waiting for a restart, set again elsewhere, wrong. */

export interface SettingState {
  /** Names, in lower case, that a new start would change. */
  pending: string[]
  /** Ours, which do not count because of a line that is read later. */
  shadowed: { name: string; by: string }[]
  /** Lines of our file that the server does not take, in its own words. */
  wrong: { name: string; error: string }[]
  /** Names that have the value that stands in our file. */
  applied: string[]
}

const COULD_NOT = 'setting could not be applied'

/**
 * One row with one JSON value. `pg_file_settings` reads the files as they are now: `applied` is false for what is set again
 * later, and for what has an error. To be told to change what needs a restart is the same error as a wrong value.
 * `path` is a path of ours and goes into the text, because psql has no parameters.
 *
 * @see https://www.postgresql.org/docs/current/view-pg-file-settings.html
 */
export const settingStateQuery = (path: string) => `
WITH ours AS (SELECT DISTINCT ON (l.name) l.* FROM (SELECT lower(name) AS name, seqno, applied, error FROM pg_file_settings
                WHERE sourcefile = '${path.replaceAll("'", "''")}') l ORDER BY l.name, seqno DESC),
     later AS (SELECT DISTINCT ON (o.name) o.name, f.sourcefile || ' line ' || f.sourceline AS place
                 FROM ours o JOIN pg_file_settings f ON lower(f.name) = o.name AND f.seqno > o.seqno
                ORDER BY o.name, f.seqno DESC)
SELECT json_build_object(
  'pending', (SELECT COALESCE(json_agg(lower(name) ORDER BY name), '[]') FROM pg_settings WHERE pending_restart),
  'shadowed', (SELECT COALESCE(json_agg(json_build_object('name', name, 'by', place) ORDER BY name), '[]') FROM later),
  'wrong', (SELECT COALESCE(json_agg(json_build_object('name', name, 'error', error) ORDER BY name), '[]') FROM ours
             WHERE error IS NOT NULL AND NOT (error = '${COULD_NOT}' AND name IN (SELECT lower(name) FROM pg_settings WHERE context = 'postmaster'))),
  'applied', (SELECT COALESCE(json_agg(name ORDER BY name), '[]') FROM ours WHERE applied))`

export const parseSettingState = (json: string) => JSON.parse(json) as SettingState
