/** The one place where secrets are taken out of text. Everything that a host printed and everything logged passes here. */

const PATTERNS: readonly [RegExp, string][] = [
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----/g, '[private key]'],
  [
    /\b(password|passwd|pgpassword|secret)(\s*[=:]\s*)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\\"(?:[^"\\]|\\[^"])*\\"|[^\s'",;&\\]+)/gi,
    '$1$2[redacted]',
  ],
  [/\b(postgres(?:ql)?:\/\/[^\s:/@]+):[^\s@]+@/gi, '$1:[redacted]@'],
  [/SCRAM-SHA-256\$[^\s'"]+/g, 'SCRAM-SHA-256$[redacted]'],
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
