import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { assertClose, fixture, greedy, readJson, TOLERANCE } from "../testing.ts";

interface Golden {
  parameters: number;
  ids: number[];
  logits: number[];
  greedy: number[];
}

for (const name of ["with-bias", "without-bias"]) {
  Deno.test(`loadModel() gives PyTorch's logits and ids on nanoGPT ${name}`, async () => {
    const golden = readJson<Golden>(`nanogpt/${name}.golden.json`);
    await using model = await loadModel(fixture(`nanogpt/${name}.pt`), { device: "js" });
    const logits = await model.logits(golden.ids);
    assertClose(logits.subarray(-65), golden.logits, TOLERANCE.logits);
    const [prompt, expected] = [golden.greedy.slice(0, 4), golden.greedy.slice(4)];
    for (const useKvCache of [true, false]) {
      assert.deepEqual(await greedy(model, prompt, 20, { useKvCache }), expected);
    }
    assert.equal(model.parameters, golden.parameters);
    assert.deepEqual([model.slides, model.config.slides, model.config.crops], [true, false, true]);
  });
}
