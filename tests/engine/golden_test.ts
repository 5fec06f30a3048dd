import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { assertClose, greedy, readJson, TOLERANCE } from "../testing.ts";
import { testGoldens } from "./goldens.ts";

testGoldens("js");

const DEMO = new URL("../../bench/demo", import.meta.url).pathname;
interface DemoGolden {
  prompt: string;
  validation_text: string;
  F16: {
    last_logits: number[];
    greedy_kv_on: number[];
    greedy_kv_off: number[];
    first_512_of_validation_mean_nll: number;
  };
}

Deno.test("the demo gives PyTorch's logits and 600 greedy ids, past its window", async () => {
  await using model = await loadModel(DEMO, { device: "js" });
  const { prompt, F16 } = readJson<DemoGolden>("demo/golden.json");
  const logits = await model.logits(model.tokenizer.encode(prompt));
  assertClose(logits.subarray(-65), F16.last_logits, TOLERANCE.logits);
  assert.deepEqual(await greedy(model, prompt, 600), F16.greedy_kv_on);
});

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

Deno.test("the demo gives PyTorch's mean loss on 512 characters", async () => {
  await using model = await loadModel(DEMO, { device: "js" });
  const { validation_text: text, F16 } = readJson<DemoGolden>("demo/golden.json");
  const ids = model.tokenizer.encode(text).slice(0, 513);
  const logits = await model.logits(ids.slice(0, 512));
  let sum = 0;
  const rows = Math.min(512, ids.length - 1);
  for (let t = 0; t < rows; t++) {
    const row = logits.subarray(t * 65, (t + 1) * 65);
    const max = Math.max(...row);
    const total = row.reduce((n, s) => n + Math.exp(s - max), 0);
    sum += Math.log(total) + max - row[ids[t + 1]];
  }
  assertClose([sum / rows], [F16.first_512_of_validation_mean_nll], TOLERANCE.logits);
});
