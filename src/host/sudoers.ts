/** The sudoers file of the postgres user: what repmgr runs as root, to the letter, and nothing else. Pure. */

/** sudo reads no file of this directory that has a dot or a tilde in its name. */
export const sudoersFile = (cluster: string) => `/etc/sudoers.d/understudy-${cluster}`

/** @see https://www.sudo.ws/docs/man/sudoers.man/ on what has a meaning in a command: `,`, `:`, `=` and `\`. */
const escaped = (command: string) => command.replaceAll(/[\\,:=]/g, '\\$&')

export function sudoers(cluster: string, unit: string): string {
  const commands = ['start', 'stop', 'restart', 'reload'].map(verb => escaped(`/usr/bin/systemctl ${verb} ${unit}`))
  return [
    `# Managed by Understudy: cluster ${cluster}, what repmgr does as root. What is changed here is overwritten.`,
    '# repmgr runs as the postgres user and starts and stops the server by these.',
    'Defaults:postgres !requiretty',
    ...commands.map(command => `postgres ALL=(root) NOPASSWD: ${command}`),
    '',
  ].join('\n')
}
