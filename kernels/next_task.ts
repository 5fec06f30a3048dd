/**
 * A turn of the host's event loop.
 *
 * @module
 */

/** Lets the tasks that stand ready have their turn. A timer of 0 ms would do so too, but comes one or two late. */
export async function nextTask(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  await new Promise((resolve) => {
    port1.onmessage = resolve;
    port2.postMessage(null);
  });
  // A port that is left open stays, 5 KiB each, whoever else is gone.
  port1.close();
  port2.close();
}
