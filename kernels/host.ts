/**
 * The platform of a backend: its GPU, processors and threads.
 *
 * An object that is handed to `openBackend`, so that no backend names a runtime. It holds no state
 * and frees nothing: a backend ends the workers it has started.
 *
 * @module
 */

/** What a backend needs of its platform. */
export interface ComputeHost {
  /** The entry to WebGPU; undefined on a platform without it. */
  readonly gpu: GPU | undefined;
  /** Number of logical processors. */
  readonly cores: number;
  /** Starts `wasm/worker.ts` as a thread. */
  startWorker(): Worker;
  /** Whether a running worker keeps the process alive; calls with true and false are counted. */
  keepAlive(worker: Worker, alive: boolean): void;
}

/** The platform by web standards: a page, a worker in it, Deno. */
export const WEB_HOST: ComputeHost = {
  get gpu() {
    return globalThis.navigator?.gpu;
  },
  get cores() {
    return globalThis.navigator?.hardwareConcurrency ?? 1;
  },
  // Bundlers and runtimes find a worker's file by this literal form.
  startWorker: () => new Worker(new URL("./wasm/worker.ts", import.meta.url), { type: "module" }),
  keepAlive,
};

/**
 * Trick: calls the method of Deno's Worker that has an unnamed symbol for its name, which Deno
 * keeps for `node:worker_threads`. Without it a program on Deno that never disposes of its backend
 * does not end. Elsewhere it finds no such method, and workers end with their page. It may go when
 * Deno gives Worker an `unref()`.
 */
function keepAlive(worker: Worker, alive: boolean): void {
  const prototype = Object.getPrototypeOf(worker);
  const name = Object.getOwnPropertySymbols(prototype).find((symbol) => !symbol.description);
  const method = name && (worker as unknown as Record<symbol, unknown>)[name];
  if (typeof method === "function") method.call(worker, alive);
}
