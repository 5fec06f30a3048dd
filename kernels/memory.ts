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
