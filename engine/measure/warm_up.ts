/**
 * Engine warm-up: short passes, repeated until V8 has compiled them and their times are steady.
 *
 * V8 starts WebAssembly in its baseline compiler and replaces hot functions while they run: the
 * first of three iterations of the demo was 26 to 42 % slower than the third, against 4 % where the
 * optimising compiler comes first (`--no-liftoff`).
 *
 *     round      decode decode decode … prefill prefill …    100 ms, at least one pass of each
 *     steady     medians of both kinds within 3 % of the last round's
 *     end        steady, or 2 s
 *
 * @module
 */
import { median } from "../../kernels/profile.ts";
import type { Runner } from "../runner.ts";
import type { SamplingOptions } from "../sampler.ts";

/** Milliseconds of a warm-up at most. */
const BUDGET_MS = 2000;
/** Milliseconds of a round, unless single passes take longer. */
const ROUND_MS = 100;
/** Rounds of a warm-up at most. */
export const MOST_ROUNDS = BUDGET_MS / ROUND_MS;
/** Share by which the medians of two rounds may differ if times are steady. */
const STEADY_SHARE = 0.03;

/** Tokens that a pass of decode draws. */
const DRAWS = 16;
/** Milliseconds that the rows of a prefill may take, each at the time of one decode step. */
const PREFILL_MS = 500;

/** Outcome of a warm-up. */
export interface WarmUp {
  /** Time that it took, in ms. */
  ms: number;
  /** Number of whole rounds. */
  rounds: number;
  /** Whether the times of the last two rounds agree. */
  steady: boolean;
}

/** A kind of pass: runs it once and returns its time, in ms per token or in all. */
export type Pass = () => Promise<number>;

/** How passes are repeated. */
export interface RepeatOptions {
  readonly signal?: AbortSignal;
  /** Called after each round, with their number so far. */
  readonly onRound?: (rounds: number) => void;
  /** Clock, in ms; default `performance.now`. */
  readonly now?: () => number;
}

/**
 * Repeats passes until their times are steady or 2 s have passed. A pass that would end later,
 * judged by its last duration, is not started.
 * @throws the signal's reason, if it is aborted.
 */
export async function repeatUntilSteady(
  passes: readonly Pass[],
  { signal, onRound, now = () => performance.now() }: RepeatOptions = {},
): Promise<WarmUp> {
  const start = now();
  const durations = passes.map(() => 0);
  /** The median of each kind; null if the time is up within the round. */
  const runRound = async (): Promise<number[] | null> => {
    const medians: number[] = [];
    for (const [kind, pass] of passes.entries()) {
      const times: number[] = [];
      const end = now() + ROUND_MS / passes.length;
      do {
        signal?.throwIfAborted();
        const begin = now();
        if (begin - start + durations[kind] > BUDGET_MS) return null;
        times.push(await pass());
        durations[kind] = now() - begin;
      } while (now() < end);
      medians.push(median(times));
    }
    return medians;
  };
  let last: number[] | null = null;
  for (let rounds = 0;; rounds++) {
    const medians = await runRound();
    signal?.throwIfAborted();
    if (!medians) return { ms: now() - start, rounds, steady: false };
    onRound?.(rounds + 1);
    const steady = last?.every((ms, kind) => Math.abs(medians[kind] - ms) <= STEADY_SHARE * ms);
    if (steady) return { ms: now() - start, rounds: rounds + 1, steady };
    last = medians;
  }
}

/**
 * Warms up a model by decode steps and by prefills of the beginning of a prompt. A later generation
 * draws the same ids without it, for each one resets the seed and the cache.
 *
 * @param ids a prompt of at most S tokens.
 * @throws the signal's reason, if it is aborted.
 */
export async function warmUp(
  runner: Runner,
  ids: readonly number[],
  sampling: Required<SamplingOptions>,
  options: RepeatOptions,
): Promise<WarmUp> {
  const { signal } = options;
  const most = Math.min(DRAWS, runner.slots);
  let stepMs = 0;
  const decode = async () => {
    runner.startSampling(sampling, 0);
    await runner.prefill(ids.slice(0, 1), { signal });
    const start = performance.now();
    let drawn = 0;
    // A slow model stops before it has drawn all.
    while (drawn < most && performance.now() - start < ROUND_MS) {
      drawn += (await runner.draw(most - drawn, signal)).length;
    }
    return stepMs = (performance.now() - start) / drawn;
  };
  let head: readonly number[] | null = null;
  const prefill = async () => {
    // Chosen once, so that rounds are comparable. A row takes at most the time of a decode step.
    const rows = Math.max(1, Math.min(runner.chunk, Math.floor(PREFILL_MS / stepMs)));
    head ??= ids.slice(0, rows + 1);
    const start = performance.now();
    await runner.lastLogits(head, signal);
    return performance.now() - start;
  };
  return await repeatUntilSteady([decode, prefill], options);
}
