/**
 * Meter of a device's limits: read bandwidth and FLOP/s, measured again and again.
 *
 * A benchmark measures the limits in the gaps between its iterations, so that both see the same
 * machine. A meter keeps its buffer and threads, so that a measurement takes milliseconds.
 *
 * @module
 */

/** Measured upper limits of a device. */
export interface DeviceLimits {
  /** Bytes read per second. */
  readonly readBytesPerSec: number;
  /** FLOP/s in F32; a multiply-add is two. */
  readonly flopsPerSec: number;
}

/** Measures the limits of one device; disposing of it frees its buffer and threads. */
export interface LimitMeter extends AsyncDisposable {
  /**
   * Measures both limits; the fastest run of each kind counts.
   * @param ms time of each kind at least, and two runs.
   */
  measure(ms: number): Promise<DeviceLimits>;
}

/** Milliseconds of the fastest of two or more runs in `ms`: disturbances only slow a run down. */
export async function bestMs(run: () => void | Promise<void>, ms: number): Promise<number> {
  let best = Infinity;
  const end = performance.now() + ms;
  for (let runs = 0; runs < 2 || performance.now() < end; runs++) {
    const start = performance.now();
    await run();
    best = Math.min(best, performance.now() - start);
  }
  return Math.max(best, 1e-3);
}

/** Work per second of the fastest run. */
export async function bestPerSec(
  run: () => void | Promise<void>,
  work: number,
  ms: number,
): Promise<number> {
  return 1000 * work / await bestMs(run, ms);
}
