/** How an exchange of roles can end, other than well. */
import { OperationError } from '../../src/operations/errors.js'
import type { Obstacle } from './obstacle.js'

/** Thrown when the roles could not be exchanged, and the old primary is the primary again. */
export class SwitchoverTakenBack extends OperationError {
  constructor(from: string, to: string, why: string, inTheWay: readonly Obstacle[]) {
    super([`${from} is the primary as before: ${why}`, ...inTheWay.map(({ detail }) => detail)].join(' '), {
      code: 'switchover-taken-back',
      outcome: 'failed_clean',
      remedy: [
        ...new Set(inTheWay.map(({ remedy }) => remedy)),
        `${to} was not promoted; ask for the switchover again once what was in the way is not there any more.`,
      ].join(' '),
    })
  }
}

/** Thrown when the primary was told to stop, and its host does not say what came of it. */
export class StopUncertain extends OperationError {
  constructor(from: string, to: string, detail: string) {
    super(`${from} was told to stop, and it is not known whether it has: ${detail} ${to} was not promoted.`, {
      code: 'stop-uncertain',
      outcome: 'unknown',
      remedy: `Bring the host of ${from} back, then retry the operation: it makes ${from} the primary again or finishes the switchover. Promote nothing by hand before you know that ${from} is stopped and has a standby.signal in its data directory.`,
    })
  }
}

/** Thrown when the standby was told to become the primary, or may have been, and nobody can say whether it has. */
export class PromotionUncertain extends OperationError {
  constructor(from: string, to: string, detail: string) {
    super(`It is not known whether ${to} was told to become the primary, or has become it: ${detail}`, {
      code: 'promotion-uncertain',
      outcome: 'unknown',
      remedy: `Bring ${to} back, or look there whether it accepts writes (SELECT pg_is_in_recovery()), then retry the operation: it goes on from here. ${from} would start as a standby; make it a primary only when ${to} is known to be stopped.`,
    })
  }
}

/** Thrown when the old primary was to be the primary again, and did not come up in time. */
export class OldPrimaryDown extends OperationError {
  constructor(from: string, dataDirectory: string, why: string, detail: string) {
    super(
      `The switchover was taken back (${why}), and ${from} does not accept writes again yet: ${detail} No other server was promoted.`,
      {
        code: 'old-primary-down',
        outcome: 'failed_partial',
        remedy: `Retry the operation: it takes back what is left. By hand on ${from}: look at the server’s log (/var/log/postgresql), remove ${dataDirectory}/standby.signal where it is there, and start it. It holds every commit.`,
      },
    )
  }
}

/** Thrown when two servers accept writes, or would as soon as one is started. Neither is touched. */
export class TwoPrimaries extends OperationError {
  constructor(cluster: string, from: string, to: string) {
    super(`${from} and ${to} of ${cluster} both accept writes, or would once they are started.`, {
      code: 'two-primaries',
      outcome: 'unknown',
      remedy: 'Decide which one is right, and keep the other stopped, before anything else.',
    })
  }
}
