/**
 * Profile of a pass: times of its kinds of kernel, from the times of a plan's entries, beside the
 * bytes and operations that its calls take at least.
 *
 * @module
 */
import type { KernelTime } from "./backend.ts";
import { type Call, costOf } from "./calls.ts";
import type { Cost } from "./ops/contract.ts";
import type { Segment } from "./step.ts";

/** A call's cost, and the number of entries or dispatches that a backend made of it. */
export interface Part extends Cost {
  readonly entries: number;
}

/** The parts of a pass, from its calls and what each was lowered to. */
export function partsOf(
  calls: readonly Call[],
  lowered: readonly (readonly unknown[])[],
  segment: Segment,
): Part[] {
  return calls.map((call, i) => ({ ...costOf(call, segment), entries: lowered[i].length }));
}

/** At least so many runs, and for so many milliseconds: for compilers and clocks, then measured. */
const WARM_UP = { runs: 2, ms: 150 };
const MEASURED = { runs: 5, ms: 300 };

/** Limit of measured runs, each of which keeps a time per entry. */
const MOST_RUNS = 301;

/** Medians over many runs of a plan; `run` returns the milliseconds of each entry. */
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

/** Sums of the parts of each name, in the order of their first. */
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

/** The median, the upper one of two. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Milliseconds from each mark to the next, from `start` on. */
export function laps(start: number, marks: readonly number[]): number[] {
  return marks.map((mark, i) => mark - (i ? marks[i - 1] : start));
}
