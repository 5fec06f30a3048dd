/**
 * Child process limited to half a gigabyte more: prints a backend's errors, one per line, and that
 * it still works.
 */
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { succeeds } from "../process.ts";

const ROOM_MIB = 512;

const backend = await openWebGpuBackend({ software: false, tune: false });
const status = Deno.readTextFileSync("/proc/self/status");
const usedKiB = Number(/VmSize:\s+(\d+)/.exec(status)?.[1]);
const args = ["--pid", `${Deno.pid}`, `--as=${1024 * usedKiB + ROOM_MIB * 2 ** 20}`];
if (!await succeeds("prlimit", ...args)) throw new Error("no prlimit");

async function report(work: () => Promise<unknown>): Promise<void> {
  try {
    console.log(`done: ${await work()}`);
  } catch (error) {
    console.log(`${(error as Error).name}: ${(error as Error).message}`);
  }
}

await report(() => backend.expectFree!("a model", 2 ** 31));
await report(async () => {
  await backend.weight([2 ** 14, 2 ** 14], "F32", () => {}, { stored: "NK" });
});
await report(async () => {
  const tensors = Array.from({ length: 16 }, () => backend.tensor([2 ** 24], "F32", "kvCache"));
  await backend.read(tensors[0], 0, 1);
});
const small = backend.tensor([1], "F32", "activations");
backend.write(small, new Float32Array([7]));
await report(() => backend.read(small));
await backend[Symbol.asyncDispose]();
console.log(`left: ${backend.memory.current}`);
