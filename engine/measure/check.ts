/**
 * Correctness check of a benchmark: a short greedy run on the measured backend and on typed arrays.
 *
 *     prompt [P] random ids ─▶ prefill ─▶ draw ─▶ draw ─▶ … D ids      the measured passes
 *                    │                     │       │
 *                    └────▶ the same on js, with weights read from the files once more
 *                                          │       │
 *     compared                        logits [V], id of each draw
 *
 * A draw after a wrong one is compared on the same text: the next step reads the plain run's id.
 * The plain run comes first, so that its time bounds the check: P and D follow from it.
 *
 *     tolerance = max(1e-3, r · max |logit|)        r = rounding of products + of the cache
 *     passed    = every logit within the tolerance, and every id's logit as close to the largest
 *
 * 1e-3 is more than the tests allow a backend; r is the rounding of large logits in F32, of
 * activations in integer products, and of keys and values that are stored in fewer bits: where two
 * backends compute them with other last bits, they may round to neighbouring codes. Ids of two
 * logits closer than the tolerance may differ.
 *
 * @module
 */
import { DeviceError } from "../../kernels/errors.ts";
import { KV_FORMATS, type KvDtype } from "../../kernels/formats/kv.ts";
import { isPlain } from "../../kernels/mod.ts";
import { NOT_FINITE } from "../../kernels/ops/sample/mod.ts";
import { DEFAULTS } from "../defaults.ts";
import { CheckpointError, messageOf } from "../errors.ts";
import { instrumentsOf, type Model } from "../model.ts";
import type { Runner } from "../runner.ts";
import { isQuantised } from "../weights/mod.ts";
import { drawPrompt } from "./prompt.ts";
import type { CheckReport } from "./report.ts";

/**
 * Milliseconds of the plain run at most, estimated before it loads. On one core of an EPYC,
 * SmolLM2-135M in BF16 takes 2.0 s, the demo 0.3 s.
 */
const MOST_MS = 2000;
/** Rates of the estimate: bytes loaded, and FLOPs of typed arrays in F16, their slowest dtype. */
const PLAIN = { bytesPerMs: 5e5, flopsPerMs: 2e6 };
/** Fewest and most ids of the prompt and the draws together; half are drawn, at most eight. */
const [LEAST_IDS, MOST_IDS, MOST_DRAWS] = [8, 48, 8];
/** Milliseconds that more ids than the fewest may take. */
const COMPUTE_MS = 300;

/** Milliseconds after which a check stops: a busy machine takes longer than estimated. */
const DEADLINE_MS = 5000;

/** Options of a check. */
export interface CheckOptions {
  /** As in `GenerateOptions`: checks the passes without tuning. */
  readonly deterministic?: boolean;
  readonly signal?: AbortSignal;
  /** Milliseconds of the check at most. Default 5 s. */
  readonly deadlineMs?: number;
}

/** Logits [V] and drawn id of each step. */
interface Step {
  readonly logits: Float32Array;
  readonly id: number;
}

/**
 * Compares a short greedy run of a model with typed arrays. Empties the cache.
 * @throws the signal's reason, if it is aborted.
 */
export async function checkModel(model: Model, options: CheckOptions = {}): Promise<CheckReport> {
  if (isPlain(model.backend)) return notRun("js is what the other backends are checked against");
  const ms = model.weightsBytes / PLAIN.bytesPerMs +
    LEAST_IDS * 2 * model.parameters / PLAIN.flopsPerMs;
  if (ms > MOST_MS) {
    const seconds = (ms / 1000).toFixed(1);
    return notRun(`the model is too large: loading and running it on js takes about ${seconds} s`);
  }
  const { signal, deadlineMs = DEADLINE_MS } = options;
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), deadlineMs);
  const end = performance.now() + deadlineMs;
  try {
    const signals = [late.signal, ...signal ? [signal] : []];
    return await compare(model, { ...options, signal: AbortSignal.any(signals) }, () => {
      if (performance.now() >= end) late.abort(); // the timer may wait for a long task
      late.signal.throwIfAborted();
    });
  } catch (error) {
    signal?.throwIfAborted();
    if (late.signal.aborted) return notRun(`js took longer than ${deadlineMs / 1000} s`);
    const isExpected = error instanceof CheckpointError || error instanceof DeviceError ||
      error instanceof RangeError;
    if (!isExpected) throw error;
    return notRun(`js could not run the model: ${messageOf(error)}`);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Shares of the largest logit that the rounding of products may change a logit by. Measured on
 * SmolLM2-135M and 46 tiny models of random weights: 7e-5 of floats, 3e-4 with activations of 16
 * bits, 4.6e-2 and 1.04e-1 (random weights) with 8.
 */
const PRODUCTS = { floats: 1e-4, exact: 2e-3, int8: 1.5e-1 } as const;

/**
 * The same for the cache, in roundings of its type. Measured at most: 0.8 of F16's and 1.6 of
 * Q8_0's between `wasm` and `js`; 1.5 and 2.6 between this cache and one of F32, on `js` alone.
 */
const CACHE_ROUNDINGS = 4;

/** r: share of the largest logit that rounding may change a logit by. */
function roundingOf({ activations, kvDtype }: Model, { weights }: Runner): number {
  const products = isQuantised(weights) ? activations : "floats";
  return PRODUCTS[products] + CACHE_ROUNDINGS * KV_FORMATS[kvDtype as KvDtype].rounding;
}

/** A check that was not run, and why. */
export function notRun(reason: string): CheckReport {
  return {
    against: null,
    tokens: 0,
    max_abs_diff: null,
    tolerance: null,
    same_ids: null,
    passed: null,
    reason,
  };
}

/** @param expectTime throws if the deadline is over. */
async function compare(
  model: Model,
  options: CheckOptions,
  expectTime: () => void,
): Promise<CheckReport> {
  const { signal } = options;
  const most = Math.min(MOST_IDS, model.contextLength);
  await using plain = await instrumentsOf(model).openPlain(most, signal);
  expectTime();
  const { prompt, expected } = await runPlain(plain.runner, model.config.vocabSize, most, signal);
  expectTime();
  const actual = await instrumentsOf(model).run(prompt, async (runner) => {
    await runner.useFixed(options.deterministic ?? DEFAULTS.deterministic);
    const forced = expected.map(({ id }) => id);
    return await drawGreedily(runner, prompt, expected.length, { signal, forced });
  }, signal);
  return judge(expected, actual, roundingOf(model, plain.runner));
}

/** Runs the plain side: as many ids as its time allows. */
async function runPlain(
  runner: Runner,
  vocabSize: number,
  most: number,
  signal?: AbortSignal,
): Promise<{ prompt: readonly number[]; expected: readonly Step[] }> {
  const ids = drawPrompt(most, vocabSize, 0);
  const first = ids.slice(0, LEAST_IDS / 2);
  const start = performance.now();
  await runner.lastLogits(first, signal);
  const idMs = (performance.now() - start) / first.length;
  const count = Math.min(most, Math.max(LEAST_IDS, Math.floor(COMPUTE_MS / idMs)));
  const draws = Math.max(1, Math.min(MOST_DRAWS, Math.floor(count / 2)));
  const prompt = ids.slice(0, Math.max(1, count - draws));
  return { prompt, expected: await drawGreedily(runner, prompt, draws, { signal }) };
}

/** Draws `count` ids one by one, at temperature 0, and keeps the logits of each. */
async function drawGreedily(
  runner: Runner,
  prompt: readonly number[],
  count: number,
  { signal, forced }: { readonly signal?: AbortSignal; readonly forced?: readonly number[] },
): Promise<Step[]> {
  const { backend, buffers: { decode } } = runner;
  runner.startSampling({ temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1 }, 0);
  await runner.prefill(prompt, { signal });
  const steps: Step[] = [];
  for (let i = 0; i < count; i++) {
    signal?.throwIfAborted();
    const [id] = await runner.draw(1, signal);
    steps.push({ id, logits: await backend.read(decode.logits) as Float32Array });
    if (forced) backend.write(decode.ids, Int32Array.of(forced[i]));
  }
  runner.sequence.forget(); // the cache may hold ids that were not drawn
  return steps;
}

/**
 * Compares the steps of both sides.
 * @param rounding share of the largest logit that a logit may differ by.
 */
export function judge(
  expected: readonly Step[],
  actual: readonly Step[],
  rounding = 1e-4,
): CheckReport {
  let [diff, largest, behind] = [0, 0, 0];
  for (const [step, { logits, id }] of expected.entries()) {
    const { logits: got, id: gotId } = actual[step];
    logits.forEach((logit, i) => {
      largest = Math.max(largest, Math.abs(logit));
      diff = Math.max(diff, Math.abs(got[i] - logit)); // NaN stays
    });
    behind = Math.max(behind, logits[id] - (gotId === NOT_FINITE ? NaN : logits[gotId]));
  }
  const tolerance = Math.max(1e-3, rounding * largest);
  const same_ids = expected.every(({ id }, i) => id === actual[i].id);
  const passed = diff <= tolerance && behind <= tolerance; // false for NaN
  const over = Number.isFinite(diff) ? `logits differ by up to ${diff.toPrecision(2)}` : null;
  return {
    against: "js",
    tokens: expected.length,
    max_abs_diff: Number.isFinite(diff) ? diff : null,
    tolerance,
    same_ids,
    passed,
    reason: passed
      ? null
      : diff <= tolerance
      ? "an id was drawn whose logit is not the largest"
      : `${over ?? "logits are not finite"}, the tolerance is ${tolerance.toPrecision(2)}`,
  };
}
