/**
 * Platform of a backend on Node and Bun: threads by `node:worker_threads`, the GPU by the package
 * `webgpu`, if the program has it. The bundle has it in place of `kernels/host.ts`.
 *
 * @module
 */
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import process from "node:process";
import { Worker as Thread } from "node:worker_threads";
import type { ComputeHost } from "../../kernels/host.ts";

let gpu: GPU | null | undefined;

/** The platform, under the name of the one that it replaces. */
export const WEB_HOST: ComputeHost = {
  get gpu() {
    gpu ??= globalThis.navigator?.gpu ?? loadGpu();
    return gpu ?? undefined;
  },
  get cores() {
    return availableParallelism();
  },
  startWorker: () =>
    new ThreadWorker(new URL("./worker.js", import.meta.url)) as EventTarget as Worker,
  keepAlive: (worker, alive) => (worker as EventTarget as ThreadWorker).keepAlive(alive),
};

/** The package `webgpu`: Dawn, as in Chromium. */
interface Dawn {
  create(options: readonly string[]): GPU;
  /** `GPUBufferUsage` and others, which the standard makes global. */
  readonly globals: object;
}

/** WebGPU's entry point; null if the package is not installed. */
function loadGpu(): GPU | null {
  try {
    const { create, globals } = createRequire(import.meta.url)("webgpu") as Dawn;
    Object.assign(globalThis, globals);
    return create([]);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "MODULE_NOT_FOUND") {
      process.emitWarning(`Cannot load the package "webgpu": ${message}`);
    }
    return null;
  }
}

/** A thread with the events of a page's `Worker`. */
class ThreadWorker extends EventTarget {
  readonly #thread: Thread;
  /** Reasons to keep the process alive. */
  #reasons = 1;

  constructor(url: URL) {
    super();
    this.#thread = new Thread(url);
    this.#thread.on("message", (data: unknown) => {
      this.dispatchEvent(new MessageEvent("message", { data }));
    });
    this.#thread.on("error", ({ message }: Error) => {
      this.dispatchEvent(Object.assign(new Event("error", { cancelable: true }), { message }));
    });
  }

  postMessage(message: unknown): void {
    this.#thread.postMessage(message);
  }

  terminate(): void {
    void this.#thread.terminate();
  }

  keepAlive(alive: boolean): void {
    this.#reasons += alive ? 1 : -1;
    if (this.#reasons > 0) this.#thread.ref();
    else this.#thread.unref();
  }
}
