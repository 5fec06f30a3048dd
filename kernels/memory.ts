import type { MemoryClass } from "./tensor.ts";

/** Bytes in use now, and the most that were in use at once since the last `resetPeak()`. */
export interface MemoryFigure {
  /** Bytes in use now. */
  current: number;
  /** The most that were in use at once. */
  peak: number;
}

/** Counts the bytes of a backend's buffers by class. Every buffer is added when made and removed when freed. */
export class Memory {
  /** Bytes of all classes together. The peak is of the sum, so it may be less than the sum of the peaks. */
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

/** Bytes that make the collector look for garbage, and how often they are asked for. */
const [PROD_BYTES, PRODS] = [2 ** 29, 2];

/**
 * Has the memories that nothing holds any more given back soon. A linear memory cannot shrink and goes with its last holder, but a
 * collector that sees little garbage waits for long, and a process that loads one model after another would hold a dozen. What it
 * counts are the bytes of arrays, so it is asked for some: pages that are never touched cost the system nothing.
 */
export function prodCollector(): void {
  try {
    for (let i = 0; i < PRODS; i++) new ArrayBuffer(PROD_BYTES);
  } catch {
    // A system that does not even promise so much will have collected on the way.
  }
}
