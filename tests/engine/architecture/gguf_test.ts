/** Records of GGUF files: equal to those of the Hugging Face folders, and every rule broken. */
import assert from "node:assert/strict";
import type { GgufFile } from "../../../engine/architecture/gguf.ts";
import { type Architecture, readArchitecture, readGguf } from "../../../engine/architecture/mod.ts";
import { openCheckpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { fixture, readJson } from "../../testing.ts";

/** A record without what a GGUF says in another way: see `tests/fixtures/gguf/README.md`. */
function comparable(a: Architecture) {
  const rope = (rope: Architecture["rope"]) =>
    rope && { ...rope, interleaved: false, scaling: rope.scaling && "any" };
  const f32 = (layer: Architecture["layers"][number]) => ({
    ...layer,
    rope: rope(layer.rope),
    attentionScale: Math.fround(layer.attentionScale),
  });
  return {
    ...a,
    norm: { kind: a.norm.kind, eps: Math.fround(a.norm.eps) },
    rope: rope(a.rope),
    ropeLocal: rope(a.ropeLocal),
    layers: a.layers.map(f32),
    logitScale: Math.fround(1 / a.logitScale),
    residualScale: Math.fround(a.residualScale),
    embedScaleRounded: false,
    bosId: null,
    eosIds: [],
  };
}

interface Golden {
  readonly tiny: string | null;
  readonly differs_from_tiny?: string;
}

for (const [file, golden] of Object.entries(readJson<Record<string, Golden>>("gguf/golden.json"))) {
  if (!golden.tiny || golden.differs_from_tiny) continue;
  Deno.test(`readGguf() gives the record of the Hugging Face folder for ${file}`, async () => {
    using checkpoint = await openCheckpoint(fixture(`gguf/${file}`));
    const config = readJson<Record<string, unknown>>(`${golden.tiny}/config.json`);
    const a = await readGguf(checkpoint);
    assert.deepEqual(comparable(a), comparable(readArchitecture(config, "config.json")));
    assert.deepEqual(structuredClone(a), a);
    assert.deepEqual(JSON.parse(JSON.stringify(a)), a);
  });
}

/** A llama of one layer: metadata without the architecture's name, and shapes. */
const METADATA = {
  block_count: 1,
  context_length: 128,
  embedding_length: 64,
  "attention.head_count": 4,
  "attention.head_count_kv": 2,
  "attention.layer_norm_rms_epsilon": 1e-6,
  "attention.layer_norm_epsilon": 1e-5,
};
const SHAPES: Readonly<Record<string, readonly number[]>> = {
  "token_embd.weight": [320, 64],
  "blk.0.attn_q.weight": [64, 64],
  "blk.0.attn_k.weight": [32, 64],
  "blk.0.ffn_down.weight": [64, 144],
  "blk.0.ffn_norm.weight": [64],
};

/** Reads a file of one layer with changes; null removes a key or a tensor. */
function read(
  architecture: string,
  changes: Readonly<Record<string, unknown>> = {},
  shapes: Readonly<Record<string, readonly number[] | null>> = {},
  values: readonly number[] = [],
): Promise<Architecture> {
  const own = Object.entries({ ...METADATA, ...changes }).filter(([, value]) => value !== null)
    .map(([key, value]) => [key.startsWith("tokenizer.") ? key : `${architecture}.${key}`, value]);
  const stored = Object.entries({ ...SHAPES, ...shapes }).filter(([, shape]) => shape !== null);
  const file: GgufFile = {
    path: "a.gguf",
    metadata: Object.fromEntries([["general.architecture", architecture], ...own]),
    tensors: () => stored.map(([name, shape]) => ({ name, dtype: "F32", shape: shape! })),
    read: () => Promise.resolve(Float32Array.from(values)),
  };
  return readGguf(file);
}

Deno.test("readGguf() takes sizes from tensors where keys are absent or wrong", async () => {
  const a = await read("llama", { feed_forward_length: 999, "attention.head_count_kv": 4 });
  assert.deepEqual([a.nInner, a.nKvHead, a.headDim, a.vocabSize], [144, 2, 16, 320]);
  assert.deepEqual([a.tied, a.rope?.interleaved, a.rope?.theta], [true, true, 10000]);
  const untied = await read("llama", {}, { "output.weight": [320, 64] });
  assert.equal(untied.tied, false);
  const fused = await read("phi2", { "attention.head_count_kv": null }, {
    "blk.0.attn_k.weight": null,
    "blk.0.attn_qkv.weight": [192, 64],
    "blk.0.attn_qkv.bias": [192],
  });
  assert.deepEqual([fused.nKvHead, fused.bias.qkv, fused.bias.mlp], [4, true, false]);
  const perLayer = await read("llama", { "attention.head_count_kv": [2, 2, 2] });
  assert.equal(perLayer.nKvHead, 2);
  const stable = await read("stablelm", { use_parallel_residual: true });
  assert.equal(stable.parallel, null, "StableLM's converter writes the key without a reason");
  const parallel = await read("stablelm", {}, { "blk.0.ffn_norm.weight": null });
  assert.equal(parallel.parallel, 1);
});

Deno.test("readGguf() takes a factor of 0 as none, as llama.cpp does", async () => {
  const keys = ["attention.scale", "embedding_scale", "residual_scale", "logit_scale"];
  for (const value of [0, null]) {
    const a = await read("granite", Object.fromEntries(keys.map((key) => [key, value])));
    assert.equal(a.layers[0].attentionScale, 0.25);
    assert.deepEqual([a.embedScale, a.residualScale, a.logitScale], [1, 1, 1]);
  }
});

Deno.test("readGguf() reads begin and end of text", async () => {
  const a = await read("llama", {
    "tokenizer.ggml.bos_token_id": 5,
    "tokenizer.ggml.eos_token_id": 6,
    "tokenizer.ggml.eot_token_id": 7,
    "tokenizer.ggml.eom_token_id": 6,
  });
  assert.deepEqual([a.bosId, a.eosIds], [5, [6, 7]]);
  assert.deepEqual((await read("llama")).eosIds, []);
});

Deno.test("readGguf() reads every scaling of rotary positions", async () => {
  const scaling = async (...args: Parameters<typeof read>) => (await read(...args)).rope?.scaling;
  const factor = { "rope.scaling.factor": 4 };
  assert.equal(await scaling("llama", { "rope.scaling.type": "none", ...factor }), undefined);
  assert.deepEqual(await scaling("llama", { "rope.scaling.type": "linear", ...factor }), {
    type: "linear",
    factor: 4,
  });
  assert.deepEqual(await scaling("llama", { "rope.scale_linear": 2 }), {
    type: "linear",
    factor: 2,
  });
  const yarn = { "rope.scaling.type": "yarn", "rope.scaling.original_context_length": 32 };
  assert.deepEqual(await scaling("qwen2", { ...yarn, ...factor }), {
    type: "yarn",
    factor: 4,
    betaFast: 32,
    betaSlow: 1,
    truncate: true,
    originalPositions: 32,
    attentionFactor: 0.1 * Math.log(4) + 1,
  });
  const divisors = [1, 2, 3, 4, 5, 6, 7, 8];
  const freqs = { "rope_freqs.weight": [8] };
  const a = await read("llama", {}, freqs, divisors);
  assert.deepEqual(a.rope?.scaling, { type: "divisors", divisors });
  assert.deepEqual(a.layers[0].rope, a.rope);
  const linear = { "rope.scaling.type": "linear", ...factor };
  assert.deepEqual(await scaling("llama", linear, freqs, divisors), {
    type: "divisors",
    divisors: divisors.map((divisor) => 4 * divisor),
  });
  const factors = { "rope_factors_short.weight": [8], "rope_factors_long.weight": [8] };
  const original = { "rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.5 };
  assert.deepEqual(await scaling("phi3", original, factors, divisors), {
    type: "longrope",
    shortFactor: divisors,
    longFactor: divisors,
    originalPositions: 64,
    attentionFactor: 1.5,
  });
});

Deno.test("readGguf() reads the layers with a window", async () => {
  const layers = { block_count: 3 };
  const names = [1, 2].flatMap((i) => [`blk.${i}.attn_q.weight`, `blk.${i}.x.weight`]);
  const shapes = Object.fromEntries(names.map((name) => [name, [64, 64]]));
  const windows = async (architecture: string, changes: Record<string, unknown>) =>
    (await read(architecture, { ...layers, ...changes }, shapes)).layers.map((l) => l.window);
  const window = { "attention.sliding_window": 8 };
  assert.deepEqual(await windows("gemma2", window), [8, null, 8]);
  assert.deepEqual(await windows("gemma3", window), [8, 8, 8]);
  const pattern = "attention.sliding_window_pattern";
  assert.deepEqual(await windows("gemma3", { ...window, [pattern]: 3 }), [8, 8, null]);
  assert.deepEqual(await windows("gemma2", { ...window, [pattern]: [false, true, false] }), [
    null,
    8,
    null,
  ]);
  assert.deepEqual(await windows("phi3", { "attention.sliding_window": 0 }), [null, null, null]);
  assert.deepEqual(await windows("phi3", window), [8, 8, 8]);
});

Deno.test("readGguf() refuses what it does not support, by the key of the file", async () => {
  const cases: [Parameters<typeof read>, RegExp][] = [
    [["mamba"], /general\.architecture to be one of llama qwen2 .*, got "mamba"$/],
    [["llama", { expert_count: 8 }], /llama\.expert_count to be 0: this version .*, got 8$/],
    [["llama", { block_count: null }], /llama\.block_count to be an integer .*, got none$/],
    [["llama", { block_count: 100 }], /one tensor for each of 100 layers, got 5 tensors/],
    [["llama", { block_count: 2n ** 63n }], /block_count to be an integer .*, got "9223/],
    [["llama", { context_length: null }], /llama\.context_length to be an integer/],
    [["llama", { context_length: [[128]] }], /context_length to be an integer .*\[128\]$/],
    [["llama", { embedding_length: 63 }], /llama\.embedding_length to be a multiple/],
    [["llama", { "attention.head_count": [4, 2] }], /head_count to be an integer .*\[4,2\]$/],
    [["llama", { "attention.layer_norm_rms_epsilon": null }], /rms_epsilon to be a positive numb/],
    [["llama", { "attention.value_length": 8 }], /value_length to be 16, as attention\.key_length/],
    [["llama", { "attention.causal": false }], /attention\.causal to be true/],
    [["llama", { "attention.clamp_kqv": 8 }], /llama\.attention\.clamp_kqv to be absent/],
    [["llama", { "rope.dimension_count": 17 }], /llama\.rope\.dimension_count to be an even/],
    [["llama", { "rope.scaling.type": "ntk" }], /rope\.scaling\.type to be one of none linear/],
    [["llama", { "rope.scaling.type": "linear", "rope.scaling.factor": 0 }], /factor to be a pos/],
    [["llama", {}, { "rope_freqs.weight": [8] }, [1, 2]], /rope_freqs\.weight to be 8 positive/],
    [["llama", {}, { "rope_freqs.weight": [2, 4] }], /rope_freqs\.weight to be a list/],
    [["llama", {}, { "token_embd.weight": null }], /a tensor token_embd\.weight, got none; /],
    [["olmo2", { "attention.sliding_window": 8 }], /olmo2\.attention\.sliding_window to be 0/],
    [["gemma3", { "attention.sliding_window_pattern": [true, false] }], /for each of 1 layers/],
    [["gpt2", { "attention.layer_norm_epsilon": null }], /gpt2\.attention\.layer_norm_epsilon to/],
  ];
  for (const [args, message] of cases) {
    await assert.rejects(async () => await read(...args), (error) => {
      assert.ok(error instanceof CheckpointError, String((error as Error).stack));
      assert.match(error.message, message);
      return true;
    });
  }
  const named = async (name: unknown) =>
    await readGguf({
      path: "a.gguf",
      metadata: name === undefined ? {} : { "general.architecture": name as string },
      tensors: () => [],
      read: () => assert.fail(),
    });
  await assert.rejects(named(undefined), { message: /general\.architecture .*, got none$/ });
  await assert.rejects(named("__proto__"), { message: /got "__proto__"$/ });
  await assert.rejects(named(7), { message: /got 7$/ });
});
