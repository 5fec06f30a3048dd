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
   * Measures both limits.
   * @param repetitions runs of each kind; the fastest counts.
   */
  measure(repetitions: number): Promise<DeviceLimits>;
}

/** Rate of the fastest of several runs: disturbances only slow a run down. */
export async function bestPerSec(
  run: () => void | Promise<void>,
  work: number,
  repetitions: number,
): Promise<number> {
  let ms = Infinity;
  for (let i = 0; i < repetitions; i++) {
    const start = performance.now();
    await run();
    ms = Math.min(ms, performance.now() - start);
  }
  return 1000 * work / Math.max(ms, 1e-3);
}
