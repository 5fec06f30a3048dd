/** What a model asks of the WebGPU backend beyond single operations. */
import { assertClose, randomNumbers, TOLERANCE } from "../testing.ts";
import assert from "node:assert/strict";
import { loadModel } from "../../engine/model.ts";
import type { Backend } from "../../kernels/backend.ts";
import { openBackend } from "../../kernels/mod.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { put, stepOf, upload } from "./twins.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";

const ignore = await ignoreWithoutAdapter("webgpu_model_test.ts");

for (const software of [false, true]) {
  Deno.test({
    name: `a norm that goes into its products gives what it gives before them, as on ${
      software ? "a processor" : "a GPU"
    }`,
    ignore,
    fn: async () => {
      await using gpu = await openWebGpuBackend({ software, tune: false });
      await using js = await openBackend("js");
      for (const T of [1, 5]) {
        for (const [N, K] of [[10, 66], [768, 768], [65, 256], [2304, 528]]) {
          for (const kind of ["layer", "rms"] as const) {
            const [expected, got] = await Promise.all(
              [js, gpu].map((backend) => normedProducts(backend, T, N, K, kind)),
            );
            assertClose(got, expected, TOLERANCE.sum, `${kind} [${T}, ${N}, ${K}]`);
          }
        }
      }
    },
  });
}

/** A product of a norm's result, which another norm then overwrites: only so may the first go into its product. */
async function normedProducts(
  backend: Backend,
  T: number,
  N: number,
  K: number,
  kind: "layer" | "rms",
): Promise<Float32Array> {
  const x = put(backend, randomNumbers(T * K, 1), [T, K]);
  const weight = put(backend, randomNumbers(K, 2), [K]);
  const bias = kind === "layer" ? put(backend, randomNumbers(K, 3), [K]) : undefined;
  const n = backend.tensor([T, K], "F32", "activations");
  const y = backend.tensor([T, N], "F32", "activations");
  const data = randomNumbers(N * K, 4);
  const w = await upload(backend, { data, dtype: "F32", shape: [N, K] }, "NK");
  const options = { kind, weight, bias, eps: 1e-5, offset: kind === "rms" ? 1 : 0 };
  using plan = await backend.record((k) => {
    k.norm(n, x, options);
    k.matmul(y, n, w);
    k.norm(n, x, { kind: "rms", weight, eps: 1e-5 });
  });
  plan.run(stepOf(T));
  return await backend.read(y) as Float32Array;
}

Deno.test({
  name: "loadModel() refuses a cache beyond one binding before anything is uploaded",
  ignore,
  fn: async () => {
    const config = {
      family: "labcore",
      vocab_size: 65,
      block_size: 2 ** 28,
      n_layer: 1,
      n_head: 8,
      n_embd: 512,
      use_rope: true,
    };
    await assert.rejects(
      loadModel({ config }, { device: "webgpu", contextLength: 2 ** 27 }),
      { name: "DeviceError", message: /no tensor of more than \d+ bytes \(one binding\)/ },
    );
  },
});
