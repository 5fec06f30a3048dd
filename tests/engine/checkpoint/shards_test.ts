import assert from "node:assert/strict";
import { openCheckpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { loadModel } from "../../../engine/load.ts";
import { inTempFolder, writeSafetensors, type WrittenTensor } from "../../safetensors.ts";
import { fixture, greedy, readJson } from "../../testing.ts";

type Tensors = Record<string, WrittenTensor>;

/** Writes the index of a folder: the file of each tensor. */
const writeIndex = (folder: string, weight_map: unknown) =>
  Deno.writeTextFile(
    `${folder}/model.safetensors.index.json`,
    JSON.stringify({ metadata: { total_size: 0 }, weight_map }),
  );

const one = (value: number): WrittenTensor => ({
  dtype: "F32",
  shape: [1],
  data: Float32Array.of(value),
});

/** Two shards: a and b in the first, c in the second. */
async function writeShards(folder: string): Promise<void> {
  await writeSafetensors(`${folder}/m-1.safetensors`, { a: one(1), b: one(2) }, { format: "pt" });
  await writeSafetensors(`${folder}/m-2.safetensors`, { c: one(3) });
}

const MAP = { a: "m-1.safetensors", b: "m-1.safetensors", c: "m-2.safetensors" };

Deno.test("openCheckpoint() reads tensors from every shard when a folder has an index", () =>
  inTempFolder(async (folder) => {
    await writeShards(folder);
    await writeIndex(folder, MAP);
    for (const source of [folder, `${folder}/model.safetensors.index.json`]) {
      using checkpoint = await openCheckpoint(source);
      assert.deepEqual(checkpoint.tensors().map(({ name }) => name), ["a", "b", "c"]);
      assert.deepEqual([...await checkpoint.read("b"), ...await checkpoint.read("c")], [2, 3]);
      assert.deepEqual(checkpoint.metadata, { format: "pt" });
      assert.equal(checkpoint.path, `${folder}/model.safetensors.index.json`);
    }
  }));

Deno.test("openCheckpoint() reports how an index and its shards disagree", () =>
  inTempFolder(async (folder) => {
    await writeShards(folder);
    const cases: [map: unknown, message: RegExp][] = [
      [{ ...MAP, c: "m-3.safetensors" }, /1 of its 2 shards are missing: m-3\.safetensors$/],
      [{ ...MAP, b: "m-2.safetensors" }, /expected "b" in m-2\.safetensors, got it in m-1/],
      [{ a: MAP.a, c: MAP.c }, /expected "b" in no shard, got it in m-1/],
      [{ ...MAP, d: "m-2.safetensors" }, /expected "d" in m-2\.safetensors, got a file without/],
      [
        { ...MAP, c: "../m-2.safetensors" },
        /file of "c" to be a \.safetensors file beside the index, got "\.\.\/m-2/,
      ],
      [{ ...MAP, c: "/etc/passwd" }, /file beside the index/],
      [{ ...MAP, c: "a\\b" }, /file beside the index/],
      [{ ...MAP, c: "m\n2" }, /file beside the index/],
      [{ ...MAP, c: "m-2.bin" }, /to be a \.safetensors file beside the index, got "m-2\.bin"/],
      [{ ...MAP, c: 2 }, /file beside the index, got 2/],
      [{}, /weight_map/],
      [["m-1.safetensors"], /weight_map/],
      [null, /weight_map/],
    ];
    for (const [map, message] of cases) {
      await writeIndex(folder, map);
      await assert.rejects(openCheckpoint(folder), { name: "CheckpointError", message });
    }
    await Deno.writeTextFile(`${folder}/model.safetensors.index.json`, '{"weight_map": {"a": ');
    await assert.rejects(openCheckpoint(folder), { name: "CheckpointError", message: /JSON/ });
  }));

Deno.test("openCheckpoint() refuses a tensor that is in two shards", () =>
  inTempFolder(async (folder) => {
    await writeShards(folder);
    await writeSafetensors(`${folder}/m-2.safetensors`, { c: one(3), a: one(1) });
    await writeIndex(folder, MAP);
    await assert.rejects(openCheckpoint(folder), {
      name: "CheckpointError",
      message: /every tensor in one shard, got "a" in m-1\.safetensors and m-2\.safetensors/,
    });
    // A damaged shard closes the ones before it: Deno's resource sanitizer checks that.
    await Deno.writeTextFile(`${folder}/m-2.safetensors`, "torn");
    await assert.rejects(openCheckpoint(folder), { name: "CheckpointError", message: /m-2/ });
  }));

Deno.test("loadModel() draws the same ids from four shards as from one file", () =>
  inTempFolder(async (folder) => {
    const shards: Tensors[] = [{}, {}, {}, {}];
    const map: Record<string, string> = {};
    {
      using whole = await openCheckpoint(fixture("tiny/gpt2"));
      for (const [i, { name, shape }] of whole.tensors().entries()) {
        shards[i % 4][name] = { dtype: "F32", shape, data: await whole.read(name) };
        map[name] = `model-${i % 4}.safetensors`;
      }
    }
    for (const [i, tensors] of shards.entries()) {
      await writeSafetensors(`${folder}/model-${i}.safetensors`, tensors);
    }
    await writeIndex(folder, map);
    await Deno.copyFile(fixture("tiny/gpt2/config.json"), `${folder}/config.json`);
    const golden = readJson<{ prompt_ids: number[]; greedy_ids: number[] }>(
      "tiny/gpt2/golden.json",
    );
    await using model = await loadModel(folder, { device: "js" });
    assert.deepEqual(await greedy(model, golden.prompt_ids, 40), golden.greedy_ids);
  }));
