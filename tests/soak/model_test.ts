import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { fixture } from "../testing.ts";

Deno.test("150 loads and disposals leave nothing tracked, and resident memory flat", async () => {
  const resident: number[] = [];
  for (let i = 0; i < 150; i++) {
    const model = await loadModel(fixture("labcore/rope66"), { device: "js" });
    await Array.fromAsync(model.generate([1, 2, 3], { maxNewTokens: 8, seed: i }));
    await model[Symbol.asyncDispose]();
    assert.equal(model.memory.current, 0);
    resident.push(Deno.memoryUsage().rss);
  }
  // A load has about 2 MB of weights: 100 leaked loads would be 200 MB. The GC is slow to free the
  // first ones.
  const grown = resident[149] - resident[49];
  assert.ok(grown < 60e6, `grew by ${grown} bytes over 100 loads`);
});
