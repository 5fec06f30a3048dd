/**
 * Sweep: benchmarks of several combinations, whose iterations alternate in random order, so that a
 * noisy minute slows all of them alike.
 *
 *     load A   load B   warm up a1 a2 b1   │ b1 a2 a1 │ a1 b1 a2 │ …   report a1 a2 b1
 *              └ models of one round ┘       iteration 1, 2, …, shuffled
 *
 * Combinations that differ in lengths alone share a loaded model. Models that do not fit in memory
 * together run in rounds. A combination that fails is a result with its reason.
 *
 * @module
 */
import { DeviceError } from "../../kernels/errors.ts";
import { threefry } from "../../kernels/ops/sample/mod.ts";
import { DEFAULTS } from "../defaults.ts";
import { type BenchmarkOptions, type BenchmarkProgress, BenchmarkRun } from "./benchmark.ts";
import { messageOf } from "../errors.ts";
import type { Loadable, LoadCheck } from "../load.ts";
import { MOST_BYTES } from "./limit.ts";
import type { Model } from "../model.ts";
import type { BenchmarkReport } from "./report.ts";
import { RemainingTime } from "./remaining_time.ts";

/** Combinations that share a loaded model. */
export interface SweepGroup<T> {
  readonly members: readonly T[];
  /**
   * Loads the model.
   * @param check called before its weights are read.
   */
  load(check: LoadCheck): Promise<Model>;
}

/** Options of a sweep. */
export interface SweepOptions<T> {
  /** Settings of a combination. @throws {RangeError} If it does not fit the model. */
  readonly settings: (member: T, model: Loadable) => BenchmarkOptions;
  /** Seed of the order of iterations. */
  readonly seed: number;
  /** Iterations of each combination. */
  readonly iters: number;
  /** Bytes of memory for the models of a round. */
  readonly room: number;
  /** Ends the sweep; results of finished iterations stay. */
  readonly signal?: AbortSignal;
  /** Called before the models of another round are loaded, with the number of models left. */
  readonly onRound?: (models: number) => void;
  /** Called as a combination fails. */
  readonly onFailure?: (member: T, reason: string) => void;
  readonly onProgress?: (progress: SweepProgress<T>) => void;
  /** Called with each report while its model is still loaded; not after an interrupt. */
  readonly onReport?: (member: T, report: BenchmarkReport, model: Model) => Promise<void>;
}

/** Progress of a sweep. */
export interface SweepProgress<T> {
  readonly member: T;
  readonly stage: BenchmarkProgress["stage"] | "load" | "report";
  /** Progress of the stage, of a run's own stages only. */
  readonly run?: BenchmarkProgress;
  /** Share of the whole sweep that is done, 0 to 1. */
  readonly share: number;
  /** Estimated ms to the end of the sweep; null while unknown. */
  readonly leftMs: number | null;
}

/** Result of a combination: a report, a reason, or neither if the sweep was ended before. */
export interface SweepResult<T> {
  readonly member: T;
  readonly report?: BenchmarkReport;
  readonly error?: string;
}

/** Milliseconds before an iteration: threads of another model spin for 1.5 ms after their run. */
const REST_MS = 5;

/** Memory that a thread of WebAssembly takes beside the model: 11 MiB measured. */
const THREAD_BYTES = 16 * 2 ** 20;

/** Memory of a model and of measuring its limits, in this process; a GPU has its own. */
function bytesOf({ memory, backend }: Loadable): number {
  const bytes = backend.onGpu && !backend.software ? 0 : memory.total;
  return bytes + Math.min(bytes, MOST_BYTES) + backend.threads * THREAD_BYTES;
}

/** Refuses a model that does not fit beside those that are loaded. */
class RoundFull extends Error {}

/**
 * Runs a sweep.
 * @returns a result for each combination, in the order of the groups.
 */
export async function sweep<T>(
  groups: readonly SweepGroup<T>[],
  options: SweepOptions<T>,
): Promise<SweepResult<T>[]> {
  const state = new Sweep(groups, options);
  let left = [...groups];
  while (left.length && !options.signal?.aborted) {
    if (left.length < groups.length) options.onRound?.(left.length);
    left = await state.round(left);
  }
  return groups.flatMap(({ members }) => members.map((member) => state.resultOf(member)));
}

/** A run of a combination in the current round. */
interface Entry<T> {
  readonly member: T;
  readonly model: Model;
  readonly run: BenchmarkRun;
}

/** A sweep under way. */
class Sweep<T> {
  readonly #options: SweepOptions<T>;
  readonly #results = new Map<T, SweepResult<T>>();
  readonly #time: RemainingTime<T>;
  #rounds = 0;

  constructor(groups: readonly SweepGroup<T>[], options: SweepOptions<T>) {
    this.#options = options;
    const members = groups.flatMap((group) => [...group.members]);
    this.#time = new RemainingTime(members, groups.map((group) => group.members[0]), options.iters);
  }

  resultOf(member: T): SweepResult<T> {
    return this.#results.get(member) ?? { member };
  }

  /** Runs the models that fit in memory together. Returns the groups that are left. */
  async round(groups: readonly SweepGroup<T>[]): Promise<SweepGroup<T>[]> {
    await using models = new AsyncDisposableStack();
    const { entries, left } = await this.#load(groups, models);
    let running = await this.#each(entries, ({ run, member }) => {
      return this.#time.step("warmup", member, () => run.warmUp());
    });
    const turns = this.#rounds++ * this.#options.iters;
    for (let i = 0; i < this.#options.iters && running.length; i++) {
      const order = shuffled(running, this.#options.seed, turns + i);
      const done = await this.#each(order, async ({ run, member }) => {
        await new Promise((resolve) => setTimeout(resolve, REST_MS));
        await this.#time.step("iteration", member, () => run.iterate());
      });
      running = running.filter((entry) => done.includes(entry));
    }
    for (const entry of entries) await this.#report(entry);
    return left;
  }

  /** Loads models until one does not fit. */
  async #load(
    groups: readonly SweepGroup<T>[],
    models: AsyncDisposableStack,
  ): Promise<{ entries: Entry<T>[]; left: SweepGroup<T>[] }> {
    const entries: Entry<T>[] = [];
    let held = 0;
    for (const [i, group] of groups.entries()) {
      if (this.#aborted) break;
      const [first] = group.members;
      let loadable: Loadable | undefined;
      const settings = new Map<T, BenchmarkOptions>();
      const check = (model: Loadable) => {
        loadable = model;
        this.#settle(group, model, settings);
        if (held && held + bytesOf(model) > this.#options.room) throw new RoundFull();
      };
      try {
        this.#show(first, "load");
        const model = models.use(await this.#time.step("load", first, () => group.load(check)));
        held += bytesOf(loadable!);
        for (const [member, option] of settings) {
          const run = this.#start(member, model, option);
          if (run) entries.push({ member, model, run: models.use(run) });
        }
      } catch (error) {
        if (this.#aborted) break;
        // Memory ran out beside the other models: alone, it may fit.
        const isFull = error instanceof RoundFull ||
          held && loadable && error instanceof DeviceError;
        if (isFull) return { entries, left: groups.slice(i) };
        for (const member of group.members) this.#fail(member, error);
      }
    }
    return { entries, left: [] };
  }

  /** Fits each combination of a group to its model. @throws the last reason, if none fits. */
  #settle(group: SweepGroup<T>, model: Loadable, settings: Map<T, BenchmarkOptions>): void {
    let reason: unknown;
    for (const member of group.members) {
      try {
        settings.set(member, this.#options.settings(member, model));
      } catch (error) {
        this.#fail(member, reason = error);
      }
    }
    if (!settings.size) throw reason;
  }

  #start(member: T, model: Model, settings: BenchmarkOptions): BenchmarkRun | null {
    const { iters, signal } = this.#options;
    const onProgress = (run: BenchmarkProgress) => {
      this.#time.predict(member, run, settings.genTokens ?? DEFAULTS.genTokens);
      this.#show(member, run.stage, run);
    };
    try {
      return new BenchmarkRun(model, { ...settings, iters, signal, onProgress });
    } catch (error) {
      this.#fail(member, error);
      return null;
    }
  }

  /** Runs a step of every entry. Returns the entries whose step succeeded. */
  async #each(
    entries: readonly Entry<T>[],
    step: (entry: Entry<T>) => Promise<void>,
  ): Promise<Entry<T>[]> {
    const done: Entry<T>[] = [];
    for (const entry of entries) {
      if (this.#aborted) break;
      try {
        await step(entry);
        done.push(entry);
      } catch (error) {
        if (!this.#aborted) this.#fail(entry.member, error);
      }
    }
    return done;
  }

  async #report({ member, model, run }: Entry<T>): Promise<void> {
    if (!run.done || this.#results.has(member)) return;
    let report: BenchmarkReport;
    try {
      this.#show(member, "report");
      report = await this.#time.step("report", member, () => run.report());
    } catch (error) {
      return this.#fail(member, error);
    }
    this.#results.set(member, { member, report });
    if (!this.#aborted) await this.#options.onReport?.(member, report, model);
  }

  get #aborted(): boolean {
    return this.#options.signal?.aborted ?? false;
  }

  #fail(member: T, error: unknown): void {
    if (this.#results.has(member)) return;
    const reason = messageOf(error);
    this.#results.set(member, { member, error: reason });
    this.#time.drop(member);
    this.#options.onFailure?.(member, reason);
  }

  #show(member: T, stage: SweepProgress<T>["stage"], run?: BenchmarkProgress): void {
    const { share, leftMs } = this.#time;
    this.#options.onProgress?.({ member, stage, run, share, leftMs });
  }
}

/** A random order of items: Fisher–Yates, with draws from the seed and the turn. */
export function shuffled<T>(items: readonly T[], seed: number, turn: number): T[] {
  const order = [...items];
  const [low, high] = [seed >>> 0, Math.floor(seed / 2 ** 32)];
  for (let i = order.length - 1; i > 0; i--) {
    const j = threefry(low, high, turn, i) % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
