/**
 * Twin tests of WebGPU. Kernels for hardware and for software adapters differ; either adapter can
 * run both. They are two files, so that they run beside each other.
 *
 * @module
 */
import type { Backend } from "../../kernels/backend.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";
import { shareDevices } from "./shared_gpu.ts";
import { twinTests } from "./twins.ts";
import { attentionTwinTests, randomTwinTest } from "./twins_attention.ts";
import { kvTwinTests } from "./twins_kv.ts";
import { sampleTwinTests } from "./twins_sample.ts";

/** Registers the tests of all operations. */
export async function gpuTwinTests(software: boolean, file: string): Promise<void> {
  const ignore = await ignoreWithoutAdapter(file);
  if (!ignore) shareDevices();
  const what = software ? "a software adapter" : "a GPU";
  const test = (name: string, run: (backend: Backend) => Promise<void>) =>
    Deno.test({
      name: `${name}, with kernels for ${what}`,
      ignore,
      fn: async () => {
        await using backend = await openWebGpuBackend({ software, tune: false });
        await run(backend);
      },
    });
  for (const add of [twinTests, sampleTwinTests, attentionTwinTests, kvTwinTests]) add(test);
  randomTwinTest(test, 2); // the soak test has more
}
