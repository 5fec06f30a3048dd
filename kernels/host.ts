/**
 * The platform of a backend: its GPU, processors and threads.
 *
 * Passed to `openBackend`, so that no backend names a runtime. It holds no state and frees nothing:
 * a backend terminates the workers it started.
 *
 * @module
 */

/** Platform services that a backend uses. */
export interface ComputeHost {
  /** Entry point of WebGPU; undefined on a platform without it. */
  readonly gpu: GPU | undefined;
  /** Number of logical processors. */
  readonly cores: number;
  /** Flags that the JavaScript engine was started with; missing or null if they are unknown. */
  engineFlags?(): readonly string[] | null;
  /** Starts `wasm/worker.ts` as a thread. */
  startWorker(): Worker;
  /** The reason why `startWorker` would fail and the next step; undefined if it would not. */
  threadsDenied?(): string | undefined;
  /**
   * Sets whether a running worker keeps the process alive; calls with true and false are counted.
   * @param worker from `startWorker`.
   * @param alive false lets the process end while the worker runs.
   */
  keepAlive(worker: Worker, alive: boolean): void;
}

/** Platform by web standards: a page, a worker of one, Deno. */
export const WEB_HOST: ComputeHost = {
  get gpu() {
    return globalThis.navigator?.gpu;
  },
  get cores() {
    return globalThis.navigator?.hardwareConcurrency ?? 1;
  },
  // Bundlers find a worker's file by exactly this expression.
  startWorker: () => new Worker(new URL("./wasm/worker.ts", import.meta.url), { type: "module" }),
  threadsDenied: () =>
    typeof Worker === "function" ? undefined : "expected the global Worker, got none",
  keepAlive,
};

/**
 * Trick: calls a method of Deno's Worker whose name is a symbol without description, internal to
 * `node:worker_threads`. Without it, a Deno program that never disposes of its backend does not
 * exit. Other platforms have no such method; their workers end with the page. It may go when Deno's
 * Worker has an `unref()`.
 */
function keepAlive(worker: Worker, alive: boolean): void {
  const prototype = Object.getPrototypeOf(worker);
  const name = Object.getOwnPropertySymbols(prototype).find((symbol) => !symbol.description);
  const method = name && (worker as unknown as Record<symbol, unknown>)[name];
  if (typeof method === "function") method.call(worker, alive);
}
