/**
 * Tests of blocked weights on WebGPU.
 *
 * @module
 */
import type { WeightDtype } from "../../kernels/formats/mod.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { checkMatmulCase } from "./twins.ts";
import { blockTwinTests } from "./twins_blocks.ts";

/** Registers the tests of one format, with kernels for a GPU or for a software adapter. */
export function blockGpuTests(dtype: WeightDtype, software: boolean, ignore: boolean): void {
  const what = software ? "a software adapter" : "a GPU";
  const test: Parameters<typeof blockTwinTests>[1] = (name, run) =>
    Deno.test({
      name: `${name}, with kernels for ${what}`,
      ignore,
      fn: async () => {
        await using backend = await openWebGpuBackend({ software, tune: false });
        await run(backend);
      },
    });
  blockTwinTests(dtype, test);
  if (software) return;
  // Whole tiles of workgroup memory, and words that some lanes lack.
  test(`matmul() agrees with matmulJs() when rows of ${dtype} are many`, async (backend) => {
    await checkMatmulCase(backend, { T: 70, N: 133, K: 512, dtype });
    await checkMatmulCase(backend, { T: 1, N: 133, K: 1536, dtype });
  });
}
