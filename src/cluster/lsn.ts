/**
 * Log sequence numbers. PostgreSQL writes them as two hexadecimal halves, `16/B374D848`; ordering and distance need
 * all 64 bits, which a JavaScript number has not.
 */
export type Lsn = string & { readonly __lsn: unique symbol }

const PATTERN = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/

/** Throws a `RangeError` for text that is no LSN. */
export function parseLsn(text: string): Lsn {
  if (!PATTERN.test(text)) throw new RangeError(`not an LSN: ${JSON.stringify(text)}`)
  return text as Lsn
}

/** As the server prints it: pg_waldump pads the lower half with zeros, the server does not. */
export const shortLsn = (lsn: Lsn): Lsn => lsn.replaceAll(/(^|\/)0+(?=[0-9A-Fa-f])/g, '$1') as Lsn

/** The position in the WAL, in bytes. */
export function lsnBytes(lsn: Lsn): bigint {
  const match = PATTERN.exec(lsn)
  if (!match?.[1] || !match[2]) throw new RangeError(`not an LSN: ${JSON.stringify(lsn)}`)
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)
}

/** How far `behind` is behind `ahead`, in bytes; negative where it is in front. */
export function lagBytes(ahead: Lsn, behind: Lsn): number {
  return Number(lsnBytes(ahead) - lsnBytes(behind))
}

/** The later of two positions. */
export function laterLsn(a: Lsn | undefined, b: Lsn | undefined): Lsn | undefined {
  if (a === undefined || b === undefined) return a ?? b
  return lsnBytes(a) >= lsnBytes(b) ? a : b
}
