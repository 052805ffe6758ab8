import t from 'tap'
import type { Command } from '../../src/host/command.js'
import * as errors from '../../src/host/errors.js'
import { refusalOf } from '../../src/host/guard-refusal.js'
import { OperationError } from '../../src/operations/errors.js'

const where = { host: 'db1.example', port: 2222, user: 'deploy' }
const command: Command = { argv: ['pg_ctl', 'stop'], as: 'postgres', timeoutMs: 1000 }
const result = { exitCode: 3, stdout: '', stderr: 'pg_ctl: no server running\n', truncated: false, durationMs: 5 }

t.test('each says what state it left, names the host, and what to do', async t => {
  const all: [OperationError, string, string, RegExp][] = [
    [new errors.HostUnreachable(where, 'x'), 'host-unreachable', 'not_started', /ssh-keyscan -p 2222 db1\.example/],
    [
      new errors.HostKeyMismatch(where, 'SHA256:pin', [{ type: 'ssh-ed25519', fingerprint: 'SHA256:offered' }]),
      'host-key-mismatch',
      'not_started',
      /installed again.*attack.*ssh-keygen -lf \/etc\/ssh\/ssh_host_ed25519_key\.pub/s,
    ],
    [
      new errors.AuthenticationFailed(where, 'x'),
      'authentication-failed',
      'not_started',
      /deploy\/\.ssh\/authorized_keys/,
    ],
    [new errors.SudoRefused(where, 'x'), 'sudo-refused', 'not_started', /deploy ALL=\(ALL:ALL\) NOPASSWD.*visudo -c/],
    [new errors.CommandFailed(where, command, result, 'tail'), 'command-failed', 'failed_partial', /retry/],
    [
      new errors.CommandTimedOut(where, command, { timeoutMs: 1000, ended: true, output: '' }),
      'command-timed-out',
      'unknown',
      /Look at/,
    ],
    [new errors.ConnectionLost(where, command, 'tail'), 'connection-lost', 'unknown', /ps -ef/],
    [new errors.DetachedCommandLost(where, 'op-1', ''), 'detached-command-lost', 'unknown', /understudy-op-1/],
    [
      new errors.DetachedCommandUnwatched(where, 'op-1', new errors.HostUnreachable(where, 'x'), ''),
      'connection-lost',
      'unknown',
      /goes on without us.*repeat of the call finds it.*ssh-keyscan/,
    ],
    [new errors.GuardBusy(where, 'main'), 'guard-busy', 'not_started', /fuser -v \/var\/lib\/understudy\/main\.lock/],
    [new errors.Superseded(where, 'main', 3, 4), 'superseded', 'not_started', /Follow the operation/],
  ]
  for (const [error, code, outcome, remedy] of all) {
    t.ok(error instanceof OperationError)
    t.match(error, { code, outcome, remedy })
    t.match(`${error.message} ${error.remedy}`, /db1\.example/, code)
    t.notMatch(`${error.message} ${error.remedy}`, /undefined/, code)
  }
  t.match(all[1]?.[0].message, /SHA256:offered.*SHA256:pin is pinned/)
})

t.test('a program that could not be started has not done anything', async t => {
  const missing = { ...result, exitCode: 127, stderr: "timeout: failed to run command 'pg_ctl': No such file\n" }
  t.equal(new errors.CommandFailed(where, command, missing, '').outcome, 'not_started')
  // The same status from inside a script says nothing about what the script did before.
  t.equal(
    new errors.CommandFailed(where, command, { ...missing, stderr: 'sh: x: not found\n' }, '').outcome,
    'failed_partial',
  )
})

t.test('only what the guard itself says is a refusal', async t => {
  const busy = { exitCode: 75, stderr: 'understudy-guard: busy main 3 0\n' }
  t.ok(refusalOf(where, busy) instanceof errors.GuardBusy)
  t.ok(
    refusalOf(where, { exitCode: 76, stderr: 'understudy-guard: superseded main 3 9\n' }) instanceof errors.Superseded,
  )
  t.match(
    refusalOf(where, { exitCode: 76, stderr: 'understudy-guard: superseded main 3 9\n' })?.message,
    /epoch 9, ours is 3/,
  )
  t.equal(refusalOf(where, { exitCode: 75, stderr: 'temporary failure\n' }), undefined)
  t.equal(refusalOf(where, { ...busy, exitCode: 1 }), undefined)
})
