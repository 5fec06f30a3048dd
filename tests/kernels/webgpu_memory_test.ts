/** Test of a device out of memory: only on a software adapter, whose memory can be limited. */
import assert from "node:assert/strict";
import { probeWebGpu } from "../../kernels/webgpu/backend.ts";
import { runDeno } from "../process.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";

const bounded = Deno.build.os === "linux" && (await probeWebGpu())?.software === true;
if (!bounded) {
  console.warn("webgpu_memory_test.ts: SKIPPED, no adapter whose memory can be bounded");
}
const ignore = await ignoreWithoutAdapter("webgpu_memory_test.ts") || !bounded;

Deno.test({
  name: "a backend refuses what exceeds the device's memory, names the size, and goes on",
  ignore,
  async fn() {
    const program = new URL("./out_of_memory.ts", import.meta.url).pathname;
    // Vulkan only: other drivers allocate memory while they search for an adapter.
    const env = { DENO_WEBGPU_BACKEND: "vulkan" };
    const { code, stdout, stderr } = await runDeno(["run", "-A", "--no-check", program], { env });
    assert.equal(code, 0, stderr);
    const [model, weight, tensors, small, left] = stdout.trim().split("\n");
    const [, free] = /^DeviceError: Cannot load "a model" .* at most (\d+) bytes .* got 2147483648;/
      .exec(model) ?? assert.fail(model);
    assert.ok(Number(free) > 0 && Number(free) <= 2 ** 29, free);
    assert.match(
      weight,
      /^DeviceError: Cannot make "weight F32 .* expected 1073741824 bytes of free memory, got less/,
    );
    assert.match(tensors, /^DeviceError: Cannot finish queued work .*smaller dtype or context/);
    assert.deepEqual([small, left], ["done: 7", "left: 0"]);
  },
});
