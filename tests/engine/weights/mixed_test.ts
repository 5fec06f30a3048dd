/**
 * Files whose q, k and v have different dtypes: each is kept in its own.
 */
import assert from "node:assert/strict";
import { readArchitecture, readGguf } from "../../../engine/architecture/mod.ts";
import { openCheckpoint, openWeights } from "../../../engine/checkpoint/checkpoint.ts";
import { bytesOfNumbers } from "../../../engine/checkpoint/dtypes.ts";
import { checkpointWeights, weightBytes } from "../../../engine/weights/mod.ts";
import { loadModel } from "../../../engine/load.ts";
import { type FloatDtype, narrow } from "../../../kernels/formats/mod.ts";
import { sizeOf } from "../../../kernels/tensor.ts";
import { inTempFolder, writeSafetensors, type WrittenTensor } from "../../safetensors.ts";
import { assertClose, fixture, greedy, readJson, TOLERANCE } from "../../testing.ts";

Deno.test("checkpointWeights() keeps the blocks of q, k and v whose types differ", async () => {
  for (const file of ["llama-w256-q4_k_m.gguf", "llama-w256-q3_k_m.gguf"]) {
    using checkpoint = await openWeights(fixture(`gguf/${file}`));
    const source = await checkpointWeights(checkpoint, await readGguf(checkpoint), "auto");
    const stored = checkpoint.tensors();
    const bytes = stored.map(({ dtype, shape }) => bytesOfNumbers(dtype, sizeOf(shape)));
    assert.equal(weightBytes(source), bytes.reduce((sum, count) => sum + count), file);
    const { specs, dtype } = source;
    const kept = specs.h.map(({ cAttn }) => cAttn.map(({ weight }) => dtype(weight)));
    if (file.includes("q4_k_m")) assert.deepEqual(kept, [["Q4_K"], ["Q4_K", "Q6_K"]]);
    assert.deepEqual(source.notes, []);
    // Asked for one dtype, they are one matrix.
    const one = await checkpointWeights(checkpoint, await readGguf(checkpoint), "Q8_0");
    assert.ok(one.specs.h.every(({ cAttn }) => cAttn.length === 1));
  }
});

/** The tensors of a folder, its q, k, v and their biases in three dtypes. */
async function mixed(folder: string): Promise<Record<string, WrittenTensor>> {
  using checkpoint = await openCheckpoint(folder);
  const dtypes: Record<string, FloatDtype> = { q_proj: "F16", k_proj: "BF16", v_proj: "F32" };
  const tensors: Record<string, WrittenTensor> = {};
  for (const { name, shape } of checkpoint.tensors()) {
    const dtype = dtypes[name.split(".").at(-2)!] ?? "F32";
    tensors[name] = { dtype, shape, data: narrow(await checkpoint.read(name), dtype) };
  }
  return tensors;
}

Deno.test("logits() of q, k and v in three dtypes equal those of one dtype that holds them", async () => {
  const config = readJson<Record<string, unknown>>("tiny/qwen2/config.json"); // with biases
  const tensors = await mixed(fixture("tiny/qwen2"));
  await inTempFolder(async (folder) => {
    await writeSafetensors(`${folder}/model.safetensors`, tensors);
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(config));
    using checkpoint = await openCheckpoint(folder);
    const a = readArchitecture(config, "config.json");
    const { specs } = await checkpointWeights(checkpoint, a, "auto");
    assert.ok(specs.h.every(({ cAttn }) => cAttn.length === 3));
    const ids = [1, 5, 17, 33, 60, 22, 9];
    const results: { logits: Float32Array; drawn: number[] }[] = [];
    for (const device of ["js", "wasm"] as const) {
      for (const dtype of ["auto", "F32"] as const) {
        await using model = await loadModel(folder, { device, dtype, threads: 1 });
        const drawn = await greedy(model, ids, 4, { useKvCache: true });
        results.push({ logits: await model.logits(ids), drawn });
      }
    }
    const [first, ...others] = results;
    for (const { logits, drawn } of others) {
      assertClose(logits, first.logits, TOLERANCE.logits);
      assert.deepEqual(drawn, first.drawn);
    }
  });
});
