import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { greedy, readJson } from "../testing.ts";
import { DEMO, type DemoGolden, testDemo } from "./demo.ts";
import { testGoldens } from "./goldens.ts";

testGoldens("js");
testDemo("cpu"); // tests/soak/demo_test.ts runs it on typed arrays

Deno.test("the demo without the cache draws PyTorch's ids past its window", async () => {
  await using model = await loadModel(DEMO, { device: "cpu" });
  const { prompt, F16 } = readJson<DemoGolden>("demo/golden.json");
  // Without a cache an id depends only on the ids before it, so the golden's own beginning can be
  // the prompt.
  const known = 505;
  const ids = [...model.tokenizer.encode(prompt), ...F16.greedy_kv_off.slice(0, known)];
  assert.deepEqual(
    await greedy(model, ids, 6, { useKvCache: false }),
    F16.greedy_kv_off.slice(known, known + 6),
  );
});
