import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { instrumentsOf } from "../../engine/model.ts";
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

Deno.test("logits() refuses anything but a list of ids", async () => {
  await using model = await loadModel(LEARNED, { device: "js" });
  const logits = model.logits.bind(model) as (ids?: unknown) => Promise<Float32Array>;
  const sparse = [1, 2, 3];
  delete sparse[1];
  const wrong: [ids: unknown, name: string, message: RegExp][] = [
    [[1, undefined], "RangeError", /^Cannot run id undefined: expected an integer from 0 to 64$/],
    [sparse, "RangeError", /^Cannot run id undefined:/],
    [new Array(3), "RangeError", /^Cannot run id undefined:/],
    [[1, null], "RangeError", /id null:/],
    [["1"], "RangeError", /id "1":/],
    [[1n], "RangeError", /id 1n:/],
    [Int32Array.of(1, -1), "RangeError", /id -1:/],
    [undefined, "TypeError", /token ids to be a list of numbers, got undefined$/],
    ["ROMEO:", "TypeError", /token ids to be a list of numbers, got "ROMEO:"$/],
    [{ length: 1, 0: 1 }, "TypeError", /got an object$/],
  ];
  for (const [ids, name, message] of wrong) {
    await assert.rejects(logits(ids), { name, message });
    if (typeof ids === "string" || ids === undefined) continue;
    assert.throws(() => model.generate(ids as number[]), { name, message });
  }
  assert.deepEqual(await logits(Uint8Array.of(1, 2)), await logits([1, 2]));
});

Deno.test("logits() and a prefill run a copy of their ids", async () => {
  await using model = await loadModel(LEARNED, { device: "js" });
  const expected = await model.logits([1, 2, 3]);
  for (const change of [[64, 0, 5], [99, -1, 2], []]) {
    const running = model.generate("A", { maxNewTokens: 3 });
    await running.next();
    const ids = [1, 2, 3];
    const all = model.logits(ids);
    const last = instrumentsOf(model).run(ids, (runner, ids) => runner.lastLogits(ids));
    ids.splice(0, 3, ...change);
    await Array.fromAsync(running);
    assert.deepEqual(await all, expected);
    assert.deepEqual(await last, expected.slice(-65));
  }
});
