import { quote as shellQuote } from 'shell-quote'

/** Words that mean themselves in every POSIX shell, wherever they stand. Left bare so that a plan stays readable. */
const PLAIN = /^[\w@%+:,./-][\w@%+=:,./-]*$/

/**
 * Returns `argv` as one line of POSIX shell that stands for exactly these words. The only place where the house quotes
 * for a shell. Throws a TypeError for a NUL, which no argument can hold: a shell would drop it and run something else.
 */
export function quote(argv: readonly string[]): string {
  return argv
    .map((word, index) => {
      if (word.includes('\0')) throw new TypeError(`argument ${index} of the command holds a NUL character`)
      // `a=b` as the first word would be an assignment.
      return PLAIN.test(word) && !(index === 0 && word.includes('=')) ? word : shellQuote([word])
    })
    .join(' ')
}
