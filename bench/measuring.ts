/**
 * Figures that mean something on a noisy machine: what is measured and its limit take turns,
 * and their ratio is told.
 *
 * @module
 */
import { narrow, type WeightDtype } from "../kernels/formats/mod.ts";
import { bytesOf } from "../kernels/tensor.ts";
import { randomNumbers } from "../tests/testing.ts";

/** The middle of an odd number of values. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Turns that each work has. */
const ROUNDS = 9;

/**
 * Milliseconds of one turn, long against the clock's grain and short against
 * what disturbs a machine.
 */
const TURN_MS = 25;

/**
 * Waits until the threads of whatever ran before have gone to sleep: for 1.5 ms they watch for
 * another run, and take a core from what is measured next.
 */
export function rest(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 5));
}

/** Milliseconds of one of `calls` calls. */
export function timed(work: () => void, calls = 1): number {
  const start = performance.now();
  for (let i = 0; i < calls; i++) work();
  return (performance.now() - start) / calls;
}

/** Median milliseconds of a call of each work, which take turns. */
export async function interleave<N extends string>(
  works: Record<N, () => void>,
): Promise<Record<N, number>> {
  const turns = (Object.entries(works) as [N, () => void][]).map(([name, work]) => {
    let calls = 1;
    // Doubling until a turn is long enough warms the compiler up too.
    while (timed(work, calls) * calls < TURN_MS) calls *= 2;
    return { name, work, calls, times: [] as number[] };
  });
  for (let round = 0; round < ROUNDS; round++) {
    for (const { work, calls, times } of turns) {
      await rest();
      times.push(timed(work, calls));
    }
  }
  return Object.fromEntries(turns.map(({ name, times }) => [name, median(times)])) as Record<
    N,
    number
  >;
}

/** Keeps a result alive, so that no compiler leaves the work for it out. */
export let sink = 0;

// The sums leave out the few numbers that do not fill a step, and their accumulators are declared
// one by one: with a loop for the rest, or a destructuring, V8 made code of a third of the speed,
// and a slow limit flatters whatever is measured by it.

/** The plain way to read an array: a sum in four accumulators, front to back. */
export function sumOf(values: Float32Array): void {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (let i = 0; i + 3 < values.length; i += 4) {
    s0 += values[i];
    s1 += values[i + 1];
    s2 += values[i + 2];
    s3 += values[i + 3];
  }
  sink = s0 + s1 + s2 + s3;
}

/**
 * A sum of eight parts at once, far from each other: the fastest that was found,
 * from caches and from memory.
 */
export function sumFar(values: Float32Array): void {
  const L = values.length >> 3;
  const r1 = L, r2 = 2 * L, r3 = 3 * L, r4 = 4 * L, r5 = 5 * L, r6 = 6 * L, r7 = 7 * L;
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
  for (let i = 0; i < L; i++) {
    s0 += values[i];
    s1 += values[r1 + i];
    s2 += values[r2 + i];
    s3 += values[r3 + i];
    s4 += values[r4 + i];
    s5 += values[r5 + i];
    s6 += values[r6 + i];
    s7 += values[r7 + i];
  }
  sink = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7;
}

/**
 * A kernel against reading the same numbers. One stream is no limit everywhere: where memory
 * answers late, a machine reads several at once much faster (2.4 against 9.7 GB/s was seen), and a
 * kernel of eight rows passes a plain sum by far. So the limit is the faster of two sums; the
 * plain one is told beside it.
 */
export async function againstReading(
  run: () => void,
  arrays: readonly Float32Array[],
): Promise<{ kernelMs: number; plainMs: number; limitMs: number }> {
  const over = (sum: (values: Float32Array) => void) => () => arrays.forEach(sum);
  const { kernel, plain, far } = await interleave({
    plain: over(sumOf),
    far: over(sumFar),
    kernel: run,
  });
  return { kernelMs: kernel, plainMs: plain, limitMs: Math.min(plain, far) };
}

/** Multiply-adds of one call of `multiplyAdds`. */
export const MULTIPLY_ADDS = 8 * 4096;

const [LEFT, RIGHT] = [randomNumbers(4096, 1), randomNumbers(4096, 2)];

/**
 * A limit: multiply-adds on numbers that lie in the first cache, in eight chains that do
 * not wait for each other.
 */
export function multiplyAdds(): void {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
  for (let i = 0; i < 4096; i++) {
    const x = LEFT[i], w = RIGHT[i];
    s0 += x * w;
    s1 += (x + 1) * w;
    s2 += (x + 2) * w;
    s3 += (x + 3) * w;
    s4 += (x + 4) * w;
    s5 += (x + 5) * w;
    s6 += (x + 6) * w;
    s7 += (x + 7) * w;
  }
  sink = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7;
}

/** The stored form of seeded numbers, and its bytes as F32 numbers for `sumOf`. */
export function stored(count: number, dtype: WeightDtype) {
  // One page over and over: drawing each number of a vocabulary's table anew
  // would take half a minute.
  const page = randomNumbers(Math.min(count, 1 << 16), 3);
  const values = new Float32Array(count);
  for (let at = 0; at < count; at += page.length) {
    values.set(page.subarray(0, Math.min(page.length, count - at)), at);
  }
  const data = bytesOf(narrow(values, dtype));
  return { data, words: new Float32Array(data.buffer, 0, data.byteLength >> 2) };
}

/** One line of a table of shares. */
export interface Share {
  readonly what: string;
  /** Milliseconds of a call. */
  readonly ms: number;
  /** Of the same work at its limit. */
  readonly limitMs: number;
  readonly limit: string;
}

/** Lines of shares of a limit, printed. */
export function printShares(title: string, shares: readonly Share[]): void {
  console.log(`\n${title}: share of a limit measured in this run, medians of turns`);
  console.table(shares.map(({ what, ms, limitMs, limit }) => ({
    what,
    ms: Number(ms.toPrecision(3)),
    "limit's ms": Number(limitMs.toPrecision(3)),
    share: percent(limitMs / ms),
    limit,
  })));
}

/** A ratio as people read it. */
export function percent(ratio: number): string {
  return `${(100 * ratio).toFixed(0)} %`;
}

/** Adds a last entry to a file of benches that measures shares and prints them. */
export function sharesAfter(title: string, measure: () => Share[] | Promise<Share[]>): void {
  let told = false;
  Deno.bench({
    name: `${title}: shares`,
    n: 1,
    warmup: 0,
    async fn() {
      if (told) return; // the harness may call once more than it is asked
      told = true;
      printShares(title, await measure());
    },
  });
}
