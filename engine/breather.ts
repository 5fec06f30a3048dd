/**
 * A long computation's courtesy to the thread that it runs on.
 *
 * @module
 */
import { nextTask } from "../kernels/next_task.ts";

/** Milliseconds after which a loop lets timers, signals and the terminal have their turn. */
const YIELD_MS = 50;

/** Lets the host's other tasks run when the last turn was a while ago. */
export class Breather {
  #last = performance.now();

  /** Waits a turn if one is due. @throws the signal's reason, when it was aborted meanwhile. */
  async breathe(signal?: AbortSignal): Promise<void> {
    if (performance.now() - this.#last < YIELD_MS) return;
    await nextTask();
    this.#last = performance.now();
    signal?.throwIfAborted();
  }
}
