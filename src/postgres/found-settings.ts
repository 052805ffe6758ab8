/** What a running server was told in its configuration files. */

/**
 * One JSON value: `FoundServer` without its node. Of what stands several times the last line counts. A value that
 * waits for a restart counts; one that the server does not take does not.
 *
 * @see https://www.postgresql.org/docs/current/view-pg-file-settings.html
 */
export const FOUND_SETTINGS_QUERY = `
WITH last AS (SELECT DISTINCT ON (lower(name)) lower(name) AS name, setting, applied
                FROM pg_file_settings WHERE name IS NOT NULL ORDER BY lower(name), seqno DESC)
SELECT json_build_object(
  'archive', (SELECT json_object_agg(name, setting) FROM pg_settings
               WHERE name IN ('archive_mode', 'archive_command', 'archive_library', 'archive_timeout', 'restore_command')),
  'applyDelayMs', (SELECT setting::int FROM pg_settings WHERE name = 'recovery_min_apply_delay'),
  'files', (SELECT COALESCE(json_object_agg(l.name, CASE WHEN l.applied OR s.context = 'postmaster' THEN l.setting ELSE current_setting(s.name) END), '{}')
              FROM last l JOIN pg_settings s ON lower(s.name) = l.name))`
