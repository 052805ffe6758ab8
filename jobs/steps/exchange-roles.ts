/**
 * The heart of a switchover: the primary is stopped for good, the standby has its last byte, the standby is promoted.
 * Until the standby is told, everything can go back; from then on nothing does, whatever the answer.
 *
 * Never two primaries:
 * - `standby.signal` is on the old primary's disk before it is told to stop, so that whatever starts it afterwards (a boot, a
 *   person) starts a standby.
 * - The standby is told only once the old one's last process is gone and its control file says that it was shut down in order.
 * - That it is told is written to its disk first: a promotion may take effect minutes after it was asked for, and leaves no
 *   other trace meanwhile. With that mark nobody goes back, in this turn or in any later one.
 * - Each turn begins with a guarded command on the standby's host: from then on that host refuses a worker of before.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { upstreamOf } from '../../src/cluster/topology.js'
import { changing, runCommand } from '../../src/host/actions.js'
import { type Command, render } from '../../src/host/command.js'
import { CommandFailed, Superseded } from '../../src/host/errors.js'
import type { Host } from '../../src/host/host.js'
import { OperationError } from '../../src/operations/errors.js'
import { EXCHANGE_STEP } from '../../src/operations/operation.js'
import { WorkerGone } from '../../src/operations/run-plan.js'
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
import {
  BEHIND,
  GO_BACK,
  MARK,
  PROMOTE,
  PROMOTION_S,
  parseStopped,
  promotionMark,
  replayQuery,
  STOP,
  type Stopped,
  TELLING,
} from './exchange-scripts.js'
import { superuser } from './local-sql.js'

const REPLAY_MS = 10_000
const SILENCE_MS = 60_000
/** A crash recovery may take its time; the person who waits is told sooner. */
const BACK_MS = 300_000
/** How long a host that does not answer is asked again. */
const CERTAINTY_MS = 60_000

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
    perform: context => new Exchange(bench, from, to, stop, context).run(),
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

/** What a worker that died right after the promotion has left behind. */
export function clearPromotionMark(bench: Bench, to: ClusterNode): ChangeStep {
  const path = promotionMark(bench.cluster.name)
  const command: Command = { argv: ['rm', '-f', path], as: 'root', timeoutMs: 30_000 }
  return {
    id: `${to.name}/promotion-mark`,
    kind: 'change',
    title: 'forget that it was told to become the primary',
    node: to.name,
    actions: [runCommand(bench.host(to), bench.cluster.name, command)],
    async check({ signal }): Promise<Check> {
      const found = await bench
        .host(to)
        .run(
          { argv: ['test', '-e', path], as: 'root', timeoutMs: 30_000, shownAs: `see whether there is ${path}` },
          { signal, acceptExit: [0, 1] },
        )
      return found.exitCode === 1 ? { done: true } : { done: false, reason: `${path} is there` }
    },
  }
}

/** One try of one worker. */
class Exchange {
  private readonly whole = new AbortController()
  private readonly begun = performance.now()
  private readonly mark: string

  constructor(
    private readonly bench: Bench,
    private readonly from: ClusterNode,
    private readonly to: ClusterNode,
    private readonly stop: Command,
    private readonly context: StepContext,
  ) {
    this.mark = promotionMark(bench.cluster.name)
  }

  /** Though somebody calls it off: only another worker may take it from us. */
  private get signal(): AbortSignal {
    return this.whole.signal
  }

  private on(node: ClusterNode): Host {
    return changing(this.bench.host(node), this.bench.cluster.name, this.context.epoch)
  }

  private log(line: string): void {
    this.context.log(`${line} (after ${Math.round(performance.now() - this.begun)} ms)`)
  }

  async run(): Promise<void> {
    const { context } = this
    context.signal.throwIfAborted()
    const onAbort = () => {
      if (context.signal.reason instanceof WorkerGone) this.whole.abort(context.signal.reason)
    }
    context.signal.addEventListener('abort', onAbort)
    try {
      await this.exchange()
    } finally {
      context.signal.removeEventListener('abort', onAbort)
    }
  }

  private async exchange(): Promise<void> {
    const { bench, from, to, signal } = this
    let before = await bench.inspect(from, signal)
    // A server that starts, or is too busy to say, may be a primary.
    await until(`${from.name} says whether it accepts writes`, SILENCE_MS, this.context, async () => {
      if (before.running && before.inRecovery === undefined) before = await bench.inspect(from, signal)
      return !(before.running && before.inRecovery === undefined)
    })
    const writes = before.running && before.inRecovery === false
    if (await this.wasTold(writes)) {
      if (writes || !before.standbySignal) throw new TwoPrimaries(bench.cluster.name, from.name, to.name)
      this.log(`${to.name} was told before`)
      await this.tell('')
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
    await this.tell(replayQuery(stopped.checkpoint, REPLAY_MS))
  }

  /**
   * Whether this operation has told the standby already. A mark of another one, under a primary that writes, is of long ago.
   * From here on the host of the standby refuses every worker of before.
   */
  private async wasTold(primaryWrites: boolean): Promise<boolean> {
    const { stdout } = await this.insist(PromotionUncertain, () =>
      this.on(this.to).run(
        {
          argv: [
            ...['sh', '-c', MARK, 'understudy-mark', this.mark, this.context.operationId],
            ...[primaryWrites ? 'forget' : 'keep'],
          ],
          as: 'root',
          timeoutMs: 30_000,
          shownAs: `see whether ${this.to.name} was told already`,
        },
        { signal: this.signal },
      ),
    )
    if (stdout.trim() === 'other') {
      throw new PromotionUncertain(
        this.from.name,
        this.to.name,
        `${this.mark} there is of another operation, and ${this.from.name} does not accept writes.`,
      )
    }
    return stdout.trim() === 'told'
  }

  private async stopOld(): Promise<Stopped> {
    const { bench, from, signal } = this
    try {
      const { stdout } = await this.insist(StopUncertain, () => this.on(from).run(this.stop, { signal }))
      return parseStopped(stdout)
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error
      const now = await bench.inspect(from, signal)
      if (now.running && now.inRecovery === false && !now.standbySignal) throw error
      return this.goBack(`its stop could not be carried out: ${error.result.stderr.trim() || error.message}`)
    }
  }

  /** Waits for the replay, writes the mark, tells it, and stays until it is known what came of it. */
  private async tell(replay: string): Promise<void> {
    const { bench, to, signal, context } = this
    const { psql, port, database } = superuser(bench)
    const promote: Command = {
      argv: [
        ...['sh', '-c', PROMOTE, 'understudy-promote', psql, String(port), database],
        ...[this.mark, context.operationId, replay],
      ],
      as: 'root',
      timeoutMs: REPLAY_MS + PROMOTION_S * 1000 + 15_000,
      shownAs: `SELECT pg_promote()   # on ${to.name}, once it has replayed the last checkpoint`,
    }
    let answer: string
    try {
      answer = (await this.on(to).run(promote, { signal })).stdout
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof Superseded) throw error
      // Nothing reached the host, or the script ended before it wrote its mark.
      const told =
        error instanceof CommandFailed
          ? error.result.stdout.includes(TELLING)
          : !(error instanceof OperationError && error.outcome === 'not_started')
      if (!told && replay !== '') {
        const said = error instanceof CommandFailed ? error.result.stderr : error instanceof Error ? error.message : ''
        await this.goBack(
          said.includes(BEHIND)
            ? `${to.name} had not replayed its last checkpoint after ${REPLAY_MS / 1000} s.`
            : `${to.name} could not be asked whether it has replayed its last checkpoint: ${said.trim()}`,
        )
      }
      answer = error instanceof Error ? error.message : String(error)
    }
    if (!answer.trim().endsWith('\nt')) await this.untilCertain(answer)
    this.log(`${to.name}: promoted`)
    await this.on(to)
      .run({ argv: ['rm', '-f', this.mark], as: 'root', timeoutMs: 30_000 }, { signal })
      .catch(error => context.log(`the mark of the promotion was left: ${error}`))
  }

  /** It was told, or may have been: from here there is only one way. */
  private async untilCertain(said: string): Promise<void> {
    const { bench, from, to, signal } = this
    const deadline = performance.now() + CERTAINTY_MS
    for (;;) {
      const found = await bench.inspect(to, signal).catch(() => undefined)
      if (found?.inRecovery === false) return
      signal.throwIfAborted()
      if (performance.now() > deadline) throw new PromotionUncertain(from.name, to.name, said)
      await sleep(250)
    }
  }

  /** Asked again until it is known what came of it: an answer that got lost says nothing. What a host refuses is thrown. */
  private async insist<T>(
    Uncertain: new (from: string, to: string, detail: string) => OperationError,
    run: () => Promise<T>,
  ): Promise<T> {
    const deadline = performance.now() + CERTAINTY_MS
    for (;;) {
      try {
        return await run()
      } catch (error) {
        this.signal.throwIfAborted()
        if (!(error instanceof OperationError) || error instanceof Superseded || error instanceof CommandFailed)
          throw error
        if (performance.now() > deadline) throw new Uncertain(this.from.name, this.to.name, error.message)
        await sleep(1000)
      }
    }
  }

  /** Always throws: the roles are as they were, or it is said what is not. Only where the standby was not told. */
  private async goBack(why: string, how: 'INT' | 'QUIT' = 'QUIT'): Promise<never> {
    const { bench, from, to, signal, context } = this
    const { layout } = bench
    this.log(`going back: ${why}`)
    try {
      await this.insist(StopUncertain, () =>
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
