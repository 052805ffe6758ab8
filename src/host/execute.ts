import { constants } from 'node:os'
import type { Client, ClientChannel } from 'ssh2'

/** How a line ended. `lost`: the connection went away first, and nobody knows. */
export type Ending = { kind: 'exit'; exitCode: number } | { kind: 'lost'; error?: Error }

/** Thrown when the host opens no channel. The line was not sent, so it may safely be sent again. */
export class ChannelRefused extends Error {}

export interface ExecuteOptions {
  stdin?: string
  onStdout(chunk: Buffer): void
  onStderr(chunk: Buffer): void
}

/**
 * Runs one line on a connection, until its channel has closed. Rejects with ChannelRefused, and with nothing else.
 *
 * node-ssh's own execCommand is left aside: it keeps everything printed in memory, splits characters between chunks, and
 * resolves as if nothing had happened when the connection is lost.
 */
export function execute(client: Client, line: string, options: ExecuteOptions): Promise<Ending> {
  return new Promise((resolve, reject) => {
    let closed = false
    const onClientClose = () => {
      closed = true
    }
    // Comes before the channels are told, and so tells a lost connection from a command without an exit status.
    client.prependListener('close', onClientClose)
    const settle = (act: () => void) => {
      client.removeListener('close', onClientClose)
      act()
    }
    const started = (error: Error | undefined, channel: ClientChannel) => {
      if (!error) return watch(channel)
      // Refused by the server before the line was sent; every other error leaves it open whether it arrived.
      const refused = !closed && /^\(SSH\) Channel open failure/.test(error.message)
      settle(() => (refused ? reject(new ChannelRefused(error.message)) : resolve({ kind: 'lost', error })))
    }
    const watch = (channel: ClientChannel) => {
      let ending: Ending = { kind: 'lost' }
      channel.on('exit', (code: number | null, signal?: string) => {
        ending = { kind: 'exit', exitCode: code ?? signalStatus(signal) }
      })
      // A command that ends before it has read its input makes the rest of that input unwritable: no error of ours.
      channel.on('error', () => {})
      channel.stderr.on('error', () => {})
      channel.on('data', options.onStdout)
      channel.stderr.on('data', options.onStderr)
      // With an exit status but cut off before the end of the output, the result would be a half one.
      channel.on('close', () => settle(() => resolve(closed ? { kind: 'lost' } : ending)))
      channel.end(options.stdin ?? '')
    }
    try {
      client.exec(line, started)
    } catch (error) {
      // Thrown for a connection that has ended already: nothing was sent.
      settle(() => reject(new ChannelRefused((error as Error).message)))
    }
  })
}

/** `signal` with its SIG, as ssh2 gives it. */
function signalStatus(signal = ''): number {
  return 128 + ((constants.signals as Record<string, number>)[signal] ?? 0)
}
