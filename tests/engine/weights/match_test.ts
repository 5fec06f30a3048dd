import assert from "node:assert/strict";
import { type Architecture, readArchitecture } from "../../../engine/architecture/mod.ts";
import { openCheckpoint } from "../../../engine/checkpoint/checkpoint.ts";
import {
  checkpointWeights,
  specTree,
  type WeightSpec,
  weightSpecs,
} from "../../../engine/weights/mod.ts";
import type { CheckpointWeights } from "../../../engine/weights/match.ts";
import { runsOf } from "../../../engine/weights/specs.ts";
import { type FloatDtype, hostArray, type WeightDtype } from "../../../kernels/formats/mod.ts";
import { bytesOf, sizeOf } from "../../../kernels/tensor.ts";
import { inTempFolder, writeSafetensors, type WrittenTensor } from "../../safetensors.ts";
import { randomNumbers } from "../../testing.ts";

type Tensors = Record<string, WrittenTensor>;

/** A model of 2 layers with 4 heads of width 2, and 2 key/value heads if the family groups. */
function small(model_type: string, keys: Record<string, unknown> = {}): Architecture {
  const sizes = { vocab_size: 7, hidden_size: 8, num_hidden_layers: 2, num_attention_heads: 4 };
  const more = { intermediate_size: 6, num_key_value_heads: 2, max_position_embeddings: 5 };
  return readArchitecture({ model_type, ...sizes, ...more, ...keys }, "config.json");
}

/** All tensors of a family's file, with random numbers. */
function tensorsOf(a: Architecture, prefix: string): Tensors {
  const tensors: Tensors = {};
  for (const spec of weightSpecs(specTree(a))) {
    for (const { names: [name], of } of runsOf(spec)) {
      const full = /^(lm_head|embed_out)/.test(name) ? name : prefix + name;
      const shape = [of, ...spec.shape.slice(1)];
      const seed = Object.keys(tensors).length;
      tensors[full] ??= { dtype: "F32", shape, data: randomNumbers(sizeOf(shape), seed) };
    }
  }
  return tensors;
}

/** Reads a weight through a file, a few rows at a time. */
async function readSpec(
  a: Architecture,
  tensors: Tensors,
  pick: (spec: WeightSpec) => boolean,
  { dtype = "auto", rows = 3 }: { dtype?: WeightDtype | "auto"; rows?: number } = {},
): Promise<{ kept: WeightDtype; numbers: number[] }> {
  const numbers: number[] = [];
  let kept: WeightDtype = "F32";
  await inTempFolder(async (folder) => {
    await writeSafetensors(`${folder}/model.safetensors`, tensors);
    using checkpoint = await openCheckpoint(folder);
    const source = await checkpointWeights(checkpoint, a, dtype);
    const spec = weightSpecs(specTree(a)).find(pick);
    assert.ok(spec);
    kept = source.dtype(spec);
    const fill = source.fill(spec, kept);
    const [N, K = 1] = spec.shape;
    for (let row = 0; row < N; row += rows) {
      const count = Math.min(rows, N - row);
      const into = hostArray(kept as FloatDtype, count * K);
      await fill(row, count, bytesOf(into));
      numbers.push(...into);
    }
  });
  return { kept, numbers };
}

/** Rows `start` … `start + count` of a written tensor. */
function rowsOf({ shape: [, K = 1], data }: WrittenTensor, start: number, count: number): number[] {
  return [...(data as Float32Array).subarray(start * K, (start + count) * K)];
}

const named = (part: string, shape: number[]) => (spec: WeightSpec) =>
  runsOf(spec).some(({ names }) => names[0].includes(part)) && `${spec.shape}` === `${shape}`;

Deno.test("checkpointWeights() concatenates separate queries, keys and values", async () => {
  const a = small("qwen2");
  const tensors = tensorsOf(a, "model.");
  for (const [kind, shape] of [["weight", [16, 8]], ["bias", [16]]] as const) {
    const part = (name: string) => tensors[`model.layers.1.self_attn.${name}_proj.${kind}`];
    const expected = [rowsOf(part("q"), 0, 8), rowsOf(part("k"), 0, 4), rowsOf(part("v"), 0, 4)];
    for (const rows of [1, 3, 16]) {
      const { numbers } = await readSpec(
        a,
        tensors,
        named(`layers.1.self_attn.q_proj.${kind}`, [...shape]),
        { rows },
      );
      assert.deepEqual(numbers, expected.flat(), `${kind}, ${rows} rows at a time`);
    }
  }
});

Deno.test("checkpointWeights() regroups rows that are grouped by head", async () => {
  const a = small("gpt_neox", { rotary_pct: 1 });
  const tensors = tensorsOf(a, "gpt_neox.");
  for (const [kind, shape] of [["weight", [24, 8]], ["bias", [24]]] as const) {
    const fused = tensors[`gpt_neox.layers.0.attention.query_key_value.${kind}`];
    const expected = [0, 1, 2].flatMap((part) =>
      [0, 1, 2, 3].flatMap((head) => rowsOf(fused, (3 * head + part) * 2, 2))
    );
    const { numbers } = await readSpec(a, tensors, named(`layers.0.attention.query`, [...shape]));
    assert.deepEqual(numbers, expected, kind);
  }
});

Deno.test("checkpointWeights() splits a fused gate and up projection", async () => {
  const a = small("phi3");
  const tensors = tensorsOf(a, "model.");
  const fused = tensors["model.layers.1.mlp.gate_up_proj.weight"];
  assert.deepEqual(fused.shape, [12, 8]);
  const starting = (start: number) => (spec: WeightSpec) =>
    runsOf(spec).some((run) =>
      run.names[0].includes("layers.1.mlp.gate_up") && run.start === start
    );
  const gate = await readSpec(a, tensors, starting(0));
  const up = await readSpec(a, tensors, starting(6));
  assert.deepEqual(gate.numbers, rowsOf(fused, 0, 6));
  assert.deepEqual(up.numbers, rowsOf(fused, 6, 6));
});

Deno.test("checkpointWeights() skips OPT's rows before position 0", async () => {
  const a = small("opt", { ffn_dim: 6 });
  const tensors = tensorsOf(a, "model.decoder.");
  const table = tensors["model.decoder.embed_positions.weight"];
  assert.deepEqual(table.shape, [7, 8]);
  const { numbers } = await readSpec(a, tensors, named("embed_positions", [5, 8]));
  assert.deepEqual(numbers, rowsOf(table, 2, 5));
});

Deno.test("checkpointWeights() uses F32 for a weight of mixed dtypes", async () => {
  const a = small("llama");
  const tensors = tensorsOf(a, "model.");
  const q = "model.layers.0.self_attn.q_proj.weight";
  const halves = new Float16Array(tensors[q].data as Float32Array);
  tensors[q] = { ...tensors[q], dtype: "F16", data: halves };
  const whole = named("layers.0.self_attn.q_proj.weight", [16, 8]);
  const { kept, numbers } = await readSpec(a, tensors, whole);
  assert.equal(kept, "F32");
  assert.deepEqual(numbers.slice(0, 64), [...halves]);
  assert.equal((await readSpec(a, tensors, whole, { dtype: "BF16" })).kept, "BF16");
});

Deno.test("checkpointWeights() accepts every prefix of a family's names", async () => {
  const cases: [a: Architecture, prefixes: string[]][] = [
    [small("llama", { tie_word_embeddings: true }), ["model.", ""]],
    [small("opt", { ffn_dim: 6 }), ["model.decoder.", "decoder.", ""]],
    [
      small("gemma3_text", { head_dim: 2 }),
      ["language_model.model.", "model.language_model.", "model."],
    ],
    [small("gpt_neox", { rotary_pct: 1 }), ["gpt_neox.", ""]],
  ];
  for (const [a, prefixes] of cases) {
    for (const prefix of prefixes) {
      const { numbers } = await readSpec(a, tensorsOf(a, prefix), (spec) => spec.shape[0] === 7);
      assert.equal(numbers.length, 7 * 8, prefix);
    }
  }
});

/** Loads a model of these tensors. */
const check = (a: Architecture, tensors: Tensors) =>
  readSpec(a, tensors, (spec) => spec.shape[0] === 7);

/** Matches these tensors, without reading a number. */
async function weightsOf(a: Architecture, tensors: Tensors): Promise<CheckpointWeights> {
  return await inTempFolder(async (folder) => {
    await writeSafetensors(`${folder}/model.safetensors`, tensors);
    using checkpoint = await openCheckpoint(folder);
    return await checkpointWeights(checkpoint, a, "auto");
  });
}

const refuses = (a: Architecture, tensors: Tensors, message: RegExp) =>
  assert.rejects(check(a, tensors), { name: "CheckpointError", message });

Deno.test("checkpointWeights() ignores only buffers and other models' tensors", async () => {
  const buffer = { dtype: "F32", shape: [1], data: new Float32Array(1) };
  const llama = small("llama");
  const neox = small("gpt_neox", { rotary_pct: 1 });
  const gemma = small("gemma3_text", { head_dim: 2 });
  await check(llama, {
    ...tensorsOf(llama, "model."),
    "model.layers.0.self_attn.rotary_emb.inv_freq": buffer,
    "model.rotary_emb.inv_freq": buffer,
  });
  await check(neox, {
    ...tensorsOf(neox, "gpt_neox."),
    "gpt_neox.layers.1.attention.bias": buffer,
    "gpt_neox.layers.1.attention.masked_bias": buffer,
    "gpt_neox.layers.1.attention.rotary_emb.inv_freq": buffer,
  });
  for (const prefix of ["", "model."]) {
    await check(gemma, {
      ...tensorsOf(gemma, "model.language_model."),
      [`${prefix}vision_tower.embeddings.weight`]: buffer,
      [`${prefix}multi_modal_projector.mm_input_projection_weight`]: buffer,
    });
  }
  const unexpected = { ...tensorsOf(llama, "model."), "model.layers.0.self_attn.inv_freq": buffer };
  await refuses(llama, unexpected, /unexpected: model\.layers\.0\.self_attn\.inv_freq$/);
  // A note names tensors outside the model.
  const extended = await weightsOf(llama, {
    ...tensorsOf(llama, "model."),
    "vision_tower.embeddings.weight": buffer,
    "v_head.summary.bias": buffer,
  });
  assert.deepEqual(extended.notes, [
    "left out tensors that are not part of the model: " +
    "vision_tower.embeddings.weight, v_head.summary.bias",
  ]);
});

Deno.test("checkpointWeights() names each missing or misshapen part", async () => {
  const a = small("llama");
  const without = (...names: string[]): Tensors => {
    const tensors = tensorsOf(a, "model.");
    names.forEach((name) => delete tensors[name]);
    return tensors;
  };
  await refuses(
    a,
    without("model.layers.1.self_attn.k_proj.weight", "model.layers.0.mlp.up_proj.weight"),
    /as llama: missing: layers\.0\.mlp\.up_proj\.weight, layers\.1\.self_attn\.k_proj\.weight$/,
  );
  const k = "model.layers.0.self_attn.k_proj.weight";
  const tensors = tensorsOf(a, "model.");
  await refuses(
    a,
    { ...tensors, [k]: { ...tensors[k], shape: [8, 4] } },
    /misshapen: model\.layers\.0\.self_attn\.k_proj\.weight is \[8,4\], expected \[4,8\]$/,
  );
  // A tensor that several weights use is named once.
  const phi3 = small("phi3");
  const fused = tensorsOf(phi3, "model.");
  delete fused["model.layers.0.mlp.gate_up_proj.weight"];
  await refuses(phi3, fused, /missing: layers\.0\.mlp\.gate_up_proj\.weight$/);
  // Biases that the config does not enable are unexpected.
  const bias = { dtype: "F32", shape: [4], data: new Float32Array(4) };
  await refuses(
    a,
    { ...tensors, "model.layers.0.self_attn.k_proj.bias": bias },
    /unexpected: model\.layers\.0\.self_attn\.k_proj\.bias$/,
  );
});

Deno.test("checkpointWeights() unties a head that differs from the embedding", async () => {
  const a = small("llama", { tie_word_embeddings: true });
  const tensors = tensorsOf(a, "model.");
  const wte = tensors["model.embed_tokens.weight"];
  const tied = await weightsOf(a, { ...tensors, "lm_head.weight": wte });
  assert.deepEqual([tied.architecture.tied, tied.notes], [true, []]);
  const other = { ...wte, data: randomNumbers(7 * 8, 99) };
  const separate = await weightsOf(a, { ...tensors, "lm_head.weight": other });
  assert.equal(separate.architecture.tied, false);
  assert.match(
    separate.notes.join(),
    /^the head is the file's, although the configuration ties it/,
  );
  // nanoGPT always ties them.
  const nanogpt = readArchitecture(
    { model_type: "nanogpt", n_layer: 1, n_head: 1, n_embd: 4, vocab_size: 7, block_size: 8 },
    "config",
  );
  const both = tensorsOf(nanogpt, "transformer.");
  const wrong = { ...both["transformer.wte.weight"], data: randomNumbers(7 * 4, 99) };
  await refuses(nanogpt, { ...both, "lm_head.weight": wrong }, /are tied, but differ$/);
  const untied = small("llama");
  await refuses(untied, tensors, /missing: lm_head\.weight$/);
});
