/**
 * GPT kernels without the engine: tensors, operations and the backends that run them.
 *
 * A product with a weight, y = x · Wᵀ, on any backend:
 *
 * ```ts
 * import { bytesOf, openBackend } from "@wgslm/wgslm/kernels";
 *
 * await using backend = await openBackend("js"); // or "auto", "webgpu", "wasm", "cpu"
 * const W = new Float32Array([1, 2, 3, 4, 5, 6]); // [N, K] = [2, 3]
 * const weight = await backend.weight([2, 3], "F32", (row, count, into) => {
 *   into.set(bytesOf(W.subarray(3 * row, 3 * (row + count))));
 * }, { stored: "NK" });
 * const [x, y] = [3, 2].map((width) => backend.tensor([1, width], "F32", "activations"));
 * using plan = await backend.record((k) => k.matmul(y, x, weight));
 * backend.write(x, new Float32Array([1, 0, 1])); // x [T, K]
 * plan.run({ rows: 1, position: 0, slot: 0, length: 1 });
 * console.log(await backend.read(y)); // y [T, N]: Float32Array [4, 10]
 * ```
 *
 * A norm:
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
import type { Activations, Backend, BackendName } from "./backend.ts";
import type { ComputeHost } from "./host.ts";
import { openJsBackend } from "./js/backend.ts";
import { openJsMeter, probeLimits } from "./js/limits.ts";
import type { DeviceLimits, LimitMeter } from "./meter.ts";
import { openWasmBackend } from "./wasm/backend.ts";
import { lackForWasm } from "./wasm/features.ts";
import { measureWasm, openWasmMeter } from "./wasm/limits.ts";
import {
  GpuMeter,
  measureWebGpu,
  openWebGpuBackend,
  probeWebGpu,
  type TileStore,
} from "./webgpu/backend.ts";

/** A backend by name; `cpu` for the fastest on the CPU; `auto` for the fastest of all. */
export type Device = "auto" | "cpu" | BackendName;

/** Options of `openBackend`. Each backend ignores those of the others. */
export interface BackendOptions {
  /** `wasm`: number of threads; default as many as make it faster, by measurement. */
  readonly threads?: number;
  /** `wasm`: bits of x in products with blocked weights: 16 ("exact", the default) or 8. */
  readonly activations?: Activations;
  /** `webgpu`: whether to choose kernels by timing them; default true. */
  readonly tune?: boolean;
  /** `webgpu`: where to keep those choices; default nowhere. */
  readonly store?: TileStore;
  /** Platform that provides GPU, cores and threads; default by web standards. */
  readonly host?: ComputeHost;
}

/**
 * Opens a backend.
 *
 * @param device `cpu` is WebAssembly on platforms with its SIMD, else typed arrays; `auto` (the
 *   default) is a hardware GPU if there is one, else `cpu`, but never a software adapter.
 * @param options threads, tuning and platform.
 * @throws {DeviceError} If the platform cannot run it.
 * @throws {RangeError} If an option is out of range.
 * @example
 * ```ts
 * import { openBackend } from "@wgslm/wgslm/kernels";
 *
 * await using backend = await openBackend("cpu", { threads: 1 });
 * console.log(`${backend.name}: ${backend.description}`);
 * ```
 */
export async function openBackend(
  device: Device = "auto",
  options: BackendOptions = {},
): Promise<Backend> {
  switch (await resolveDevice(device, options.host)) {
    case "webgpu":
      return await openWebGpuBackend(options);
    case "wasm":
      return await openWasmBackend(options);
    case "js":
      return openJsBackend(device === "js" ? undefined : `runs as JavaScript: no ${lackForWasm()}`);
  }
}

/**
 * Names the backend that `openBackend` would open for a device; opening it may still fail.
 *
 * @param device as of `openBackend`.
 * @param host platform that provides the GPU; default by web standards.
 * @throws {TypeError} If the platform's WebGPU fails in another way than by having no adapter.
 * @example
 * ```ts
 * import { resolveDevice } from "@wgslm/wgslm/kernels";
 *
 * console.log(await resolveDevice("cpu")); // wasm
 * ```
 */
export async function resolveDevice(device: Device, host?: ComputeHost): Promise<BackendName> {
  if (device === "webgpu" || device === "wasm" || device === "js") return device;
  const isGpu = device !== "cpu" && (await probeWebGpu(host))?.software === false;
  return isGpu ? "webgpu" : lackForWasm() === undefined ? "wasm" : "js";
}

/**
 * Measures the limits of a backend's device in about half a second.
 *
 * @param backend an open backend, or the name and number of threads of one.
 * @param host platform that provides GPU and threads; default by web standards.
 * @throws {DeviceError} If the device or its threads cannot be opened a second time.
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

/**
 * Whether a backend is the plain one, whose results the others are compared with.
 *
 * @param backend an open backend, or the name of one.
 * @example
 * ```ts
 * import { isPlain } from "@wgslm/wgslm/kernels";
 *
 * console.log(isPlain({ name: "js" }), isPlain({ name: "wasm" })); // true false
 * ```
 */
export function isPlain({ name }: Pick<Backend, "name">): boolean {
  return name === "js";
}

/**
 * Opens a meter of a backend's device, for repeated measurements of a few milliseconds.
 *
 * @param backend an open backend, or the name and number of threads of one.
 * @param bytes size of the buffer to read; at most 256 MiB, a software adapter's at most 64 MiB.
 * @param host platform that provides GPU and threads; default by web standards.
 * @throws {DeviceError} If the device or its threads cannot be opened a second time.
 * @example
 * ```ts
 * import { openLimitMeter } from "@wgslm/wgslm/kernels";
 *
 * await using meter = await openLimitMeter({ name: "js", threads: 1 }, 2 ** 20);
 * const { readBytesPerSec } = await meter.measure(2);
 * console.log(`${(readBytesPerSec / 1e9).toFixed(1)} GB/s`);
 * ```
 */
export async function openLimitMeter(
  { name, threads }: Pick<Backend, "name" | "threads">,
  bytes: number,
  host?: ComputeHost,
): Promise<LimitMeter> {
  const most = Math.min(bytes, 256 << 20);
  switch (name) {
    case "webgpu":
      return await GpuMeter.open(host, most);
    case "wasm":
      return await openWasmMeter(threads, { host, bytes: most });
    case "js":
      return openJsMeter(most);
  }
}

export type { DeviceLimits, LimitMeter } from "./meter.ts";
export type { Activation } from "./ops/activation.ts";
export type { AttentionOptions } from "./ops/attention/mod.ts";
export type {
  Activations,
  Backend,
  BackendName,
  KernelText,
  KernelTime,
  Plan,
  Recorder,
  Segment,
  Step,
  TensorSizes,
  TensorSpec,
} from "./backend.ts";
export type { EmbedOptions } from "./ops/embed.ts";
export { DeviceError } from "./errors.ts";
export type { ComputeHost } from "./host.ts";
export type { KvCache, WriteKvOptions } from "./ops/kv_cache/mod.ts";
export type { MatmulOptions } from "./ops/matmul/mod.ts";
export { Memory, type MemoryFigure } from "./memory.ts";
export type { Norm, NormOptions } from "./ops/norm.ts";
export type { Sampling } from "./ops/sample/mod.ts";
export {
  BYTES,
  type FloatDtype,
  hostArray,
  narrow,
  type Weight,
  type WeightDtype,
  widen,
} from "./formats/mod.ts";
export type { KvDtype } from "./formats/kv.ts";
export * from "./tensor.ts";
export {
  measureWebGpu,
  probeWebGpu,
  type TileStore,
  type WebGpuAdapter,
  type WebGpuLimits,
} from "./webgpu/backend.ts";
