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
import { keptFromReplaying, keptFromStopping, readReplay, readSessions, type Session } from './in-the-way.js'
import { superuser } from './local-sql.js'
import type { Obstacle } from './obstacle.js'
import { type Telling, tellStandby, wasTold } from './tell-standby.js'

/** For one look at a server. */
const LOOK_MS = 2000
const SILENCE_MS = 60_000
/** A crash recovery may take its time; the person who waits is told sooner. */
const BACK_MS = 300_000

const stopCommand = ({ layout }: Bench, deadlineMs: number): Command => ({
  argv: [
    ...['sh', '-c', STOP, 'understudy-stop-primary', layout.dataDirectory],
    ...[`${layout.binDirectory}/pg_controldata`, String(deadlineMs)],
  ],
  as: 'root',
  timeoutMs: deadlineMs + 30_000,
  shownAs: `write ${layout.dataDirectory}/standby.signal, then end the server (kill -INT: mode fast) within ${deadlineMs} ms`,
})

/** `deadlineMs`: for the stop and the replay together. Past it, unless the standby was told, everything goes back. */
export function exchangeRoles(bench: Bench, from: ClusterNode, to: ClusterNode, deadlineMs: number): ChangeStep {
  const exchange: Action = {
    description: {
      kind: 'command',
      text: `on ${from.name}: ${render(stopCommand(bench, deadlineMs))}; on ${to.name}, once its last checkpoint is replayed there: SELECT pg_promote()`,
    },
    perform: context => inOneGo(context, signal => new Exchange(bench, from, to, deadlineMs, context, signal).run()),
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
  private readonly stop: Command

  constructor(
    private readonly bench: Bench,
    private readonly from: ClusterNode,
    private readonly to: ClusterNode,
    private readonly deadlineMs: number,
    private readonly context: StepContext,
    private readonly signal: AbortSignal,
  ) {
    const uncertain = (detail: string) => new PromotionUncertain(from.name, to.name, detail)
    this.telling = { bench, to, context, signal, uncertain }
    this.stop = stopCommand(bench, deadlineMs)
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
    // A server that starts, or is too busy to say, may be a primary. With the signal it was told to stop, and time passes.
    const unclear = () => before.running && before.inRecovery === undefined && !before.standbySignal
    await until(`${from.name} says whether it accepts writes`, SILENCE_MS, this.context, async () => {
      if (unclear()) before = await bench.inspect(from, signal)
      return !unclear()
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
      await this.goBack(`${from.name} was started as a standby in the middle of the switchover.`, [], 'INT')
    const sessions = writes ? await this.sessionsNow() : []
    const stopped = await this.stopOld()
    this.log(`${from.name}: ${stopped.busy.length === 0 ? 'ended' : 'not ended'}, ${stopped.state}`)
    if (stopped.busy.length > 0) {
      const kept = keptFromStopping(from.name, stopped, sessions, bench.cluster.nodes)
      await this.goBack(`it had not ended in time (${this.deadlineMs} ms).`, kept)
    }
    if (stopped.state !== 'shut down') {
      await this.goBack(
        `its control file says "${stopped.state}" and not "shut down", so that nobody knows whether ${to.name} has its last byte.`,
      )
    }
    await this.untilReplayed(stopped)
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

  /** For the answer, where one of them keeps it from ending: a server that is told to stop lets nobody in to ask. */
  private async sessionsNow(): Promise<Session[]> {
    const { bench, from, signal, context } = this
    try {
      return await bench.ask(from, { signal, timeoutMs: LOOK_MS }, readSessions)
    } catch (error) {
      context.log(`the sessions of ${from.name} could not be read: ${error}`)
      return []
    }
  }

  /** The position after the last record is beyond its beginning: a record that begins at `checkpoint` is then replayed. */
  private async untilReplayed({ checkpoint, leftMs }: Stopped): Promise<void> {
    const { bench, to, signal } = this
    const deadline = performance.now() + leftMs
    let kept: Obstacle[] = []
    do {
      try {
        const late = await bench.ask(to, { signal, timeoutMs: LOOK_MS }, async query => {
          for (;;) {
            const [row] = await query('SELECT pg_last_wal_replay_lsn() > $1::pg_lsn AS replayed', [checkpoint])
            if (row?.replayed === true) return undefined
            if (performance.now() > deadline) return readReplay(query)
            await sleep(10)
          }
        })
        if (late === undefined) return
        kept = keptFromReplaying(to.name, late, checkpoint)
      } catch (error) {
        signal.throwIfAborted()
        const said = error instanceof Error ? error.message : String(error)
        kept = [{ detail: `It could not be asked: ${said}`, remedy: `Look at the host of ${to.name} and at its log.` }]
        await sleep(100)
      }
    } while (performance.now() < deadline)
    await this.goBack(`${to.name} had not replayed its last checkpoint in time (${this.deadlineMs} ms).`, kept)
  }

  private insist<T>(run: () => Promise<T>): Promise<T> {
    return insist(this.signal, detail => new StopUncertain(this.from.name, this.to.name, detail), run)
  }

  /** Always throws: the roles are as they were, or it is said what is not. Only where the standby was not told. */
  private async goBack(why: string, kept: readonly Obstacle[] = [], how: 'INT' | 'QUIT' = 'QUIT'): Promise<never> {
    const { bench, from, to, signal, context } = this
    const { layout } = bench
    this.log(`going back: ${[why, ...kept.map(({ detail }) => detail)].join(' ')}`)
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
    throw new SwitchoverTakenBack(from.name, to.name, why, kept)
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
