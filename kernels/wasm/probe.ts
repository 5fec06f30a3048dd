/**
 * Probe for the number of threads: the system's count of processors, checked by measuring.
 *
 * Two logical processors may share a core, a container may grant fewer than it reports, and other
 * programs may use some. So one arithmetic task is split among 1, 2, 4 … and all threads, five
 * times each, in about 20 ms. The largest number within 10 % of the best time is kept: a surplus
 * thread costs little, and other load may be temporary.
 *
 * @module
 */
import { ints, ModuleBuilder } from "../asm/assembler.ts";
import { defineKernel, type Kernel } from "../asm/kernel.ts";
import type { Run } from "./control.ts";
import type { LinearMemory } from "./memory.ts";
import type { Pool } from "./pool.ts";
import { defineRun } from "./program.ts";

/** Default maximum: more threads do not read memory faster, and each takes 11 MiB. */
const MOST_THREADS = 8;

/** Work items of a timing, and rounds of each: about 10 µs. */
const [ITEMS, ROUNDS] = [64, 1500];

/** Timings per number of threads; the fastest counts, since disturbances only slow a run down. */
const TIMINGS = 5;

/** Times up to this ratio of the best count as equal. */
const AS_GOOD = 1.1;

/** The result, cached for the process. */
let known: number | undefined;

/** Most threads that the probe can keep. */
export function mostThreads(cores: number): number {
  return Math.min(cores, MOST_THREADS);
}

/** Number of threads to start; `probeThreads` decides how many to keep. */
export function threadsToTry(cores: number): number {
  return known ?? mostThreads(cores);
}

/** Times the threads of a pool; returns the number to keep. */
export async function probeThreads(pool: Pool, linear: LinearMemory): Promise<number> {
  if (known !== undefined) return known;
  const result = linear.allocate(16 * ITEMS, "staging");
  const m = new ModuleBuilder(linear);
  const kernel = defineArithmetic(m);
  const entry = { kernel, operands: [result.address], items: { count: ITEMS, perRow: false } };
  defineRun(m, [entry], { threads: pool.threads, callerSleeps: false });
  const module = await WebAssembly.compile(m.toBytes());
  const env = { memory: linear.wasm };
  const run = (await WebAssembly.instantiate(module, { env })).exports.run as Run;
  const plan = await pool.load(module);
  const best = new Map<number, number>();
  for (let timing = 0; timing <= TIMINGS; timing++) {
    for (const threads of steps(pool.threads)) {
      pool.limit(threads);
      const start = performance.now();
      pool.run(plan, run, { rows: 1, position: 0, slot: 0, length: 1 });
      const ms = performance.now() - start;
      // The first timing includes compilation.
      if (timing > 0) best.set(threads, Math.min(best.get(threads) ?? Infinity, ms));
    }
  }
  pool.drop(plan);
  pool.limit(pool.threads);
  linear.free(result);
  const limit = AS_GOOD * Math.min(...best.values());
  return known = [...best].findLast(([, ms]) => ms <= limit)![0];
}

/** 1, 2, 4 … and `threads`. */
function steps(threads: number): number[] {
  const powers = Array.from({ length: 16 }, (_, i) => 2 ** i).filter((power) => power < threads);
  return [...powers, threads];
}

/** Multiplications and additions in registers, in eight independent chains. */
function defineArithmetic(m: ModuleBuilder): Kernel {
  return defineKernel(m, ["to"], (f, { to, begin, end }) => {
    const { item, round } = f.locals(ints("item", "round"));
    const sums = f.array("v128", "sum", 8);
    f.for(item, begin, end, 1, () => {
      for (const sum of sums) sum.set(1);
      f.for(round, 0, ROUNDS, 1, () => {
        for (const sum of sums) sum.set(sum.times(0.999).plus(0.001));
      });
      for (const sum of sums) f.store(to.plus(item.shl(4)), sum);
    });
  });
}
