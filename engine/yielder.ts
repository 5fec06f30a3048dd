/**
 * Yields to the event loop during long work.
 *
 * @module
 */
import { nextTask } from "../kernels/next_task.ts";

/** Milliseconds of work between two yields; timers, signals and the terminal wait this long. */
const YIELD_MS = 50;

/** Yields to the event loop every 50 ms. */
export class Yielder {
  #last = performance.now();

  /**
   * Yields when the last yield is 50 ms ago.
   * @throws the signal's reason, when it was aborted meanwhile.
   */
  async yieldIfDue(signal?: AbortSignal): Promise<void> {
    if (performance.now() - this.#last < YIELD_MS) return;
    await nextTask();
    this.#last = performance.now();
    signal?.throwIfAborted();
  }
}
