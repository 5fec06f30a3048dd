/**
 * The compute layer alone: tensors, operations and the backends that run them. It knows nothing of models, files or text.
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
import { openJsBackend } from "./js/backend.ts";
import { openWasmBackend } from "./wasm/backend.ts";
import { openWebGpuBackend } from "./webgpu/backend.ts";

/** What `openBackend` takes: a backend, `cpu` for the best that runs on the processor, or `auto` for the best of all. */
export type Device = "auto" | "cpu" | BackendName;

/**
 * Opens a backend. `cpu` and `auto` are the typed arrays until the other backends know every operation.
 * @throws {DeviceError} when it cannot run here.
 */
export function openBackend(device: Device = "auto"): Promise<Backend> {
  switch (device) {
    case "webgpu":
      return openWebGpuBackend();
    case "wasm":
      return openWasmBackend();
    default:
      return Promise.resolve(openJsBackend());
  }
}

export type { Activation } from "./activation.ts";
export type { AttentionOptions } from "./attention/mod.ts";
export type { Backend, BackendName, Plan, Recorder, Step } from "./backend.ts";
export type { EmbedOptions } from "./embed.ts";
export { DeviceError } from "./errors.ts";
export type { KvCache, WriteKvOptions } from "./kv_cache/mod.ts";
export type { MatmulOptions } from "./matmul/mod.ts";
export { Memory, type MemoryFigure } from "./memory.ts";
export type { Norm, NormOptions } from "./norm.ts";
export type { Sampling } from "./sample/mod.ts";
export * from "./tensor.ts";
