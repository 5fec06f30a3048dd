/**
 * Layers of norm and matmul, for tests of threads.
 *
 * @module
 */
import type { Backend } from "../../kernels/backend.ts";
import { narrow, type WeightDtype } from "../../kernels/formats/mod.ts";
import { openWasmBackend } from "../../kernels/wasm/backend.ts";
import { randomNumbers } from "../testing.ts";
import { put, stepOf, upload } from "./twins.ts";

/** Records layers of norm and matmul, F32, BF16 and blocks; returns a function that runs them. */
export async function layers(backend: Backend, T: number): Promise<() => Promise<Float32Array>> {
  const [C, F] = [128, 396];
  const weight = (N: number, K: number, seed: number, dtype: WeightDtype) =>
    upload(backend, { data: bitsOf(N * K, seed, dtype), dtype, shape: [N, K] }, "NK");
  const up = await weight(F, C, 1, "BF16");
  const blocks = [await weight(C, C, 5, "Q8_0"), await weight(C, C, 6, "Q5_1")];
  const down = await weight(C, F, 2, "F32");
  const scale = put(backend, randomNumbers(C, 3), [C]);
  const xs = randomNumbers(T * C, 4);
  const x = put(backend, xs, [T, C]);
  const n = backend.tensor([T, C], "F32", "activations");
  const f = backend.tensor([T, F], "F32", "activations");
  const plan = await backend.record((k) => {
    for (let layer = 0; layer < 2; layer++) {
      k.norm(n, x, { kind: "rms", weight: scale, eps: 1e-5 });
      k.matmul(f, n, up, { activation: "gelu" });
      k.matmul(x, f, down, { residual: true });
      for (const square of blocks) {
        k.norm(n, x, { kind: "rms", weight: scale, eps: 1e-5 });
        k.matmul(x, n, square, { residual: true });
      }
    }
  });
  return async () => {
    backend.write(x, xs);
    plan.run(stepOf(T));
    return await backend.read(x) as Float32Array;
  };
}

/** Finite stored numbers near 0.1. */
function bitsOf(
  count: number,
  seed: number,
  dtype: WeightDtype,
): Float32Array | Uint16Array | Uint8Array {
  const numbers = randomNumbers(count, seed).map((v) => v / 8);
  return dtype === "F32" ? numbers : narrow(numbers, dtype);
}

/** Registers a test that disposes of a backend while a pass is being recorded. */
export function testDisposal(ticks: number): void {
  Deno.test(`asyncDispose() leaves no promise pending ${ticks} ticks into a recording`, async () => {
    const backend = await openWasmBackend({ threads: 2 });
    const recording = layers(backend, 2).catch(() => {}); // rejected, or recorded
    for (let tick = 0; tick < ticks; tick++) await Promise.resolve();
    await backend[Symbol.asyncDispose]();
    await recording;
  });
}
