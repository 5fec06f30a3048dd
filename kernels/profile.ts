/**
 * Profile of a pass: median time of each kind of kernel, with the minimum bytes and FLOPs of its
 * calls.
 *
 * A call becomes one or more entries (kernels of a WebAssembly plan, dispatches of a shader). Each
 * entry is timed; the times are added up by call, then by kind.
 *
 * @module
 */
import type { KernelTime } from "./backend.ts";
import { type Call, costOf } from "./calls.ts";
import type { Cost } from "./ops/contract.ts";
import type { Segment } from "./step.ts";

/** A call's cost, and the number of entries that a backend lowered it to. */
export interface Part extends Cost {
  /** Number of timed entries. */
  readonly entries: number;
}

/** Parts of a pass, from its calls and the entries that each was lowered to. */
export function partsOf(
  calls: readonly Call[],
  lowered: readonly (readonly unknown[])[],
  segment: Segment,
): Part[] {
  return calls.map((call, i) => ({ ...costOf(call, segment), entries: lowered[i].length }));
}

/** Minimum runs and milliseconds: a warm-up for compilers and clocks, then the measured runs. */
const WARM_UP = { runs: 2, ms: 150 };
const MEASURED = { runs: 5, ms: 300 };

/** Most measured runs: each keeps a time per entry. */
const MOST_RUNS = 301;

/** Medians over several runs of a plan; `run` returns the milliseconds of each entry. */
export async function profileRuns(
  parts: readonly Part[],
  run: () => readonly number[] | Promise<readonly number[]>,
): Promise<KernelTime[]> {
  const repeat = async ({ runs, ms }: typeof WARM_UP) => {
    const times: (readonly number[])[] = [];
    const end = performance.now() + ms;
    while (times.length < runs || (performance.now() < end && times.length < MOST_RUNS)) {
      times.push(await run());
    }
    return times;
  };
  await repeat(WARM_UP);
  const times = await repeat(MEASURED);
  let entry = 0;
  const partMs = parts.map(({ entries }) => {
    let ms = 0;
    for (let i = 0; i < entries; i++, entry++) ms += median(times.map((run) => run[entry]));
    return ms;
  });
  return addUp(parts, partMs);
}

/** Sums the parts of each name, in order of first appearance. */
export function addUp(parts: readonly Part[], partMs: readonly number[]): KernelTime[] {
  const kinds = new Map<string, KernelTime>();
  for (const [i, { name, bytes, flops }] of parts.entries()) {
    const sum = kinds.get(name) ?? { name, calls: 0, ms: 0, bytes: 0, flops: 0 };
    kinds.set(name, {
      name,
      calls: sum.calls + 1,
      ms: sum.ms + partMs[i],
      bytes: sum.bytes + bytes,
      flops: sum.flops + flops,
    });
  }
  return [...kinds.values()];
}

/** Median; of an even number of values, the upper one of the middle two. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Milliseconds between consecutive marks, the first one from `start` on. */
export function laps(start: number, marks: readonly number[]): number[] {
  return marks.map((mark, i) => mark - (i ? marks[i - 1] : start));
}
