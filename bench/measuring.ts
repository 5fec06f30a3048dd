/**
 * Measuring on a noisy machine: work and its limit in interleaved rounds; the median ratio counts.
 *
 * @module
 */
import { narrow, type WeightDtype } from "../kernels/formats/mod.ts";
import { bytesOf } from "../kernels/tensor.ts";
import { randomNumbers } from "../tests/testing.ts";

/** Median of an odd number of values. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Milliseconds of filling one new buffer, shared by threads, with a file. */
export function timeToRead(path: string): number {
  const start = performance.now();
  using file = Deno.openSync(path);
  const bytes = new Uint8Array(new SharedArrayBuffer(file.statSync().size));
  for (let at = 0; at < bytes.length;) at += file.readSync(bytes.subarray(at)) ?? bytes.length;
  return performance.now() - start;
}

/** Runs a script in a process by itself; returns the JSON that it prints. */
export async function child<T>(
  script: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<T> {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, ...args],
    env,
    stderr: "inherit",
  }).output();
  return JSON.parse(new TextDecoder().decode(stdout)) as T;
}

/** Rounds of each work. */
const ROUNDS = 9;

/**
 * Minimum milliseconds of one measurement: long compared with the clock's resolution, short
 * compared with disturbances.
 */
const LEAST_MS = 25;

/**
 * Waits until idle threads sleep: they spin for 1.5 ms after a run, on a core that the next
 * measurement needs.
 */
export function rest(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 5));
}

/** Milliseconds per call, over `calls` calls. */
export function timed(work: () => void, calls = 1): number {
  const start = performance.now();
  for (let i = 0; i < calls; i++) work();
  return (performance.now() - start) / calls;
}

/** Median milliseconds per call of each work, in interleaved rounds. */
export async function interleave<N extends string>(
  works: Record<N, () => void>,
): Promise<Record<N, number>> {
  const measured = (Object.entries(works) as [N, () => void][]).map(([name, work]) => {
    let calls = 1;
    // Doubling the calls also warms up the compiler.
    while (timed(work, calls) * calls < LEAST_MS) calls *= 2;
    return { name, work, calls, times: [] as number[] };
  });
  for (let round = 0; round < ROUNDS; round++) {
    for (const { work, calls, times } of measured) {
      await rest();
      times.push(timed(work, calls));
    }
  }
  return Object.fromEntries(measured.map(({ name, times }) => [name, median(times)])) as Record<
    N,
    number
  >;
}

/** Trick: keeps results alive; without a use the compiler drops the work. */
export let sink = 0;

// The sums skip the remainder of a step and declare accumulators one by one: with a loop for the
// rest, or a destructuring, V8's code had a third of the speed, and a slow limit flatters the work
// measured against it.

/** Plain read of an array: a sum in four accumulators, front to back. */
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

/** Sum of eight distant parts side by side: the fastest known, from caches and from memory. */
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
 * A kernel against reading the same numbers, by the faster of two sums; the plain one is reported
 * beside it. One stream is not always the limit: on a machine with high memory latency several at
 * once were much faster (9.7 against 2.4 GB/s), and a kernel of eight rows beats a plain sum by
 * far.
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

/** Compute limit: multiply-adds on numbers in the L1 cache, in eight independent chains. */
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

/** Seeded numbers in stored form, and their bytes as F32 numbers for `sumOf`. */
export function stored(count: number, dtype: WeightDtype) {
  // Repeats one page: drawing each number of a vocabulary's table would take half a minute.
  const page = randomNumbers(Math.min(count, 1 << 16), 3);
  const values = new Float32Array(count);
  for (let at = 0; at < count; at += page.length) {
    values.set(page.subarray(0, Math.min(page.length, count - at)), at);
  }
  const data = bytesOf(narrow(values, dtype));
  return { data, words: new Float32Array(data.buffer, 0, data.byteLength >> 2) };
}

/** A row of a table of shares. */
export interface Share {
  readonly what: string;
  /** Milliseconds per call. */
  readonly ms: number;
  /** Milliseconds of the same work at its limit. */
  readonly limitMs: number;
  readonly limit: string;
}

/** Prints a table of shares of a limit. */
export function printShares(title: string, shares: readonly Share[]): void {
  console.log(`\n${title}: share of a limit measured in this run, medians of rounds`);
  console.table(shares.map(({ what, ms, limitMs, limit }) => ({
    what,
    ms: Number(ms.toPrecision(3)),
    "limit's ms": Number(limitMs.toPrecision(3)),
    share: percent(limitMs / ms),
    limit,
  })));
}

/** Formats a ratio as a percentage. */
export function percent(ratio: number): string {
  return `${(100 * ratio).toFixed(0)} %`;
}

/** Adds a last bench that measures shares and prints them. */
export function sharesAfter(title: string, measure: () => Share[] | Promise<Share[]>): void {
  let reported = false;
  Deno.bench({
    name: `${title}: shares`,
    n: 1,
    warmup: 0,
    async fn() {
      if (reported) return; // the harness may call once more than asked
      reported = true;
      printShares(title, await measure());
    },
  });
}
