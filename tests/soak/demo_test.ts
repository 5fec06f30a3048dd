import assert from "node:assert/strict";
import { loadModel } from "../../engine/model.ts";
import { greedy, readJson } from "../testing.ts";

const DEMO = new URL("../../bench/demo", import.meta.url).pathname;

Deno.test("the demo without the cache draws PyTorch's last 100 of 600 ids, all past the window", async () => {
  await using model = await loadModel(DEMO, { device: "js" });
  const golden = readJson<{ prompt: string; F16: { greedy_kv_off: number[] } }>("demo/golden.json");
  const expected = golden.F16.greedy_kv_off;
  const known = 500;
  const ids = [...model.tokenizer.encode(golden.prompt), ...expected.slice(0, known)];
  const drawn = await greedy(model, ids, expected.length - known, { useKvCache: false });
  assert.deepEqual(drawn, expected.slice(known));
});
