/**
 * Starts the service. Exit 0: it was stopped. Exit 1: it could not start, and the last line says why. With arguments:
 * `backup` and `restore`. Exit 2: the arguments are wrong.
 */
import closeWithGrace from 'close-with-grace'
import { readArguments, runStateCommand, type StateCommand, USAGE, WrongArguments } from './backup-command.js'
import { type Config, readConfig, SettingWrong } from './config.js'
import { makeLogger } from './logging.js'
import { startService } from './service.js'

async function main(args: readonly string[]): Promise<void> {
  if (args.includes('--help')) {
    process.stdout.write(USAGE)
    return
  }
  let command: StateCommand | undefined
  let config: Config
  try {
    if (args.length > 0) command = readArguments(args)
    config = readConfig(process.env)
  } catch (error) {
    if (error instanceof WrongArguments) {
      process.stderr.write(error.message)
      process.exitCode = 2
      return
    }
    if (!(error instanceof SettingWrong)) throw error
    process.stderr.write(`understudy cannot start: a setting is wrong.\n${error.message}\n`)
    process.exitCode = 1
    return
  }
  if (command) {
    try {
      process.stdout.write(await runStateCommand(command, config))
    } catch (error) {
      process.stderr.write(`understudy: ${error instanceof Error ? error.message : String(error)}\n`)
      process.exitCode = 1
    }
    return
  }
  const logger = makeLogger(config.logLevel)
  try {
    const service = await startService(config, logger)
    const { file, created } = service.adminToken
    if (created !== undefined) {
      // To the terminal and not to the log: it is shown once, and logs are kept.
      process.stderr.write(`\nThe admin token, shown this once and kept in ${file}:\n\n  ${created}\n\n`)
    }
    logger.info({ address: service.address, roles: config.roles, adminTokenFile: file }, 'understudy is ready')
    // Longer than what the workers may take, so that a stop is never cut short in its middle.
    closeWithGrace({ delay: config.shutdownGraceMs + 15_000, logger }, async ({ err, signal }) => {
      if (err) logger.fatal({ err }, 'stopping because of an error nobody caught')
      else logger.info({ signal }, 'stopping')
      await service.stop()
    })
  } catch (error) {
    logger.fatal({ err: error }, 'understudy cannot start')
    process.stderr.write(`understudy cannot start: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}

await main(process.argv.slice(2))
