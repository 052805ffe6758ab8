/** From a port of this machine's loopback to a Unix socket: the way for curl and browsers to a service inside a lab. */
import { createConnection, createServer, type Server } from 'node:net'
import { pathToFileURL } from 'node:url'

export async function forward(port: number, socket: string): Promise<Server> {
  const server = createServer(client => {
    const inside = createConnection(socket)
    client.pipe(inside).pipe(client)
    const close = () => {
      client.destroy()
      inside.destroy()
    }
    client.on('error', close)
    inside.on('error', close)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  return server
}

const [, program = '', port, socket] = process.argv
if (import.meta.url === pathToFileURL(program).href && port !== undefined && socket !== undefined) {
  await forward(Number(port), socket)
}
