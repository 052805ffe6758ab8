/** The one place where secrets are taken out of text. Everything that a host printed and everything logged passes here. */

/**
 * A value behind a name: redacted before; in quotes; in quotes that are escaped, as in JSON that stands in a string; bare, or
 * in quotes that do not end because the line was cut.
 */
const VALUE = [
  /\[redacted\]/,
  /'(?:[^'\\]|\\.)*'/,
  /"(?:[^"\\]|\\.)*"/,
  /(?<escape>\\+)"(?:(?!\k<escape>")[\s\S])*\k<escape>"/,
  /\\*["']?(?:[^\s'",;&\\]|\\[^\s'"])+/,
]
const NAME = /(?<name>password|passwd|secret)/
/** As a setting, in a connection string, in JSON, and in `ALTER ROLE`. */
const SEPARATOR = /(?<separator>(?:\\*["'])?\s*[=:]\s*|\s+(?='))/

const PATTERNS: readonly [RegExp, string][] = [
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----/g, '[private key]'],
  [
    new RegExp(`${NAME.source}${SEPARATOR.source}(?:${VALUE.map(({ source }) => source).join('|')})`, 'gi'),
    '$<name>$<separator>[redacted]',
  ],
  // Bounded, because it is tried at each word.
  [/\b([a-z][a-z0-9+.-]{0,20}:\/\/[^\s:/@]*):[^\s/@]+@/gi, '$1:[redacted]@'],
  [/SCRAM-SHA-256\$[^\s'"\\]+/g, 'SCRAM-SHA-256$[redacted]'],
  [/\bmd5[0-9a-f]{32}\b/g, '[md5 redacted]'],
  [/\b(Bearer\s+)[\w.~+/-]+=*/gi, '$1[redacted]'],
  [/\bund_[0-9A-Za-z]+_[\w-]+/g, 'und_[redacted]'],
]

/** Returns `text` without passwords, keys, tokens and verifiers; `known` are values to take out wherever they stand. */
export function redact(text: string, known: Iterable<string> = []): string {
  let clean = text
  for (const value of known) if (value.length >= 4) clean = clean.replaceAll(value, '[redacted]')
  for (const [pattern, replacement] of PATTERNS) clean = clean.replace(pattern, replacement)
  return clean
}

const SECRET_NAME = /(?:password|passwd|secret|token|authorization|privateKey|masterKey)$/i

/**
 * The same for text that is JSON: string by string, so that no match reaches over a quotation mark and leaves a line
 * that nobody can parse. A string under a name such as `password` is taken out whole.
 */
export function redactJson(json: string, known: readonly string[] = []): string {
  let secret = false
  return json.replace(/("(?:[^"\\]|\\.)*")(\s*:)?/g, (_match, literal: string, colon: string | undefined) => {
    const text = JSON.parse(literal) as string
    const clean = secret && colon === undefined ? '[redacted]' : redact(text, known)
    secret = colon !== undefined && SECRET_NAME.test(text)
    return (clean === text ? literal : JSON.stringify(clean)) + (colon ?? '')
  })
}
