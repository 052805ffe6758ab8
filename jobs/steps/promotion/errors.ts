/** How a promotion can be refused, or end, other than well. */
import { OperationError } from '../../../src/operations/errors.js'

/** Thrown when the primary answers somebody, so that roles had better be exchanged and not taken. */
export class PrimaryAlive extends OperationError {
  constructor(cluster: string, primary: string, how: readonly string[]) {
    super(`${primary} lives: ${how.join(' ')}`, {
      code: 'primary-alive',
      outcome: 'not_started',
      remedy: `To make another node the primary while it lives, without losing a commit: POST /v1/clusters/${cluster}/switchover. To take its place all the same: "force": true, which stops it.`,
    })
  }
}

/** What is missing for a promotion that cannot go wrong, and what would be risked without it. */
export interface Obstacle {
  detail: string
  remedy: string
  /** Undefined: no force helps. */
  risk?: string
}

/** Thrown when a promotion could make two primaries, or lose more than was allowed. Everything is told at once. */
export class PromotionUnsafe extends OperationError {
  constructor(obstacles: readonly Obstacle[], outcome: 'not_started' | 'failed_clean' = 'not_started') {
    super(obstacles.map(({ detail }) => detail).join(' '), {
      code: 'promotion-unsafe',
      outcome,
      remedy: [...new Set(obstacles.map(({ remedy }) => remedy))].join(' '),
    })
  }
}

/** Thrown when it was given up half-way, and everything could be put back as it was. */
export class PromotionTakenBack extends OperationError {
  constructor(why: string, remedy: string, left: readonly string[]) {
    const rest = left.length === 0 ? 'Everything is as it was.' : left.join(' ')
    super(`Nobody was promoted: ${why} ${rest}`, {
      code: 'promotion-taken-back',
      outcome: left.length === 0 ? 'failed_clean' : 'failed_partial',
      remedy,
    })
  }
}

/** Thrown when a standby was told to become the primary, or may have been, and nobody can say whether it has. */
export class PromotionUnknown extends OperationError {
  constructor(to: string, detail: string) {
    super(`It is not known whether ${to} has become the primary: ${detail}`, {
      code: 'promotion-unknown',
      outcome: 'unknown',
      remedy: `Look on ${to} whether it accepts writes (SELECT pg_is_in_recovery()), bring it back, then retry the operation: it goes on from there. Promote no other node by hand meanwhile.`,
    })
  }
}

/** Thrown when a standby was promoted, and something that comes after it failed. Nothing goes back. */
export class PromotionUnfinished extends OperationError {
  constructor(to: string, cause: unknown) {
    const said = cause instanceof Error ? cause.message : String(cause)
    super(`${to} was told to become the primary, and what comes after that could not be finished: ${said}`, {
      code: 'promotion-unfinished',
      outcome: 'failed_partial',
      remedy: `Retry the operation: it goes on from there. ${to} is the primary, or becomes it; keep the old one stopped.`,
      cause,
    })
  }
}

/** Thrown when another operation has told a standby, and it is not known what came of it. */
export class PromotionPending extends OperationError {
  constructor(to: string, operation: string) {
    super(`${to} was told to become the primary by operation ${operation}, and has not yet.`, {
      code: 'promotion-pending',
      outcome: 'not_started',
      remedy: `POST /v1/operations/${operation}/retry goes on with it. If it must not become one: remove the file "promote" in its data directory, then repeat this call.`,
    })
  }
}
