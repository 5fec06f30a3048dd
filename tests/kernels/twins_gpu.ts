/**
 * Twin tests of WebGPU. Kernels for hardware and for software adapters differ; either adapter can
 * run both. Files differ by operation, so that they run beside each other and compile a shader that
 * both kinds of kernels have once.
 *
 * @module
 */
import type { Backend } from "../../kernels/backend.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";
import { shareDevices } from "./shared_gpu.ts";
import { type TwinOptions, twinTests } from "./twins.ts";
import { attentionTwinTests } from "./twins_attention.ts";
import { sampleTwinTests } from "./twins_sample.ts";

/** Registers a test of an open backend. */
type Test = (name: string, run: (backend: Backend) => Promise<void>) => void;

/** Calls `register` for both kinds of kernels, and gives their tests one device. */
export async function gpuTwinTests(file: string, register: (test: Test) => void): Promise<void> {
  const ignore = await ignoreWithoutAdapter(file);
  if (!ignore) shareDevices();
  for (const software of [false, true]) {
    register((name, run) => {
      Deno.test({
        name: `${name}, with kernels for ${software ? "a software adapter" : "a GPU"}`,
        ignore,
        fn: async () => {
          await using backend = await openWebGpuBackend({ software, tune: false });
          await run(backend);
        },
      });
    });
  }
}

/**
 * Registers the twin tests of some names on a device without subgroups; other tests use them if the
 * device has them.
 */
export async function twinTestsWithoutSubgroups(
  file: string,
  names: RegExp,
  options?: TwinOptions,
): Promise<void> {
  const ignore = await ignoreWithoutAdapter(file);
  if (!ignore) shareDevices();
  const test: Test = (name, run) => {
    if (!names.test(name) || name.includes("Llama")) return;
    Deno.test({
      name: `${name}, without subgroups`,
      ignore,
      async fn() {
        const software = name.startsWith("sample") ? false : undefined;
        await using backend = await openWebGpuBackend({ subgroups: false, software, tune: false });
        await run(backend);
      },
    });
  };
  for (const register of [twinTests, attentionTwinTests, sampleTwinTests]) register(test, options);
}
