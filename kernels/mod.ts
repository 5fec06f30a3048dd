/**
 * The compute layer alone: tensors, operations and the backends that run them. It knows nothing
 * of models, files or text.
 *
 * ```ts
 * import { openBackend } from "@wgslm/wgslm/kernels";
 *
 * await using backend = await openBackend("js");
 * const x = backend.tensor([1, 4], "F32", "activations");
 * const y = backend.tensor([1, 4], "F32", "activations");
 * const weight = backend.tensor([4], "F32", "weights");
 * backend.write(x, new Float32Array([1, 2, 3, 4]));
 * backend.write(weight, new Float32Array([1, 1, 1, 1]));
 * using plan = await backend.record((k) => k.norm(y, x, { kind: "rms", weight, eps: 1e-5 }));
 * plan.run({ rows: 1, position: 0, slot: 0, length: 1 });
 * console.log(await backend.read(y)); // Float32Array [0.365, 0.730, 1.095, 1.461]
 * ```
 *
 * @module
 */
import type { Backend, BackendName } from "./backend.ts";
import type { ComputeHost } from "./host.ts";
import { openJsBackend } from "./js/backend.ts";
import { probeLimits } from "./js/limits.ts";
import { openWasmBackend, wasmRunsHere } from "./wasm/backend.ts";
import { measureWasm } from "./wasm/limits.ts";
import { measureWebGpu, openWebGpuBackend, probeWebGpu, type TileStore } from "./webgpu/backend.ts";

/**
 * What `openBackend` takes: a backend, `cpu` for the best that runs on the processor, or
 * `auto` for the best of all.
 */
export type Device = "auto" | "cpu" | BackendName;

/** How a backend is to be opened; what does not concern it is passed over. */
export interface BackendOptions {
  /**
   * Threads that may compute, on the processor; default as many as are worth having.
   * The typed arrays have one.
   */
  readonly threads?: number;
  /** Whether a GPU's kernels are chosen by measuring them; default true. */
  readonly tune?: boolean;
  /** Where those choices are kept; default nowhere. */
  readonly store?: TileStore;
  /** The platform that GPU, processors and threads are taken from; default by web standards. */
  readonly host?: ComputeHost;
}

/**
 * Opens a backend. `cpu` is WebAssembly where its SIMD is known, else the typed arrays; `auto` is a
 * real GPU if there is one, else `cpu`, and never a software adapter.
 * @throws {DeviceError} when it cannot run here.
 * @throws {RangeError} on an option out of range.
 */
export async function openBackend(
  device: Device = "auto",
  options: BackendOptions = {},
): Promise<Backend> {
  switch (device) {
    case "webgpu":
      return await openWebGpuBackend(options);
    case "wasm":
      return await openWasmBackend(options);
    case "js":
      return openJsBackend();
    case "cpu":
      return await openCpu(options);
    default:
      return (await probeWebGpu(options.host))?.software === false
        ? await openWebGpuBackend(options)
        : await openCpu(options);
  }
}

async function openCpu(options: BackendOptions): Promise<Backend> {
  return wasmRunsHere() ? await openWasmBackend(options) : openJsBackend();
}

/** What a device can do at most. */
export interface DeviceLimits {
  /** Bytes that it reads from memory per second. */
  readonly readBytesPerSec: number;
  /** Multiply-adds ×2 per second, in F32. */
  readonly flopsPerSec: number;
}

/**
 * Measures the device of a backend, with as many threads, in about half a second.
 * @param backend what is measured; an opened backend, or the name and the threads of one.
 * @param host the platform that GPU and threads are taken from; default by web standards.
 * @throws {DeviceError} If the device or the threads cannot be opened once more.
 * @example
 * ```ts
 * import { measureLimits } from "@wgslm/wgslm/kernels";
 *
 * const { readBytesPerSec } = await measureLimits({ name: "js", threads: 1 });
 * console.log(`${(readBytesPerSec / 1e9).toFixed(1)} GB/s`);
 * ```
 */
export async function measureLimits(
  { name, threads }: Pick<Backend, "name" | "threads">,
  host?: ComputeHost,
): Promise<DeviceLimits> {
  switch (name) {
    case "webgpu":
      return await measureWebGpu(host);
    case "wasm":
      return await measureWasm(threads, host);
    case "js": {
      const { readGBs, flopsGFs } = probeLimits();
      return { readBytesPerSec: 1e9 * readGBs, flopsPerSec: 1e9 * flopsGFs };
    }
  }
}

export type { Activation } from "./ops/activation.ts";
export type { AttentionOptions } from "./ops/attention/mod.ts";
export type {
  Backend,
  BackendName,
  KernelText,
  KernelTime,
  Plan,
  Recorder,
  Segment,
  Step,
  TensorSizes,
} from "./backend.ts";
export type { EmbedOptions } from "./ops/embed.ts";
export { DeviceError } from "./errors.ts";
export type { ComputeHost } from "./host.ts";
export type { KvCache, WriteKvOptions } from "./ops/kv_cache/mod.ts";
export type { MatmulOptions } from "./ops/matmul/mod.ts";
export { Memory, type MemoryFigure } from "./memory.ts";
export type { Norm, NormOptions } from "./ops/norm.ts";
export type { Sampling } from "./ops/sample/mod.ts";
export { BYTES, hostArray, narrow, type Weight, type WeightDtype, widen } from "./formats/mod.ts";
export * from "./tensor.ts";
export {
  measureWebGpu,
  probeWebGpu,
  type TileStore,
  type WebGpuAdapter,
  type WebGpuLimits,
} from "./webgpu/backend.ts";
