/**
 * Dtypes of GGUF weights in memory: each part of q, k and v in its own, and F16 for types that no
 * kernel computes with.
 */
import assert from "node:assert/strict";
import { readArchitecture, readGguf } from "../../../engine/architecture/mod.ts";
import { openCheckpoint, openWeights } from "../../../engine/checkpoint/checkpoint.ts";
import { bytesOfNumbers } from "../../../engine/checkpoint/dtypes.ts";
import { checkpointWeights, weightBytes } from "../../../engine/weights/mod.ts";
import { loadModel } from "../../../engine/load.ts";
import { type FloatDtype, narrow } from "../../../kernels/formats/mod.ts";
import { STORED_FORMATS } from "../../../kernels/formats/stored.ts";
import { bytesOf, sizeOf } from "../../../kernels/tensor.ts";
import { inTempFolder, writeSafetensors, type WrittenTensor } from "../../safetensors.ts";
import { assertClose, fixture, greedy, randomNumbers, readJson, TOLERANCE } from "../../testing.ts";

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

const WIDENED = fixture("gguf/llama-w256-widened.gguf");

Deno.test("checkpointWeights() widens types without kernels to F16, with a note", async () => {
  using checkpoint = await openWeights(WIDENED);
  const source = await checkpointWeights(checkpoint, await readGguf(checkpoint), "auto");
  const kept = source.specs.h.map(({ cAttn, attnProj, cFc, cUp, mlpProj }) =>
    [...cAttn, attnProj, cFc, cUp!, mlpProj].map(({ weight }) => source.dtype(weight))
  );
  // TQ2_0, TQ1_0 and MXFP4 are one matrix of F16.
  const layer = ["F16", "IQ4_XS", "F16", "F16", "F16"];
  assert.deepEqual(kept, [layer, layer]);
  assert.deepEqual(source.notes, [
    "widened to F16: 2 of TQ2_0, 2 of TQ1_0, 8 of MXFP4; no kernel computes with their blocks",
  ]);
  for (const device of ["js", "wasm"] as const) {
    const logits: Float32Array[] = [];
    for (const dtype of ["auto", "F32"] as const) {
      await using model = await loadModel(WIDENED, { device, dtype, threads: 1 });
      logits.push(await model.logits([1, 5, 17, 33, 60]));
    }
    assertClose(logits[0], logits[1], TOLERANCE.quantisedLogits, device);
  }
});

Deno.test("checkpointWeights() widens to F32 where F16 would make a number infinite", async () => {
  const bytes = await Deno.readFile(WIDENED);
  const name = "blk.1.ffn_up.weight";
  const first = new Uint8Array(17 * 8);
  {
    using checkpoint = await openWeights(WIDENED);
    await checkpoint.readBytes(name, 0, first);
  }
  const text = (part: Uint8Array) => part.toHex();
  const at = text(bytes).indexOf(text(first)) / 2;
  for (const [exponent, dtype] of [[139, "F16"], [146, "F32"]] as const) {
    bytes.set([exponent, 0x77], at + 17 * 3); // ±6 · 2^(exponent − 127)
    await inTempFolder(async (folder) => {
      await Deno.writeFile(`${folder}/model.gguf`, bytes);
      using checkpoint = await openWeights(`${folder}/model.gguf`);
      const source = await checkpointWeights(checkpoint, await readGguf(checkpoint), "auto");
      const { cFc, cUp } = source.specs.h[1];
      assert.deepEqual([cFc, cUp!].map(({ weight }) => source.dtype(weight)), ["F16", dtype]);
      assert.equal(source.notes.length, dtype === "F32" ? 2 : 1);
      if (dtype === "F32") {
        assert.equal(
          source.notes[1],
          "widened to F32: 1 of MXFP4; numbers are beyond F16's range, or an adapter changes them",
        );
      }
    });
  }
});

Deno.test("bounds of blocks hold for random bytes of every type", () => {
  for (const [dtype, { block, bytes, bound, decode }] of Object.entries(STORED_FORMATS)) {
    if (!bound) continue;
    const noise = bytesOf(Int32Array.from(randomNumbers(64 * bytes, 7), (v) => v * 2 ** 31));
    const view = new DataView(noise.buffer);
    const numbers = new Float32Array(block);
    for (let at = 0; at + bytes <= noise.length; at += bytes) {
      decode(numbers, noise.subarray(at, at + bytes));
      const most = numbers.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
      if (most - most === 0) assert.ok(most <= bound(view, at), `${dtype} ${most}`);
    }
  }
});
