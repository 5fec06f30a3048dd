/**
 * Profile of dispatches: by timestamp queries if the device has them, else by differences.
 *
 *     clock       one pass per dispatch, two timestamps each
 *     difference  ms = (time of n runs − time of 1 run) / (n − 1), which cancels submit and read
 *
 * @module
 */
import type { KernelTime } from "../backend.ts";
import { addUp, median, type Part, profileRuns } from "../profile.ts";
import type { Segment } from "../step.ts";
import type { Gpu } from "./device.ts";
import type { Dispatch } from "./dispatch.ts";
import type { StepQueue } from "./queue.ts";

/** Most queries of a set, on every device. */
const MOST_QUERIES = 4096;

/** Difference: minimum milliseconds of the n runs, number of measurements, and largest n. */
const [RUN_MS, ROUNDS, MOST_REPEATS] = [20, 5, 512];

/** The dispatches of a pass, and the calls that they were lowered from. */
export interface Profiled {
  readonly parts: readonly Part[];
  readonly dispatches: readonly Dispatch[];
}

/** Times each dispatch by the device's clock, in a compute pass of its own. */
export async function profileByClock(
  gpu: Gpu,
  queue: StepQueue,
  { parts, dispatches }: Profiled,
  step: Segment,
): Promise<KernelTime[]> {
  const count = 2 * dispatches.length;
  const { QUERY_RESOLVE, COPY_SRC } = GPUBufferUsage;
  const queries = gpu.device.createQuerySet({ type: "timestamp", count });
  const clocks = gpu.buffer(8 * count, QUERY_RESOLVE | COPY_SRC, "staging");
  const starts: { readonly host: number; readonly device: bigint }[] = [];
  try {
    const times = await profileRuns(parts, async () => {
      const host = performance.now();
      queue.runTimed(step, dispatches, queries, clocks);
      const ticks = new BigUint64Array((await queue.read(clocks, 0, 8 * count)).buffer);
      starts.push({ host, device: ticks[0] });
      return dispatches.map((_, i) => Number(ticks[2 * i + 1] - ticks[2 * i]) / 1e6);
    });
    const scale = clockScale(starts);
    return times.map((time) => ({ ...time, ms: scale * time.ms }));
  } finally {
    queries.destroy();
    gpu.free(clocks);
  }
}

/**
 * Factor from the clock's unit to nanoseconds. WebGPU specifies nanoseconds, but an implementation
 * may pass on the driver's ticks; the host's clock then gives their length.
 */
function clockScale(starts: readonly { readonly host: number; readonly device: bigint }[]): number {
  const [first, last] = [starts[0], starts[starts.length - 1]];
  const scale = 1e6 * (last.host - first.host) / Number(last.device - first.device);
  return scale > 0.8 && scale < 1.25 || !Number.isFinite(scale) ? 1 : scale;
}

/** Whether one query set holds the timestamps of all dispatches. */
export function fitsClock({ features }: Gpu, dispatches: readonly Dispatch[]): boolean {
  return features.has("timestamp-query") && 2 * dispatches.length <= MOST_QUERIES;
}

/** Times all dispatches of a kind together, by differences. */
export async function profileByDifference(
  queue: StepQueue,
  settle: () => Promise<unknown>,
  { parts, dispatches }: Profiled,
  step: Segment,
): Promise<KernelTime[]> {
  const kinds = new Map<string, { parts: number; dispatches: Dispatch[]; ms: number }>();
  let first = 0;
  for (const { name, entries } of parts) {
    const kind = kinds.get(name) ?? { parts: 0, dispatches: [], ms: 0 };
    kind.parts++;
    kind.dispatches.push(...dispatches.slice(first, first += entries));
    kinds.set(name, kind);
  }
  for (const kind of kinds.values()) {
    kind.ms = await differenceMs(queue, settle, kind.dispatches, step) / kind.parts;
  }
  return addUp(parts, parts.map(({ name }) => kinds.get(name)!.ms));
}

/** Milliseconds of one run of `dispatches`, without submit and read. */
async function differenceMs(
  queue: StepQueue,
  settle: () => Promise<unknown>,
  dispatches: readonly Dispatch[],
  step: Segment,
): Promise<number> {
  const time = async (repeats: number) => {
    const start = performance.now();
    for (let i = 0; i < repeats; i++) queue.run(step, dispatches);
    await settle();
    return performance.now() - start;
  };
  await time(1); // warms up the driver
  let repeats = 4;
  while (repeats < MOST_REPEATS && await time(repeats) < RUN_MS) repeats *= 2;
  const [once, often]: number[][] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    once.push(await time(1));
    often.push(await time(repeats));
  }
  return Math.max(0, median(often) - median(once)) / (repeats - 1);
}
