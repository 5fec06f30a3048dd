import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { fixture } from "../testing.ts";

const LEARNED = fixture("labcore/learned");

Deno.test("logits() and generate() name the layer in which numbers stop being finite", async () => {
  const broken: [string, RegExp][] = [
    ["h.1.mlp.c_proj.weight", /first after layer h\.1 of 2/],
    ["h.0.ln_1.weight", /first after layer h\.0 of 2/],
    ["wpe.weight", /first after the embedding/],
    ["ln_f.bias", /final norm or the head/],
  ];
  const bytes = await Deno.readFile(`${LEARNED}/model.safetensors`);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const folder = await Deno.makeTempDir();
  try {
    for (const name of ["config.json", "tokenizer.json"]) {
      await Deno.copyFile(`${LEARNED}/${name}`, `${folder}/${name}`);
    }
    for (const [name, message] of broken) {
      const copy = bytes.slice();
      const at = 8 + length + header[name].data_offsets[0];
      new DataView(copy.buffer).setFloat32(at, NaN, true);
      await Deno.writeFile(`${folder}/model.safetensors`, copy);
      await using model = await loadModel(folder, { device: "js" });
      await assert.rejects(model.logits([0, 1, 2]), { name: "CheckpointError", message });
      await assert.rejects(
        Array.fromAsync(model.generate([0, 1, 2], { maxNewTokens: 2 })),
        { name: "CheckpointError", message },
      );
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("logits() refuses more ids than the context holds", async () => {
  await using model = await loadModel(LEARNED, { device: "js" });
  await assert.rejects(model.logits(Array<number>(33).fill(1)), /at most 32 ids/);
  await assert.rejects(model.logits([]), /empty/);
});
