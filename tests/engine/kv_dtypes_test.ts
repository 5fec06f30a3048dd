import assert from "node:assert/strict";
import { describeCheckpoint, loadModel } from "../../engine/load.ts";
import { KV_DTYPES, KV_FORMATS, kvFormatFor } from "../../kernels/formats/kv.ts";
import { fixture } from "../testing.ts";
import { testKvDtypes } from "./kv_dtypes.ts";

testKvDtypes("js");
testKvDtypes("wasm");

Deno.test("the memory of a cache follows its dtype, as the estimate says", async () => {
  const path = fixture("tiny/gemma");
  const sizes = [];
  for (const kvDtype of KV_DTYPES) {
    const { memory } = await describeCheckpoint(path, { kvDtype });
    await using model = await loadModel(path, { device: "js", kvDtype });
    assert.equal(memory.classes.kvCache, model.memory.classes.kvCache.current);
    sizes.push(memory.classes.kvCache);
  }
  assert.equal(sizes[1], sizes[0] / 2);
  assert.equal(sizes[2], sizes[0] * 36 / 128); // heads of 32: 32 bytes, and a word for the scale
});

Deno.test("kvFormatFor() takes the next format that holds the heads", () => {
  const chosen = KV_DTYPES.map((dtype) =>
    [1, 2, 32, 33, 64, 66].map((D) => kvFormatFor(dtype, D).dtype)
  );
  assert.deepEqual(chosen, [
    ["F32", "F32", "F32", "F32", "F32", "F32"],
    ["F32", "F16", "F16", "F32", "F16", "F16"],
    ["F32", "F16", "Q8_0", "F32", "Q8_0", "F16"],
  ]);
});

Deno.test("headDim() of every format inverts width()", () => {
  for (const { headDim, width, multiple } of Object.values(KV_FORMATS)) {
    for (let D = multiple; D <= 1024; D += multiple) assert.equal(headDim(width(D)), D);
  }
});

Deno.test("loadModel() refuses a dtype that no cache has", async () => {
  const kvDtype = "Q4_0" as "F32";
  await assert.rejects(
    loadModel(fixture("tiny/gemma"), { device: "js", kvDtype }),
    { message: 'Cannot load: expected kvDtype to be one of F32 F16 Q8_0, got "Q4_0"' },
  );
});
