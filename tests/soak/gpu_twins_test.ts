/** Twin tests of WebGPU in all their shapes, where other tests have small ones. */
import { twinTests } from "../kernels/twins.ts";
import { attentionTwinTests } from "../kernels/twins_attention.ts";
import { gpuTwinTests } from "../kernels/twins_gpu.ts";
import { kvTwinTests } from "../kernels/twins_kv.ts";

const VARIED =
  /matmul.*ragged|writeKv.*(normed|rounds)|attention.*(ragged|reads|one row|models|very|pair)/;

await gpuTwinTests("soak/gpu_twins_test.ts", (test) => {
  for (const register of [twinTests, attentionTwinTests, kvTwinTests]) {
    register((name, run) => VARIED.test(name) && test(name, run));
  }
});
