/**
 * Roofline of one thread of typed arrays: memory bandwidth and FLOP/s, to compare kernels with.
 *
 * @module
 */

import { bestPerSec, type LimitMeter } from "../meter.ts";

/** Measured limits of one thread of JavaScript. */
export interface Limits {
  /** 10⁹ bytes read from memory per second. */
  readonly readGBs: number;
  /** 10⁹ FLOP/s in registers; a multiply-add is two. */
  readonly flopsGFs: number;
}

/** More than the caches of most CPUs. */
const READ_BYTES = 64 * 2 ** 20;

/** Multiply-adds of each of eight accumulators in one run. */
const CHAIN = 1 << 20;

/** Measures the limits in about 0.3 s. */
export function probeLimits(): Limits {
  const data = readArray(READ_BYTES);
  return {
    readGBs: READ_BYTES / 1e6 / medianMs(() => sum(data), 3),
    flopsGFs: 16 * CHAIN / 1e6 / medianMs(() => multiplyAdd(CHAIN), 5),
  };
}

/** Opens a meter of the limits that reads about `bytes`. */
export function openJsMeter(bytes: number): LimitMeter {
  const data = readArray(bytes);
  sink += sum(data) + multiplyAdd(CHAIN); // for the compiler
  return {
    measure: async (ms) => ({
      readBytesPerSec: await bestPerSec(
        () => void (sink += sum(data)),
        data.byteLength,
        ms,
      ),
      flopsPerSec: await bestPerSec(
        () => void (sink += multiplyAdd(CHAIN)),
        16 * CHAIN,
        ms,
      ),
    }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** An array of whole groups of four rows. */
function readArray(bytes: number): Float32Array {
  const rows = Math.max(1, Math.ceil(bytes / (16 * ROW)));
  // Trick: fills the array. Untouched pages would all map to the same page of zeros, in the cache.
  return new Float32Array(4 * ROW * rows).fill(1);
}

/** Numbers of a row. */
const ROW = 1024;

/** Reads four rows side by side, as the matmul does: one stream has measured a quarter of that. */
function sum(data: Float32Array): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  for (let row = 0; row < data.length; row += 4 * ROW) {
    for (let i = row; i < row + ROW; i++) {
      a += data[i];
      b += data[i + ROW];
      c += data[i + 2 * ROW];
      d += data[i + 3 * ROW];
    }
  }
  return a + b + c + d;
}

/** Eight independent chains, which hide the latency of a multiply-add. */
function multiplyAdd(steps: number): number {
  let [a, b, c, d, e, f, g, h] = [1, 2, 3, 4, 5, 6, 7, 8];
  const [m, k] = [0.999, 0.001];
  for (let i = 0; i < steps; i++) {
    a = a * m + k;
    b = b * m + k;
    c = c * m + k;
    d = d * m + k;
    e = e * m + k;
    f = f * m + k;
    g = g * m + k;
    h = h * m + k;
  }
  return a + b + c + d + e + f + g + h;
}

/** Trick: keeps the results alive; without a use the compiler drops the work. */
let sink = 0;

/** Median milliseconds of a run, after one for the compiler. */
function medianMs(run: () => number, runs: number): number {
  sink += run();
  const times = Array.from({ length: runs }, () => {
    const start = performance.now();
    sink += run();
    return performance.now() - start;
  });
  return Math.max(times.sort((a, b) => a - b)[runs >> 1], 1e-3);
}
