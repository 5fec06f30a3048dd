import assert from "node:assert/strict";
import { openCheckpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { loadModel } from "../../../engine/load.ts";
import { addDelta } from "../../../engine/weights/lora.ts";
import { narrow, widen } from "../../../kernels/formats/mod.ts";
import { inTempFolder, writeSafetensors, type WrittenTensor } from "../../safetensors.ts";
import { assertClose, fixture, readJson, TOLERANCE } from "../../testing.ts";

/** Adapters of tests/fixtures/lora by the feature that each adds; `make.py` writes them. */
const ADAPTERS = {
  "llama-patterns": "ranks and alphas by pattern",
  "gpt2-bias": "trained biases, fan_in_fan_out",
  "gpt_neox-fused": "query, key and value in one matrix, interleaved by head",
  "gpt_neox-head": "modules_to_save: a head whose tensor has another name in the base",
  "phi3-embedding": "rslora, an adapted embedding, gate and up in one matrix",
  "qwen2-embedding": "modules_to_save: an embedding; the tied head keeps the base's",
  "qwen2-saved": "modules_to_save: a head and an embedding that the base ties",
};

for (const [name, feature] of Object.entries(ADAPTERS)) {
  Deno.test(`loadModel() gives the logits of PEFT for ${name} (${feature})`, async () => {
    using golden = await openCheckpoint(fixture(`lora/${name}.golden.safetensors`));
    const ids = [...await golden.read("ids")];
    const expected = await golden.read("logits");
    for (const device of ["js", "wasm"] as const) {
      await using model = await loadModel(fixture(`lora/${name}`), {
        ...{ device, threads: 1, dtype: "F32" },
      });
      assertClose(await model.logits(ids), expected, TOLERANCE.logits, device);
    }
  });
}

for (const name of Object.keys(ADAPTERS)) {
  Deno.test(`loadModel() gives the logits of PEFT for ${name} on a GGUF of the base`, async () => {
    using golden = await openCheckpoint(fixture(`lora/${name}.golden.safetensors`));
    const adapters = [{ path: fixture(`lora/${name}`) }];
    const base = fixture(`gguf/${name.split("-")[0]}.gguf`);
    await using model = await loadModel(base, { device: "wasm", threads: 1, adapters });
    const logits = await model.logits([...await golden.read("ids")]);
    assertClose(logits, await golden.read("logits"), TOLERANCE.logits);
  });
}

Deno.test("loadModel() keeps an adapter's change of a quantised weight in F32", async () => {
  const adapters = [{ path: fixture("lora/llama-patterns") }];
  await using model = await loadModel(fixture("gguf/llama-q8_0.gguf"), { device: "js", adapters });
  using base = await openCheckpoint(fixture("gguf/llama-q8_0.gguf"));
  assert.equal(base.tensors().find(({ name }) => name === "blk.0.attn_q.weight")?.dtype, "Q8_0");
  using golden = await openCheckpoint(fixture("gguf/llama-q8_0.golden.safetensors"));
  const ids = [...await golden.read("ids")];
  const [changed, plain] = [await model.logits(ids), await golden.read("logits")];
  const most = changed.reduce((n, logit, i) => Math.max(n, Math.abs(logit - plain[i])), 0);
  assert.ok(most > 0.01, `the adapter moves logits by ${most}`);
});

/** The base model of people/lora with its adapter `qv` added to `round(base)`, written in F32. */
async function writeMerged(folder: string, round: (base: Float32Array) => Float32Array) {
  const at = (path: string) => fixture(`people/lora/llama/${path}`);
  using base = await openCheckpoint(at("base/model.safetensors"));
  using adapter = await openCheckpoint(at("qv/adapter_model.safetensors"));
  const { r, lora_alpha } = readJson<{ r: number; lora_alpha: number }>(
    "people/lora/llama/qv/adapter_config.json",
  );
  const tensors: Record<string, WrittenTensor> = {};
  for (const { name, shape } of base.tensors()) {
    const data = round(await base.read(name));
    const module = `base_model.model.${name.replace(/weight$/, "")}`;
    if (/\.[qv]_proj\.weight$/.test(name)) {
      const A = await adapter.read(`${module}lora_A.weight`); // [r, K]
      const B = await adapter.read(`${module}lora_B.weight`); // [N, r]
      const K = A.length / r;
      for (let i = 0; i < data.length; i++) {
        const [n, k] = [Math.floor(i / K), i % K];
        for (let j = 0; j < r; j++) data[i] += lora_alpha / r * B[n * r + j] * A[j * K + k];
      }
    }
    tensors[name] = { dtype: "F32", shape, data };
  }
  await writeSafetensors(`${folder}/model.safetensors`, tensors);
  await Deno.copyFile(at("base/config.json"), `${folder}/config.json`);
}

/** Values of BF16 nearest to `values`. */
function roundToBf16(values: Float32Array): Float32Array {
  const rounded = new Float32Array(values.length);
  widen(rounded, narrow(values, "BF16"), "BF16", 0, values.length);
  return rounded;
}

Deno.test("loadModel() merges an adapter in F32 before it rounds to a dtype", async () => {
  const logitsOf = async (path: string) => {
    await using model = await loadModel(path, { device: "js", dtype: "BF16" });
    assert.equal(model.dtype, "BF16");
    return await model.logits([1, 2, 3]);
  };
  const merged = (round: (base: Float32Array) => Float32Array) =>
    inTempFolder(async (folder) => {
      await writeMerged(folder, round);
      return await logitsOf(folder);
    });
  const logits = await logitsOf(fixture("people/lora/llama/qv"));
  assertClose(logits, await merged((base) => base), TOLERANCE.logits);
  const roundedFirst = await merged(roundToBf16);
  assert.throws(() => assertClose(logits, roundedFirst, TOLERANCE.logits), assert.AssertionError);
});

Deno.test("loadModel() scales an adapter; a scale of 0 gives the base", async () => {
  const base = fixture("tiny/llama");
  const logits = async (scale: number | null) => {
    const adapters = scale === null ? [] : [{ path: fixture("lora/llama-patterns"), scale }];
    await using model = await loadModel(base, { device: "js", dtype: "F32", adapters });
    return await model.logits([1, 2, 3]);
  };
  assert.deepEqual(await logits(0), await logits(null));
  assert.notDeepEqual(await logits(1), await logits(null));
  for (const scale of [NaN, Infinity]) {
    await assert.rejects(logits(scale), { name: "RangeError", message: /a finite scale, got/ });
  }
});

Deno.test("loadModel() names the key of an unsupported LoRA feature", async () => {
  const config = readJson<Record<string, unknown>>("lora/llama-patterns/adapter_config.json");
  const cases: [change: Record<string, unknown>, message: RegExp][] = [
    [{ use_dora: true }, /expected "use_dora" to be absent or false/],
    [{ peft_type: "IA3" }, /expected "peft_type" to be "LORA", got "IA3"/],
    [{ peft_type: "PROMPT_TUNING" }, /got "PROMPT_TUNING"/],
    [{ lora_bias: true }, /"lora_bias"/],
    [{ trainable_token_indices: [1] }, /"trainable_token_indices"/],
    [{ target_parameters: ["a"] }, /"target_parameters"/],
    [{ init_lora_weights: "pissa_niter_16" }, /"init_lora_weights" to leave the base as it is/],
    [{ init_lora_weights: "olora" }, /"init_lora_weights"/],
    [{ lora_alpha: "8" }, /"lora_alpha" to be a number/],
    [{ base_model_name_or_path: 7 }, /"base_model_name_or_path" to be text/],
    [{ alpha_pattern: [] }, /"alpha_pattern" to be an object/],
  ];
  for (const [change, message] of cases) {
    await inTempFolder(async (folder) => {
      await Deno.copyFile(
        fixture("lora/llama-patterns/adapter_model.safetensors"),
        `${folder}/adapter_model.safetensors`,
      );
      const text = JSON.stringify({ ...config, ...change });
      await Deno.writeTextFile(`${folder}/adapter_config.json`, text);
      const adapters = [{ path: folder }];
      const loading = loadModel(fixture("tiny/llama"), { device: "js", adapters });
      await assert.rejects(loading, { name: "CheckpointError", message });
    });
  }
});

Deno.test("loadModel() refuses an adapter that misfits the base or lacks files", async () => {
  const merge = (path: string, base = "tiny/llama") =>
    loadModel(fixture(base), { device: "js", adapters: [{ path }] });
  const refuses = (loading: Promise<unknown>, message: RegExp) =>
    assert.rejects(loading, { name: "CheckpointError", message });
  await refuses(merge(fixture("lora/gpt2-bias")), /expected modules of the base model, got "/);
  await refuses(merge(fixture("lora/gpt_neox-fused")), /expected modules of the base model/);
  await refuses(merge(fixture("tiny/llama")), /expected a folder with an adapter_config\.json/);
  await refuses(merge("/nonexistent"), /expected a folder with an adapter_config\.json/);
  await inTempFolder(async (folder) => {
    await Deno.copyFile(
      fixture("lora/llama-patterns/adapter_config.json"),
      `${folder}/adapter_config.json`,
    );
    await refuses(merge(folder), /expected adapter_model\.safetensors in it/);
    // The folder as a model: its base is a relative path, which leads nowhere from here.
    await refuses(loadModel(folder, { device: "js" }), /base_model_name_or_path to be a folder/);
  });
});

Deno.test("loadModel() opens the adapter in a trainer's newest checkpoint", async () => {
  await inTempFolder(async (folder) => {
    const checkpoint = `${folder}/checkpoint-10`;
    for (const name of ["checkpoint-9", "checkpoint-10"]) {
      await Deno.mkdir(`${folder}/${name}`);
    }
    const from = fixture("lora/llama-patterns");
    const config = readJson<object>("lora/llama-patterns/adapter_config.json");
    const base = fixture("tiny/llama");
    await Deno.writeTextFile(
      `${checkpoint}/adapter_config.json`,
      JSON.stringify({ ...config, base_model_name_or_path: base }),
    );
    await Deno.copyFile(
      `${from}/adapter_model.safetensors`,
      `${checkpoint}/adapter_model.safetensors`,
    );
    const load = (source: string) => loadModel(source, { device: "js", dtype: "F32" });
    await using model = await load(folder);
    await using same = await load(from);
    assert.deepEqual(await model.logits([1, 2, 3]), await same.logits([1, 2, 3]));
    assert.deepEqual(model.notes, [`"${folder}" is a trainer's output: opened ${checkpoint}`]);
    // An adapter that names its own folder as its base.
    await Deno.writeTextFile(
      `${checkpoint}/adapter_config.json`,
      JSON.stringify({ ...config, base_model_name_or_path: "." }),
    );
    const refusal = { name: "CheckpointError", message: /expected a model\.safetensors in it/ };
    await assert.rejects(load(folder), refusal);
  });
});

Deno.test("addDelta() adds the given rows of left · right", () => {
  const delta = {
    rank: 2,
    columns: 3,
    left: Float32Array.of(1, 2, 3, 4, 5, 6), // [3, 2]
    right: Float32Array.of(1, 0, 1, 0, 1, 1), // [2, 3]
  };
  const rows = Float32Array.of(10, 10, 10, 20, 20, 20); // rows 1 and 2 of the weight
  addDelta(rows, 1, delta);
  assert.deepEqual([...rows], [10 + 3, 10 + 4, 10 + 7, 20 + 5, 20 + 6, 20 + 11]);
});
