/**
 * A long computation's courtesy to the thread that it runs on.
 *
 * @module
 */

/** Milliseconds after which a loop lets timers, signals and the terminal have their turn. */
const YIELD_MS = 50;

/** Lets the host's other tasks run when the last turn was a while ago. */
export class Breather {
  #last = performance.now();

  /** Waits a turn if one is due. @throws the signal's reason, when it was aborted meanwhile. */
  async breathe(signal?: AbortSignal): Promise<void> {
    if (performance.now() - this.#last < YIELD_MS) return;
    await turn();
    this.#last = performance.now();
    signal?.throwIfAborted();
  }
}

/** Gives the host's event loop a turn. A timer of 0 ms would do so too, but comes one or two late. */
async function turn(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  await new Promise((resolve) => {
    port1.onmessage = resolve;
    port2.postMessage(null);
  });
  port1.close();
}
