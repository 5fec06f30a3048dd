/**
 * What one thread of typed arrays can do on this machine: the limits that figures of the `js`
 * backend are read against.
 *
 * @module
 */

/** Measured limits of one thread. */
export interface Limits {
  /** Reading from memory, in 10⁹ bytes per second. */
  readonly readGBs: number;
  /** Multiplying and adding in registers, in 10⁹ operations per second (a multiply-add is two). */
  readonly flopsGFs: number;
}

/** Beyond the caches of most processors. */
const READ_BYTES = 64 * 2 ** 20;

/** Multiply-adds of one run of eight accumulators. */
const CHAIN = 1 << 20;

/** Measures the limits in about 0.3 s. */
export function probeLimits(): Limits {
  // untouched pages would all be the one page of zeros
  const data = new Float32Array(READ_BYTES / 4).fill(1);
  return {
    readGBs: READ_BYTES / 1e6 / medianMs(() => sum(data), 3),
    flopsGFs: 16 * CHAIN / 1e6 / medianMs(() => multiplyAdd(CHAIN), 5),
  };
}

/** Numbers of a row. */
const ROW = 1024;

/**
 * Four rows at a time, as the `js` backend reads a weight: one stream alone has been seen
 * to reach a quarter of it.
 */
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

/** Eight chains, which hide the latency of a multiplication and an addition. */
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

/** The results go here, so that no compiler may leave out the work. */
let sink = 0;

/** Milliseconds of the middle run, after one that the compiler needs. */
function medianMs(run: () => number, runs: number): number {
  sink += run();
  const times = Array.from({ length: runs }, () => {
    const start = performance.now();
    sink += run();
    return performance.now() - start;
  });
  return Math.max(times.sort((a, b) => a - b)[runs >> 1], 1e-3);
}
