import assert from "node:assert/strict";
import { openCheckpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { loadModel } from "../../../engine/load.ts";
import { addDelta } from "../../../engine/weights/lora.ts";
import { inTempFolder } from "../../safetensors.ts";
import { assertClose, fixture, readJson, TOLERANCE } from "../../testing.ts";

const CASES = [
  "llama-patterns",
  "gpt2-bias",
  "gpt_neox-fused",
  "gpt_neox-head",
  "phi3-embedding",
  "qwen2-embedding",
  "qwen2-saved",
];

for (const name of CASES) {
  Deno.test(`loadModel() merges an adapter as PEFT does: ${name}`, async () => {
    using golden = await openCheckpoint(fixture(`lora/${name}.golden.safetensors`));
    const ids = [...await golden.read("ids")];
    const expected = await golden.read("logits");
    for (const device of ["js", "wasm"] as const) {
      await using model = await loadModel(fixture(`lora/${name}`), { device, dtype: "F32" });
      assertClose(await model.logits(ids), expected, TOLERANCE.logits, device);
    }
  });
}

Deno.test("loadModel() merges an adapter in F32 before rounding to a dtype", async () => {
  const load = (dtype?: "BF16" | "F32") =>
    loadModel(fixture("lora/llama-patterns"), { device: "js", dtype });
  await using wide = await load("F32");
  await using narrow = await load("BF16");
  assert.equal(narrow.dtype, "BF16");
  const [a, b] = [await wide.logits([1, 2, 3]), await narrow.logits([1, 2, 3])];
  const worst = a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
  assert.ok(worst > 0 && worst < 0.5, `${worst}`);
});

Deno.test("loadModel() scales an adapter; a scale of 0 leaves the base", async () => {
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
  const apply = (path: string, base = "tiny/llama") =>
    loadModel(fixture(base), { device: "js", adapters: [{ path }] });
  const refuses = (loading: Promise<unknown>, message: RegExp) =>
    assert.rejects(loading, { name: "CheckpointError", message });
  await refuses(apply(fixture("lora/gpt2-bias")), /expected modules of the base model, got "/);
  await refuses(apply(fixture("lora/gpt_neox-fused")), /expected modules of the base model/);
  await refuses(apply(fixture("tiny/llama")), /expected a folder with an adapter_config\.json/);
  await refuses(apply("/nonexistent"), /expected a folder with an adapter_config\.json/);
  await inTempFolder(async (folder) => {
    await Deno.copyFile(
      fixture("lora/llama-patterns/adapter_config.json"),
      `${folder}/adapter_config.json`,
    );
    await refuses(apply(folder), /expected adapter_model\.safetensors in it/);
    // Its base is a path that does not exist here.
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
    // An adapter is no base, even its own.
    await Deno.writeTextFile(
      `${checkpoint}/adapter_config.json`,
      JSON.stringify({ ...config, base_model_name_or_path: "." }),
    );
    const refusal = { name: "CheckpointError", message: /expected a model\.safetensors in it/ };
    await assert.rejects(load(folder), refusal);
  });
});

Deno.test("addDelta() adds rows of a matrix product", () => {
  const delta = {
    rank: 2,
    columns: 3,
    left: Float32Array.of(1, 2, 3, 4, 5, 6),
    right: Float32Array.of(1, 0, 1, 0, 1, 1),
  };
  const rows = Float32Array.of(10, 10, 10, 20, 20, 20);
  addDelta(rows, 1, delta); // rows 1 and 2
  assert.deepEqual([...rows], [13, 14, 17, 25, 26, 31]);
});
