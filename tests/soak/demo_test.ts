import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { DEMO, type DemoGolden, testDemo } from "../engine/demo.ts";
import { greedy, readJson } from "../testing.ts";

testDemo("js");

Deno.test("the demo without a KV cache draws PyTorch's 600 ids on the CPU", async () => {
  await using model = await loadModel(DEMO, { device: "cpu" });
  const golden = readJson<DemoGolden>("demo/golden.json");
  const expected = golden.F16.greedy_kv_off;
  const drawn = await greedy(model, golden.prompt, expected.length, { useKvCache: false });
  assert.deepEqual(drawn, expected);
});
