/** restore_command as PostgreSQL runs it: `%f` is the name, `%p` the path to put it to, `%%` a percent sign. Pure. */
export function expandRestoreCommand(command: string, name: string, path: string): string {
  // Nothing asks for the last restart point (%r) here: the oldest name keeps everything.
  const values: Record<string, string> = { f: name, p: path, '%': '%', r: '000000010000000000000000' }
  return command.replaceAll(/%(.)/g, (whole, mark: string) => values[mark] ?? whole)
}
