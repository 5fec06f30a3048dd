import type { MemoryClass } from "./tensor.ts";

/** Bytes in use now, and the most that were in use at once since the last `resetPeak()`. */
export interface MemoryFigure {
  /** Bytes in use now. */
  current: number;
  /** The most that were in use at once. */
  peak: number;
}

/**
 * Counts the bytes of a backend's buffers by class. Every buffer is added when made and removed
 * when freed.
 */
export class Memory {
  /**
   * Bytes of all classes together. The peak is of the sum, so it may be less than the sum of the
   * peaks.
   */
  current = 0;
  /** The most that were in use at once since the last `resetPeak()`. */
  peak = 0;
  /** Bytes by class. */
  readonly classes: Record<MemoryClass, MemoryFigure> = {
    weights: { current: 0, peak: 0 },
    kvCache: { current: 0, peak: 0 },
    activations: { current: 0, peak: 0 },
    staging: { current: 0, peak: 0 },
  };

  /** Counts `bytes` of a new buffer; a negative number takes a freed one off. */
  add(kind: MemoryClass, bytes: number): void {
    const figure = this.classes[kind];
    figure.current += bytes;
    figure.peak = Math.max(figure.peak, figure.current);
    this.current += bytes;
    this.peak = Math.max(this.peak, this.current);
  }

  /** Starts the peaks again from what is in use now. */
  resetPeak(): void {
    this.peak = this.current;
    for (const figure of Object.values(this.classes)) figure.peak = figure.current;
  }
}

/** Bytes of an array that makes the collector run, and how many such arrays it takes. */
const [NUDGE_BYTES, NUDGES] = [2 ** 29, 2];

/**
 * Nudges the GC, so that unreferenced WebAssembly memories are released soon.
 *
 * Trick: allocates 2 × 512 MiB and drops them. A linear memory cannot shrink and goes with its last
 * reference, but the GC waits long while it sees little garbage: a process that loads one model
 * after another would hold a dozen memories. It counts the bytes of arrays, so it gets some; they
 * take no RAM, since their pages are never touched. It may go when JavaScript can free a linear
 * memory.
 */
export function nudgeGc(): void {
  try {
    for (let i = 0; i < NUDGES; i++) new ArrayBuffer(NUDGE_BYTES);
  } catch {
    // An allocation that fails has made the collector run as well.
  }
}
