/**
 * What each kind of dispatch takes: by the device's own clock where it lends it, else by how much
 * longer many take than one.
 *
 * @module
 */
import type { KernelTime } from "../backend.ts";
import { addUp, median, type Part, profileRuns } from "../profile.ts";
import type { Segment } from "../step.ts";
import type { Gpu } from "./device.ts";
import type { Dispatch, StepQueue } from "./queue.ts";

/** Queries of a set, on every device. */
const MOST_QUERIES = 4096;

/**
 * Milliseconds of a run by which differences are taken, turns of it, and the most that it repeats.
 */
const [RUN_MS, TURNS, MOST_REPEATS] = [20, 5, 512];

/** What is profiled: dispatches, and the calls that they were made of. */
export interface Profiled {
  readonly parts: readonly Part[];
  readonly dispatches: readonly Dispatch[];
}

/** Times by the clock of the device, each dispatch in a pass of its own. */
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
 * WebGPU's clock counts nanoseconds, but an implementation may hand on the ticks of its driver:
 * then the host's clock says what they are.
 */
function clockScale(starts: readonly { readonly host: number; readonly device: bigint }[]): number {
  const [first, last] = [starts[0], starts[starts.length - 1]];
  const scale = 1e6 * (last.host - first.host) / Number(last.device - first.device);
  return scale > 0.8 && scale < 1.25 || !Number.isFinite(scale) ? 1 : scale;
}

/** Whether one set of queries is enough for a plan's dispatches. */
export function fitsClock({ features }: Gpu, dispatches: readonly Dispatch[]): boolean {
  return features.has("timestamp-query") && 2 * dispatches.length <= MOST_QUERIES;
}

/** Times without a clock: all dispatches of a kind, once and many times over. */
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

/** Milliseconds of some dispatches, without what a submit and a read take. */
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
  await time(1); // what is new to the driver
  let repeats = 4;
  while (repeats < MOST_REPEATS && await time(repeats) < RUN_MS) repeats *= 2;
  const [once, often]: number[][] = [[], []];
  for (let turn = 0; turn < TURNS; turn++) {
    once.push(await time(1));
    often.push(await time(repeats));
  }
  return Math.max(0, median(often) - median(once)) / (repeats - 1);
}
