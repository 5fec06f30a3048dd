/**
 * Memory tracker: current and peak bytes of a backend's buffers by class, and a nudge of the GC.
 *
 * @module
 */
import type { MemoryClass } from "./tensor.ts";

/** Bytes in use now, and their peak since the last `resetPeak()`. */
export interface MemoryFigure {
  /** Bytes in use now. */
  current: number;
  /** Most bytes in use at once since the last `resetPeak()`. */
  peak: number;
}

/**
 * Counts the bytes of a backend's buffers by class, from their allocation until they are freed.
 *
 * @example
 * ```ts
 * import { openBackend } from "@wgslm/wgslm/kernels";
 *
 * await using backend = await openBackend("js");
 * backend.tensor([2, 256], "F32", "activations");
 * console.log(backend.memory.classes.activations.current); // 2048
 * ```
 */
export class Memory {
  /** Bytes of all classes in use now. */
  current = 0;
  /** Peak bytes of all classes at once: at most the sum of the classes' peaks. */
  peak = 0;
  /** Bytes of each class. */
  readonly classes: Record<MemoryClass, MemoryFigure> = {
    weights: { current: 0, peak: 0 },
    kvCache: { current: 0, peak: 0 },
    activations: { current: 0, peak: 0 },
    staging: { current: 0, peak: 0 },
  };

  /**
   * Counts a buffer.
   * @param kind the class of the buffer.
   * @param bytes of a new buffer; negative for a freed one.
   */
  add(kind: MemoryClass, bytes: number): void {
    const figure = this.classes[kind];
    figure.current += bytes;
    figure.peak = Math.max(figure.peak, figure.current);
    this.current += bytes;
    this.peak = Math.max(this.peak, this.current);
  }

  /** Resets every peak to the current bytes. */
  resetPeak(): void {
    this.peak = this.current;
    for (const figure of Object.values(this.classes)) figure.peak = figure.current;
  }
}

/** Bytes of an array that no system can allocate. */
const IMPOSSIBLE_BYTES = 2 ** 50;

/**
 * Collects garbage, and gives its pages back to the system.
 *
 * Trick: asks for an array that cannot be had. V8 compacts its heap before it refuses, which takes
 * 25 to 60 ms; other engines just refuse. The trick may go when JavaScript can run the GC.
 */
export function collectGarbage(): void {
  try {
    new ArrayBuffer(IMPOSSIBLE_BYTES);
  } catch {
    // Expected.
  }
}

/** Bytes of an array that makes the GC run, and the number of such arrays that it takes. */
const [NUDGE_BYTES, NUDGES] = [2 ** 29, 2];

/**
 * Nudges the GC, so that unreferenced WebAssembly memories are released soon.
 *
 * Trick: allocates and drops 2 × 512 MiB. A linear memory cannot shrink; it is freed with its last
 * reference. But the GC does not count its bytes as garbage and runs late: a process that loads one
 * model after another would hold a dozen memories. It does count the bytes of arrays. These take no
 * RAM, since their pages are never touched. The trick may go when JavaScript can free a linear
 * memory.
 */
export function nudgeGc(): void {
  try {
    for (let i = 0; i < NUDGES; i++) new ArrayBuffer(NUDGE_BYTES);
  } catch {
    // A failed allocation has run the GC, too.
  }
}
