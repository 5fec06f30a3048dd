/**
 * Diagnosis of a model's passes: search for the first NaN or infinity, and times of each kernel.
 *
 * @module
 */
import type { KernelTime, Plan, Recorder, Segment } from "../kernels/backend.ts";
import { median } from "../kernels/profile.ts";
import { forward } from "./decoder.ts";
import { CheckpointError } from "./errors.ts";
import { forwardAndSample, READ_MS, type Runner } from "./runner.ts";

/** Times of a pass, as a whole and by kernel. */
export interface PassTimes {
  /** Rows, position and length of the pass. */
  readonly step: Segment;
  /** Milliseconds of the untimed plan: the median of at least five runs. */
  readonly ms: number;
  /** Times of its kernels, each measured within the pass. */
  readonly kernels: readonly KernelTime[];
}

/** Least number of timings of a whole pass, and least milliseconds of all of them. */
const [PASS_RUNS, PASS_MS] = [5, 300];

/**
 * An error that names the first layer with NaN or infinity in its output for these ids. Runs passes
 * of 0, 1, 2, … layers, each from an empty cache.
 */
export async function findNotFinite(
  runner: Runner,
  ids: readonly number[],
): Promise<CheckpointError> {
  const { id, architecture: { nLayer }, slots } = runner;
  const place = await firstNotFinite(runner, ids.slice(-slots));
  const after = place === null
    ? "the final norm or the head"
    : place === 0
    ? "the embedding"
    : `layer h.${place - 1} of ${nLayer}`;
  return new CheckpointError(
    `Cannot run "${id}": expected finite logits, got NaN or infinity, first after ${after}`,
  );
}

/** The least number of layers after which x is not finite; null if it is finite after all. */
async function firstNotFinite(runner: Runner, ids: readonly number[]): Promise<number | null> {
  const { backend, architecture: { nLayer, nEmbd }, weights } = runner;
  const { prefill } = runner.buffers;
  for (let layers = 0; layers <= nLayer; layers++) {
    const first = { ...weights, h: weights.h.slice(0, layers) };
    using plan = await backend.record((k) => forward(k, first, prefill));
    runner.clear(ids.length);
    for await (const { length: rows } of runner.feed(ids, { plan, ids: prefill.ids })) {
      const x = await backend.read(prefill.x, 0, rows * nEmbd) as Float32Array; // x [rows, C]
      if (!x.every(Number.isFinite)) return layers;
    }
  }
  return null;
}

/**
 * Times a decode step on the last of `ids` (at most S), sampling included, and a full prefill chunk
 * from an empty cache. Samples by the settings of the last `startSampling`; empties the cache.
 */
export async function timePasses(
  runner: Runner,
  ids: readonly number[],
): Promise<{ prefill: PassTimes; decode: PassTimes }> {
  const { weights, buffers, plans, chunk, sequence } = runner;
  await runner.prefill(ids); // the pass should compute on real keys and values
  const decode = await timePass(
    runner,
    sequence.step(1),
    plans.draw,
    (k) => forwardAndSample(k, weights, buffers),
  );
  await runner.prefill(ids.slice(0, 1)); // the draws overwrote the cache's last entry
  const prefill = await timePass(
    runner,
    sequence.step(chunk),
    plans.prefill,
    (k) => forward(k, weights, buffers.prefill),
  );
  return { prefill, decode };
}

async function timePass(
  { backend, buffers }: Runner,
  step: Segment,
  plan: Plan,
  build: (k: Recorder) => void,
): Promise<PassTimes> {
  const time = async (count: number) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) plan.run(step);
    await backend.read(buffers.decode.ids);
    return (performance.now() - start) / count;
  };
  await time(1);
  // As many as a generation queues at most; one on a backend whose `run` waits for the result.
  const count = Math.min(backend.readAhead ?? 1, Math.ceil(READ_MS / await time(1)));
  const times: number[] = [];
  const end = performance.now() + PASS_MS;
  while (times.length < PASS_RUNS || performance.now() < end) times.push(await time(count));
  return { step, ms: median(times), kernels: await backend.profile(build, step) };
}
