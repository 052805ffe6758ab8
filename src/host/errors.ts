/** What can go wrong between here and a host. Each error names the host and says what to do there. */
import { OperationError, type Outcome } from '../operations/errors.js'
import { type Command, type CommandResult, render } from './command.js'

/** The host that an error is about; a `HostAddress` fits. */
export interface Where {
  host: string
  port: number
  user?: string
}

const name = (where: Where) => `${where.user === undefined ? '' : `${where.user}@`}${where.host}:${where.port}`

/** Thrown when no SSH connection comes about: refused, timed out, no such name, not SSH, or no free channel. */
export class HostUnreachable extends OperationError {
  constructor(where: Where, reason: string, cause?: unknown) {
    super(`${name(where)} cannot be reached over SSH: ${reason}.`, {
      code: 'host-unreachable',
      outcome: 'not_started',
      remedy:
        `Check that ${where.host} is up, that sshd listens on port ${where.port}, and that no firewall is in between: ` +
        `ssh-keyscan -p ${where.port} ${where.host}. Then retry.`,
      cause,
    })
  }
}

/** Thrown when a host shows another key than the pinned one. Nothing was sent to it. */
export class HostKeyMismatch extends OperationError {
  readonly pinned: string
  readonly offered: readonly { type: string; fingerprint: string }[]

  constructor(where: Where, pinned: string, offered: readonly { type: string; fingerprint: string }[]) {
    const keys = offered.map(key => `${key.fingerprint} (${key.type})`).join(', ')
    super(`${name(where)} shows the host key ${keys}, but ${pinned} is pinned.`, {
      code: 'host-key-mismatch',
      outcome: 'not_started',
      remedy:
        `Either ${where.host} was installed again, or something between here and there answers in its place: an attack. ` +
        `Do not go on before you know. On the console of ${where.host}, not over SSH, run ` +
        'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub and compare. Pin the new key only when it is the same.',
    })
    this.pinned = pinned
    this.offered = offered
  }
}

/** Thrown when the host is the right one but does not let us in. */
export class AuthenticationFailed extends OperationError {
  constructor(where: Where, detail: string, cause?: unknown) {
    super(`${where.host}:${where.port} does not accept our key for the user ${where.user}: ${detail}.`, {
      code: 'authentication-failed',
      outcome: 'not_started',
      remedy:
        `Put the public key of this service into ~${where.user}/.ssh/authorized_keys on ${where.host} ` +
        '(directory 0700, file 0600, both owned by that user), and check AllowUsers and PubkeyAuthentication in sshd_config.',
      cause,
    })
  }
}

/** Thrown when sudo does not let the login user run a command without a password, or is not installed. */
export class SudoRefused extends OperationError {
  constructor(where: Where, said: string) {
    super(`sudo on ${where.host} refuses the user ${where.user}: ${said}`, {
      code: 'sudo-refused',
      outcome: 'not_started',
      remedy:
        `On ${where.host}, install sudo where it is missing, and allow it without a password: ` +
        `echo '${where.user} ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/understudy && ` +
        'chmod 0440 /etc/sudoers.d/understudy && visudo -c',
      output: said,
    })
  }
}

/** Thrown when a command ends with an exit status that its caller does not accept. */
export class CommandFailed extends OperationError {
  readonly exitCode: number
  readonly result: CommandResult

  constructor(where: Where, command: Command, result: CommandResult, output: string) {
    // `env` and `timeout` say so themselves when the program behind them could not be started at all.
    const neverRan = result.exitCode >= 125 && result.exitCode <= 127 && /^(env|timeout): /m.test(result.stderr)
    super(`${render(command)} on ${where.host} ended with exit status ${result.exitCode}.`, {
      code: 'command-failed',
      outcome: neverRan ? 'not_started' : 'failed_partial',
      remedy: neverRan
        ? `Check as ${where.user} on ${where.host} that the program is installed and the directory is there.`
        : `Read the output, put right what it names on ${where.host}, then retry: what is done already is not done twice.`,
      output,
    })
    this.exitCode = result.exitCode
    this.result = result
  }
}

/** Thrown when a command's time was up. What it had done by then is not known. */
export class CommandTimedOut extends OperationError {
  constructor(where: Where, command: Command, options: { timeoutMs: number; ended: boolean; output: string }) {
    const fate = options.ended ? 'and was ended there' : 'and whether it was ended there is not known'
    super(`${render(command)} on ${where.host} took longer than ${options.timeoutMs} ms, ${fate}.`, {
      code: 'command-timed-out',
      outcome: 'unknown',
      remedy: `Look at what the command left on ${where.host}, and at the load there, before you retry.`,
      output: options.output,
    })
  }
}

/** Thrown when the connection went away during a command: it may have ended well, failed, or still be running. */
export class ConnectionLost extends OperationError {
  constructor(where: Where, command: Command, output: string, outcome: Outcome = 'unknown', cause?: unknown) {
    super(`The SSH connection to ${name(where)} was lost during ${render(command)}.`, {
      code: 'connection-lost',
      outcome,
      remedy:
        `Check that ${where.host} is up. The command may have gone on there: retry, which looks at the host first, ` +
        `or look for it yourself (${where.user === undefined ? 'on' : `as ${where.user} on`} ${where.host}: ps -ef).`,
      output,
      cause,
    })
  }
}

/** Thrown when a detached command cannot be followed any further. It goes on, or has ended: nobody here knows. */
export class DetachedCommandUnwatched extends OperationError {
  constructor(where: Where, id: string, cause: OperationError, output: string) {
    super(`The detached command ${id} on ${where.host} can no longer be followed: ${cause.message}`, {
      code: cause instanceof HostUnreachable ? 'connection-lost' : cause.code,
      outcome: 'unknown',
      remedy: `It goes on without us, and a repeat of the call finds it there. ${cause.remedy}`,
      output,
      cause,
    })
  }
}

/** Thrown when a detached command was started and is gone without an exit status: killed, or the host was restarted. */
export class DetachedCommandLost extends OperationError {
  constructor(where: Where, id: string, output: string) {
    super(`The detached command ${id} on ${where.host} is gone, and left no exit status.`, {
      code: 'detached-command-lost',
      outcome: 'unknown',
      remedy:
        `It was killed, or ${where.host} was restarted. See journalctl -u understudy-${id} and ` +
        `/var/lib/understudy/jobs/${id}/log there (as root), then retry.`,
      output,
    })
  }
}

/** Thrown when the host's lock of a cluster was not had in time. */
export class GuardBusy extends OperationError {
  constructor(where: Where, scope: string) {
    super(`Another command of the cluster ${scope} still runs on ${where.host}.`, {
      code: 'guard-busy',
      outcome: 'not_started',
      remedy:
        `Wait for it and retry. To see what holds the lock, as root on ${where.host}: ` +
        `fuser -v /var/lib/understudy/${scope}.lock`,
    })
  }
}

/** Thrown when the host has seen a newer epoch of a cluster than the caller's. */
export class Superseded extends OperationError {
  constructor(where: Where, scope: string, epoch: number, newerEpoch: number) {
    super(
      `A newer worker (epoch ${newerEpoch}, ours is ${epoch}) has taken over the cluster ${scope} on ${where.host}.`,
      {
        code: 'superseded',
        outcome: 'not_started',
        remedy: `Nothing was done on ${where.host}. Follow the operation of the newer worker instead.`,
      },
    )
  }
}
