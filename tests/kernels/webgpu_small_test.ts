/** Models on an adapter with WebGPU's least limits. */
import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { ignoreWithoutAdapter } from "./adapter.ts";
import { CONFIG, SMALL_CASES, SmallAdapter, testSmallModels } from "./small_adapters.ts";
import { BufferSpy } from "./spy.ts";

const ignore = await ignoreWithoutAdapter("webgpu_small_test.ts");

// Each format, and both kinds of kernels; the soak tests have all.
testSmallModels(SMALL_CASES.filter(([dtype, software]) => software === (dtype === "F16")), ignore);

Deno.test({
  name: "loadModel() says in one sentence what exceeds one binding, and keeps nothing",
  ignore,
  async fn() {
    using buffers = new BufferSpy();
    const cases: [bytes: number, expected: RegExp][] = [
      [30 << 10, /^Cannot make "weight F32 \[64,256\]" on webgpu: expected 32 rows within 30720 /],
      [6 << 10, /^Cannot load "random weights" on webgpu: expected no tensor of more than 6144 /],
    ];
    for (const [bytes, message] of cases) {
      using _adapter = new SmallAdapter(bytes, false);
      const options = { device: "webgpu", dtype: "F32", tune: false } as const;
      await assert.rejects(loadModel({ config: CONFIG }, options), { message });
      assert.equal(buffers.alive.size, 0);
    }
  },
});
