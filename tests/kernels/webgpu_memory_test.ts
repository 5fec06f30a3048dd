/**
 * A device that is really out of memory: only where the processor plays it, for
 * its room can be bounded.
 */
import assert from "node:assert/strict";
import { probeWebGpu } from "../../kernels/webgpu/backend.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";

const bounded = Deno.build.os === "linux" && (await probeWebGpu())?.software === true;
if (!bounded) {
  console.warn("webgpu_memory_test.ts: SKIPPED, no adapter whose memory can be bounded");
}
const ignore = await ignoreWithoutAdapter("webgpu_memory_test.ts") || !bounded;

Deno.test({
  name: "a device without memory refuses what is too large, says so, and goes on",
  ignore,
  async fn() {
    const program = new URL("./out_of_memory.ts", import.meta.url).pathname;
    const args = ["run", "-A", program];
    // Vulkan alone: other drivers take room of their own while they look for an adapter.
    const options = { args, env: { DENO_WEBGPU_BACKEND: "vulkan" } };
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), options).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assert.equal(code, 0, text(stderr));
    const [model, weight, tensors, small, left] = text(stdout).trim().split("\n");
    const [, free] = /^DeviceError: Cannot load "a model" .* at most (\d+) bytes .* got 2147483648;/
      .exec(model) ?? assert.fail(model);
    assert.ok(Number(free) > 0 && Number(free) <= 2 ** 29, free);
    assert.match(
      weight,
      /^DeviceError: Cannot make "weight F32 .* out of memory for 1073741824 bytes/,
    );
    assert.match(tensors, /^DeviceError: Cannot finish queued work .*smaller dtype or context/);
    assert.deepEqual([small, left], ["done: 7", "left: 0"]);
  },
});
