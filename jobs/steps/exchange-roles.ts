/**
 * The heart of a switchover: the primary is stopped for good, the standby has its last byte, the standby is promoted.
 * Until the standby is told, everything can go back; from then on nothing does, whatever the answer.
 *
 * Never two primaries:
 * - `standby.signal` is on the old primary's disk before it is told to stop, so that whatever starts it afterwards (a boot, a
 *   person) starts a standby.
 * - The standby is told only once the old one's last process is gone and its control file says that it was shut down in order.
 * - That it is told is written to its disk first, and each turn begins with looking for that mark (`tell-standby.ts`).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Lsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { upstreamOf } from '../../src/cluster/topology.js'
import { changing } from '../../src/host/actions.js'
import { type Command, render } from '../../src/host/command.js'
import { CommandFailed, Superseded } from '../../src/host/errors.js'
import type { Host } from '../../src/host/host.js'
import { EXCHANGE_STEP } from '../../src/operations/operation.js'
import type { Action, ChangeStep, Check, StepContext } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { until } from '../until.js'
import {
  OldPrimaryDown,
  PromotionUncertain,
  StopUncertain,
  SwitchoverTakenBack,
  TwoPrimaries,
} from './exchange-errors.js'
import { GO_BACK, parseStopped, STOP, type Stopped } from './exchange-scripts.js'
import { inOneGo, insist } from './in-one-go.js'
import { superuser } from './local-sql.js'
import { type Telling, tellStandby, wasTold } from './tell-standby.js'

const REPLAY_MS = 10_000
/** For one look at the standby. */
const LOOK_MS = 2000
const SILENCE_MS = 60_000
/** A crash recovery may take its time; the person who waits is told sooner. */
const BACK_MS = 300_000

export function exchangeRoles(bench: Bench, from: ClusterNode, to: ClusterNode, deadlineMs: number): ChangeStep {
  const { layout } = bench
  const stop: Command = {
    argv: [
      ...['sh', '-c', STOP, 'understudy-stop-primary', layout.dataDirectory],
      ...[`${layout.binDirectory}/pg_controldata`, String(deadlineMs)],
    ],
    as: 'root',
    timeoutMs: deadlineMs + 30_000,
    shownAs: `write ${layout.dataDirectory}/standby.signal, then end the server (kill -INT: mode fast) within ${deadlineMs} ms`,
  }
  const exchange: Action = {
    description: {
      kind: 'command',
      text: `on ${from.name}: ${render(stop)}; on ${to.name}, once its last checkpoint is replayed there: SELECT pg_promote()`,
    },
    perform: context => inOneGo(context, signal => new Exchange(bench, from, to, stop, context, signal).run()),
  }
  return {
    id: EXCHANGE_STEP,
    kind: 'change',
    title: `stop ${from.name} and promote ${to.name}`,
    actions: [exchange],
    async check({ signal }): Promise<Check> {
      const [old, next] = await Promise.all([bench.inspect(from, signal), bench.inspect(to, signal)])
      if (next.inRecovery === false) {
        if (old.running && old.inRecovery !== true) throw new TwoPrimaries(bench.cluster.name, from.name, to.name)
        // It was not stopped by us: started, it would be a primary beside the new one.
        if (!old.running && !old.standbySignal) throw new TwoPrimaries(bench.cluster.name, from.name, to.name)
        return { done: true, note: `${to.name} is the primary, on timeline ${next.timeline ?? 'unknown'}` }
      }
      return {
        done: false,
        reason:
          old.running && old.inRecovery === false
            ? `${from.name} is the primary`
            : `${from.name} is stopped, and ${to.name} is not promoted yet`,
      }
    },
  }
}

/** One try of one worker. */
class Exchange {
  private readonly begun = performance.now()
  private readonly telling: Telling

  constructor(
    private readonly bench: Bench,
    private readonly from: ClusterNode,
    private readonly to: ClusterNode,
    private readonly stop: Command,
    private readonly context: StepContext,
    private readonly signal: AbortSignal,
  ) {
    const uncertain = (detail: string) => new PromotionUncertain(from.name, to.name, detail)
    this.telling = { bench, to, context, signal, uncertain }
  }

  private on(node: ClusterNode): Host {
    return changing(this.bench.host(node), this.bench.cluster.name, this.context.epoch)
  }

  private log(line: string): void {
    this.context.log(`${line} (after ${Math.round(performance.now() - this.begun)} ms)`)
  }

  async run(): Promise<void> {
    const { bench, from, to, signal } = this
    let before = await bench.inspect(from, signal)
    // A server that starts, or is too busy to say, may be a primary.
    await until(`${from.name} says whether it accepts writes`, SILENCE_MS, this.context, async () => {
      if (before.running && before.inRecovery === undefined) before = await bench.inspect(from, signal)
      return !(before.running && before.inRecovery === undefined)
    })
    const writes = before.running && before.inRecovery === false
    // A mark of another operation, under a primary that writes, is of long ago.
    if (await wasTold(this.telling, writes ? 'forget' : 'keep')) {
      if (writes || !before.standbySignal) throw new TwoPrimaries(bench.cluster.name, from.name, to.name)
      this.log(`${to.name} was told before`)
      await tellStandby(this.telling, { again: true })
      this.log(`${to.name}: promoted`)
      return
    }
    if (before.running && before.inRecovery === true)
      await this.goBack(`${from.name} was started as a standby in the middle of the switchover.`, 'INT')
    const stopped = await this.stopOld()
    this.log(`${from.name}: ${stopped.busy.length === 0 ? 'ended' : 'not ended'}, ${stopped.state}`)
    if (stopped.busy.length > 0)
      await this.goBack(`it had not ended in time; what was left of it: ${stopped.busy.join('; ')}.`)
    if (stopped.state !== 'shut down') {
      await this.goBack(
        `its control file says "${stopped.state}" and not "shut down", so that nobody knows whether ${to.name} has its last byte.`,
      )
    }
    await this.untilReplayed(stopped.checkpoint)
    const told = await tellStandby(this.telling, { again: false })
    if (!told.promoted) await this.goBack(`${to.name} could not be told to become the primary: ${told.said}`)
    this.log(`${to.name}: promoted`)
  }

  private async stopOld(): Promise<Stopped> {
    const { bench, from, signal } = this
    try {
      const { stdout } = await this.insist(() => this.on(from).run(this.stop, { signal }))
      return parseStopped(stdout)
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error
      const now = await bench.inspect(from, signal)
      if (now.running && now.inRecovery === false && !now.standbySignal) throw error
      return this.goBack(`its stop could not be carried out: ${error.result.stderr.trim() || error.message}`)
    }
  }

  /** The position after the last record is beyond its beginning: a record that begins at `checkpoint` is then replayed. */
  private async untilReplayed(checkpoint: Lsn): Promise<void> {
    const { bench, to, signal } = this
    const deadline = performance.now() + REPLAY_MS
    let said: string | undefined
    for (;;) {
      try {
        const replayed = await bench.ask(to, { signal, timeoutMs: LOOK_MS }, async query => {
          for (;;) {
            const [row] = await query('SELECT pg_last_wal_replay_lsn() > $1::pg_lsn AS replayed', [checkpoint])
            if (row?.replayed === true) return true
            if (performance.now() > deadline) return false
            await sleep(10)
          }
        })
        if (replayed) return
        said = undefined
      } catch (error) {
        signal.throwIfAborted()
        said = error instanceof Error ? error.message : String(error)
      }
      if (performance.now() > deadline) break
      await sleep(250)
    }
    await this.goBack(
      said === undefined
        ? `${to.name} had not replayed its last checkpoint after ${REPLAY_MS / 1000} s.`
        : `${to.name} could not be asked whether it has replayed its last checkpoint: ${said}`,
    )
  }

  private insist<T>(run: () => Promise<T>): Promise<T> {
    return insist(this.signal, detail => new StopUncertain(this.from.name, this.to.name, detail), run)
  }

  /** Always throws: the roles are as they were, or it is said what is not. Only where the standby was not told. */
  private async goBack(why: string, how: 'INT' | 'QUIT' = 'QUIT'): Promise<never> {
    const { bench, from, to, signal, context } = this
    const { layout } = bench
    this.log(`going back: ${why}`)
    try {
      await this.insist(() =>
        this.on(from).run(
          {
            argv: ['sh', '-c', GO_BACK, 'understudy-go-back', layout.dataDirectory, layout.unit, how],
            as: 'root',
            timeoutMs: 90_000,
            shownAs: `remove ${layout.dataDirectory}/standby.signal; systemctl start ${layout.unit}`,
          },
          { signal },
        ),
      )
      const deadline = performance.now() + BACK_MS
      for (;;) {
        const found = await bench.inspect(from, signal).catch(() => undefined)
        if (found?.inRecovery === false) break
        signal.throwIfAborted()
        if (performance.now() > deadline) throw new Error(`it did not accept writes within ${BACK_MS / 1000} s.`)
        await sleep(250)
      }
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof Superseded) throw error
      throw new OldPrimaryDown(
        from.name,
        layout.dataDirectory,
        why,
        error instanceof Error ? error.message : String(error),
      )
    }
    await this.dropUnused().catch(error => context.log(`slots on ${to.name} were left: ${error}`))
    throw new SwitchoverTakenBack(from.name, to.name, why)
  }

  /** The slots that were made for the new order would keep WAL on a standby that nobody streams from. */
  private async dropUnused(): Promise<void> {
    const { bench, from, to, signal } = this
    const { nodes } = bench.cluster
    const below = nodes.filter(node => node !== from && node !== to && upstreamOf(node, nodes, from) === to)
    const quoted = (of: readonly ClusterNode[]) => of.map(({ nodeId }) => `'${slotName(nodeId)}'`).join(', ') || "''"
    const { psql, port, database } = superuser(bench)
    await this.on(to).run(
      {
        argv: [psql, '-XAtqw', '-p', String(port), '-d', database, '-f', '-'],
        as: 'postgres',
        stdin: `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active AND slot_name IN (${quoted(nodes)}) AND slot_name NOT IN (${quoted(below)});\n`,
        timeoutMs: 15_000,
      },
      { signal },
    )
  }
}
