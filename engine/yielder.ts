/**
 * Yielding to the event loop during long work.
 *
 * @module
 */
import { nextTask } from "../kernels/next_task.ts";

/** Milliseconds between two yields: the longest wait of timers, signals and the terminal. */
const YIELD_MS = 50;

/** Yields to the event loop at most every 50 ms. */
export class Yielder {
  #last = performance.now();

  /**
   * Yields if the last yield was 50 ms ago.
   * @throws the signal's reason, if it was aborted meanwhile.
   */
  async yieldIfDue(signal?: AbortSignal): Promise<void> {
    if (performance.now() - this.#last < YIELD_MS) return;
    await nextTask();
    this.#last = performance.now();
    signal?.throwIfAborted();
  }
}
