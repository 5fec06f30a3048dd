import assert from "node:assert/strict";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel } from "../../engine/model.ts";
import { writeSafetensors, type WrittenTensor } from "../safetensors.ts";
import { fixture } from "../testing.ts";

type Tensors = Record<string, WrittenTensor>;

/** Loads a fixture with its tensors changed. */
async function loadChanged(name: string, change: (t: Tensors) => void, config = {}) {
  const folder = await Deno.makeTempDir();
  try {
    const tensors: Tensors = {};
    {
      using checkpoint = await openCheckpoint(fixture(name));
      for (const t of checkpoint.tensors()) {
        const data = await checkpoint.read(t.name);
        tensors[t.name] = { dtype: "F32", shape: t.shape, data };
      }
    }
    change(tensors);
    const old = JSON.parse(await Deno.readTextFile(fixture(`${name}/config.json`)));
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ ...old, ...config }));
    await writeSafetensors(`${folder}/model.safetensors`, tensors);
    return await loadModel(folder, { device: "js" });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const refuses = (name: string, change: (t: Tensors) => void, message: RegExp, config = {}) =>
  assert.rejects(loadChanged(name, change, config), { name: "CheckpointError", message });

const LEARNED = "labcore/learned";

Deno.test("loadModel() lists what is missing, left over and misshapen, by name", async () => {
  await refuses(LEARNED, (t) => delete t["ln_f.bias"], /missing: ln_f\.bias$/);
  await refuses(
    LEARNED,
    (t) => delete t["lm_head.weight"],
    /missing: wte\.weight or lm_head\.weight/,
  );
  await refuses(LEARNED, (t) => t["h.9.extra"] = t["ln_f.bias"], /left over: h\.9\.extra$/);
  await refuses(
    LEARNED,
    (t) => t["h.0.mlp.c_fc.weight"] = { ...t["h.0.mlp.c_fc.weight"], shape: [32, 128] },
    /h\.0\.mlp\.c_fc\.weight is \[32,128\], expected \[128,32\]/,
  );
  await refuses(LEARNED, () => {}, /missing: h\.2\..* and 6 more/, { n_layer: 3 });
  await refuses(LEARNED, () => {}, /layers, but/, { n_layer: 2 ** 31 - 1 });
  await refuses(LEARNED, () => {}, /wpe\.weight/, { use_rope: true });
  await refuses(LEARNED, () => {}, /wpe\.weight is \[32,32\]/, { block_size: 64 });
});

Deno.test("loadModel() stores tied tensors once, and refuses ties that differ", async () => {
  await using once = await loadModel(fixture(LEARNED), { device: "js" });
  const copy = (t: Tensors) => t["wte.weight"] = t["lm_head.weight"];
  await using twice = await loadChanged(LEARNED, copy);
  assert.equal(twice.weightsBytes, once.weightsBytes);
  assert.equal(twice.parameters, once.parameters);
  await refuses(LEARNED, (t) => {
    const other = (t["lm_head.weight"].data as Float32Array).slice();
    other[7]++;
    t["wte.weight"] = { ...t["lm_head.weight"], data: other };
  }, /tied, but differ/);
});

Deno.test("loadModel() takes GPT-2 with a head of its own where the config says so", async () => {
  const zeros = (t: Tensors) => {
    const { shape, dtype } = t["transformer.wte.weight"];
    t["lm_head.weight"] = { shape, dtype, data: new Float32Array(shape[0] * shape[1]) };
  };
  await using model = await loadChanged("tiny/gpt2", zeros, { tie_word_embeddings: false });
  assert.deepEqual(await model.logits([1]), new Float32Array(320));
  await refuses("tiny/gpt2", () => {}, /missing: lm_head/, { tie_word_embeddings: false });
});

Deno.test("loadModel() reads integer and F64 weights as F32", async () => {
  await using model = await loadChanged(LEARNED, (t) => {
    for (const [name, w] of Object.entries(t)) {
      t[name] = { ...w, dtype: "F64", data: Float64Array.from(w.data as Float32Array) };
    }
  });
  await using plain = await loadModel(fixture(LEARNED), { device: "js" });
  assert.deepEqual(await model.logits([1, 2, 3]), await plain.logits([1, 2, 3]));
});

Deno.test("loadModel() says which key of a config cannot be", async () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ model_type: "llama" }, /model_type.*got "llama"/],
    [{ model_type: null }, /model_type/],
    [{ n_head: 0 }, /n_head.*got 0/],
    [{ n_head: 5 }, /n_embd.*multiple of n_head/],
    [{ n_layer: -1 }, /n_layer/],
    [{ vocab_size: 1e12 }, /vocab_size/],
    [{ n_embd: "32" }, /n_embd/],
    [{ bias: 1 }, /bias/],
    [{ activation: "swiglu" }, /activation/],
  ];
  for (const [config, message] of cases) await refuses(LEARNED, () => {}, message, config);
});
