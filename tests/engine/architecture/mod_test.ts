import assert from "node:assert/strict";
import { readArchitecture, readOutline } from "../../../engine/architecture/mod.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { readJson } from "../../testing.ts";

type Config = Record<string, unknown>;

const LABCORE: Config = {
  model_type: "labcore_gpt",
  vocab_size: 65,
  block_size: 32,
  n_layer: 2,
  n_head: 2,
  n_embd: 32,
};
const GPT2: Config = { model_type: "gpt2", vocab_size: 320, n_layer: 3, n_head: 4, n_embd: 64 };

/** The record without its layers, plus the one value of a layer that these families set. */
function plain(config: Config) {
  const { layers, ...rest } = readArchitecture(config, "config.json");
  assert.equal(layers.length, rest.nLayer);
  for (const { window, rope } of layers) assert.deepEqual([window, rope], [null, rest.rope]);
  return { ...rest, scales: layers.map(({ attentionScale }) => attentionScale) };
}

function refuses(config: Config, expected: string): void {
  assert.throws(
    () => readArchitecture(config, "a/config.json"),
    new CheckpointError(`Cannot read "a/config.json": expected ${expected}`),
    JSON.stringify(config),
  );
}

const EXPECTED_LABCORE = {
  family: "labcore",
  vocabSize: 65,
  blockSize: 32,
  nLayer: 2,
  nHead: 2,
  nKvHead: 2,
  nEmbd: 32,
  headDim: 16,
  nInner: 128,
  bias: { qkv: true, attnProj: true, mlp: true, norm: true, lmHead: false },
  activation: "gelu",
  gated: false,
  norm: { kind: "layer", eps: 1e-5, offset: 0 },
  norms: "pre",
  finalNorm: true,
  parallel: null,
  qkNorm: null,
  rope: null,
  ropeLocal: null,
  positionOffset: 0,
  attentionSoftCap: null,
  logitSoftCap: null,
  embedScale: 1,
  embedScaleRounded: false,
  residualScale: 1,
  logitScale: 1,
  slides: true,
  crops: false,
  tied: true,
  bosId: null,
  eosIds: [],
  scales: [0.25, 0.25],
};

const EXPECTED_GPT2 = {
  family: "gpt2",
  vocabSize: 320,
  blockSize: 128,
  nLayer: 3,
  nHead: 4,
  nKvHead: 4,
  nEmbd: 64,
  headDim: 16,
  nInner: 256,
  bias: { qkv: true, attnProj: true, mlp: true, norm: true, lmHead: false },
  activation: "geluTanh",
  gated: false,
  norm: { kind: "layer", eps: 1e-5, offset: 0 },
  norms: "pre",
  finalNorm: true,
  parallel: null,
  qkNorm: null,
  rope: null,
  ropeLocal: null,
  positionOffset: 0,
  attentionSoftCap: null,
  logitSoftCap: null,
  embedScale: 1,
  embedScaleRounded: false,
  residualScale: 1,
  logitScale: 1,
  slides: false,
  crops: false,
  tied: true,
  bosId: 1,
  eosIds: [2],
  scales: [0.25, 0.25, 0.25],
};

Deno.test("readArchitecture() reads LabCore's conventions", () => {
  assert.deepEqual(plain(readJson("labcore/learned/config.json")), EXPECTED_LABCORE);
  const rope66 = plain(readJson("labcore/rope66/config.json"));
  assert.deepEqual([rope66.headDim, rope66.bias.mlp, rope66.nInner], [66, false, 528]);
  assert.deepEqual(rope66.rope, { theta: 10000, rotaryDim: 66, interleaved: true });
  const ropeBias = plain(readJson("labcore/rope-bias/config.json"));
  assert.deepEqual([ropeBias.headDim, ropeBias.bias.mlp, ropeBias.rope?.rotaryDim], [16, true, 16]);
});

Deno.test("readArchitecture() reads a preset's family if there is no model_type", () => {
  const { model_type: _, ...preset } = LABCORE;
  assert.deepEqual(plain({ ...preset, family: "labcore" }), EXPECTED_LABCORE);
  assert.deepEqual(plain({ ...preset, family: "labcore", model_type: null }), EXPECTED_LABCORE);
  const { block_size, n_embd, ...shape } = preset;
  const wide = plain({ ...shape, family: "gpt2", block_size, n_embd, activation: "relu" });
  assert.deepEqual([wide.blockSize, wide.activation], [32, "relu"]);
});

Deno.test("readArchitecture() reads GPT-2's conventions from transformers", () => {
  for (const name of ["gpt2", "gpt2-f16", "gpt2-hub"]) {
    assert.deepEqual(plain(readJson(`tiny/${name}/config.json`)), EXPECTED_GPT2, name);
  }
});

Deno.test("readArchitecture() uses the default of a key that is absent or null", () => {
  const expected = { ...EXPECTED_GPT2, blockSize: 1024, bosId: null, eosIds: [] };
  assert.deepEqual(plain(GPT2), expected);
  const optional = [
    ...["n_positions", "block_size", "n_inner", "activation_function", "activation"],
    ...["layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"],
    ...["tie_word_embeddings", "add_cross_attention", "bos_token_id", "eos_token_id"],
  ];
  const nulls = Object.fromEntries(optional.map((key) => [key, null]));
  assert.deepEqual(plain({ ...GPT2, ...nulls }), expected);
  assert.deepEqual(
    plain({ ...LABCORE, bias: null, use_rope: null, activation: null }),
    EXPECTED_LABCORE,
  );
});

Deno.test("readArchitecture() reads each key that differs from its default", () => {
  const changed: [config: Config, expected: Config][] = [
    [{ n_inner: 100 }, { nInner: 100 }],
    [{ n_positions: 77, block_size: 5 }, { blockSize: 77 }],
    [{ layer_norm_epsilon: 1e-6 }, { norm: { kind: "layer", eps: 1e-6, offset: 0 } }],
    [{ activation_function: "relu" }, { activation: "relu" }],
    [{ activation_function: "gelu_pytorch_tanh" }, { activation: "geluTanh" }],
    [{ activation_function: "silu" }, { activation: "silu" }],
    [{ activation_function: "swish" }, { activation: "silu" }],
    [{ scale_attn_weights: false }, { scales: [1, 1, 1] }],
    [{ scale_attn_by_inverse_layer_idx: true }, { scales: [0.25, 0.25 / 2, 0.25 / 3] }],
    [{ tie_word_embeddings: false }, { tied: false }],
    [{ bos_token_id: 0, eos_token_id: [5, 6] }, { bosId: 0, eosIds: [5, 6] }],
    [{ vocab_size: 2 ** 31 - 1 }, { vocabSize: 2 ** 31 - 1 }],
  ];
  const before = plain(GPT2);
  for (const [config, expected] of changed) {
    assert.deepEqual(plain({ ...GPT2, ...config }), { ...before, ...expected });
  }
});

Deno.test("readArchitecture() names the key of a missing or invalid size", () => {
  const bad: unknown[] = [0, -1, 1.5, 2 ** 31, 1e300, NaN, "32", true, [], {}, [32]];
  const keys = ["vocab_size", "n_layer", "n_head", "n_embd"];
  for (
    const [config, key] of [
      ...[...keys, "block_size"].map((k) => [LABCORE, k] as const),
      ...[...keys, "n_positions", "n_inner"].map((k) => [GPT2, k] as const),
    ]
  ) {
    for (const value of bad) {
      refuses(
        { ...config, [key]: value },
        `${key} to be an integer from 1 to 2147483647, got ${JSON.stringify(value)}`,
      );
    }
    if (key === "n_positions" || key === "n_inner") continue; // these have a default
    const { [key]: _, ...without } = config;
    refuses(without, `${key} to be an integer from 1 to 2147483647, got none`);
    refuses({ ...config, [key]: null }, `${key} to be an integer from 1 to 2147483647, got null`);
  }
});

Deno.test("readArchitecture() names the key of an impossible value", () => {
  const activations =
    "one of relu gelu gelu_python gelu_new gelu_fast gelu_accurate gelu_pytorch_tanh gelu_python_tanh geluTanh silu swish";
  const cases: [config: Config, expected: string][] = [
    [{ ...GPT2, n_head: 5 }, "n_embd to be a multiple of n_head (5), got 64"],
    [{ ...LABCORE, n_head: 64 }, "n_embd to be a multiple of n_head (64), got 32"],
    [
      { ...LABCORE, n_embd: 30, use_rope: true },
      "n_embd to be an even multiple of n_head (2) for rotary positions, got 30",
    ],
    [{ ...LABCORE, use_rope: "yes" }, 'use_rope to be true or false, got "yes"'],
    [{ ...LABCORE, bias: 1 }, "bias to be true or false, got 1"],
    [{ ...LABCORE, activation: "swiglu" }, `activation to be ${activations}, got "swiglu"`],
    [{ ...LABCORE, activation: "toString" }, `activation to be ${activations}, got "toString"`],
    [{ ...GPT2, activation_function: 3 }, `activation_function to be ${activations}, got 3`],
    [{ ...GPT2, layer_norm_epsilon: 0 }, "layer_norm_epsilon to be a positive number, got 0"],
    [{ ...GPT2, layer_norm_epsilon: -1 }, "layer_norm_epsilon to be a positive number, got -1"],
    [
      { ...GPT2, layer_norm_epsilon: "1e-5" },
      'layer_norm_epsilon to be a positive number, got "1e-5"',
    ],
    [{ ...GPT2, tie_word_embeddings: 0 }, "tie_word_embeddings to be true or false, got 0"],
    [{ ...GPT2, scale_attn_weights: "" }, 'scale_attn_weights to be true or false, got ""'],
    [{ ...GPT2, add_cross_attention: true }, "add_cross_attention to be false, got true"],
    [
      { ...LABCORE, is_encoder_decoder: true },
      "is_encoder_decoder to be false: this version runs decoders, got true",
    ],
    [{ ...GPT2, bos_token_id: "1" }, 'bos_token_id to be an id or a list of ids, got "1"'],
    [{ ...GPT2, eos_token_id: [1, 2.5] }, "eos_token_id to be an id or a list of ids, got [1,2.5]"],
    [{ ...GPT2, eos_token_id: [[1]] }, "eos_token_id to be an id or a list of ids, got [[1]]"],
  ];
  for (const [config, expected] of cases) refuses(config, expected);
  // 1e999 parses as Infinity, which JSON.stringify shows as null.
  const infinite = JSON.parse('{"layer_norm_epsilon":1e999}') as Config;
  refuses({ ...GPT2, ...infinite }, "layer_norm_epsilon to be a positive number, got null");
});

Deno.test("readArchitecture() lists the supported families for another", () => {
  const known = [
    ...["labcore_gpt", "labcore", "nanogpt", "gpt2"],
    ...["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi", "phi3"],
    ...["gpt_neox", "gptj", "opt", "olmo2", "smollm3", "granite", "starcoder2", "stablelm"],
    "gemma3_text",
  ].join(" ");
  const others = ["mixtral", "qwen2_moe", "t5", "bloom", "toString", 7, ["gpt2"], ""];
  for (const value of others) {
    refuses(
      { ...GPT2, model_type: value },
      `a model_type of ${known}, got ${JSON.stringify(value)}`,
    );
  }
  refuses({}, `a model_type of ${known}, got none`);
  refuses({ model_type: null }, `a model_type of ${known}, got none`);
});

Deno.test("readArchitecture() reads no value from a prototype in the file", () => {
  const config = JSON.parse(
    '{"__proto__":{"n_layer":2},"model_type":"gpt2","n_embd":4,"n_head":2}',
  );
  refuses(
    { ...config, vocab_size: 7 },
    "n_layer to be an integer from 1 to 2147483647, got none",
  );
});

Deno.test("readArchitecture() limits the layers before it lists them", () => {
  const endless = { ...GPT2, n_layer: 2 ** 31 - 1 };
  assert.throws(
    () => readArchitecture(endless, "config.json"),
    new RangeError("Cannot make a model: expected at most 10000 layers, got 2147483647"),
  );
  assert.throws(
    () => readArchitecture(endless, "config.json", { path: "a.safetensors", tensors: 39 }),
    new CheckpointError(
      'Cannot load "a.safetensors" as gpt2: expected at least one tensor for each of ' +
        "2147483647 layers, got 39 tensors",
    ),
  );
  assert.equal(readArchitecture({ ...GPT2, n_layer: 10_000 }, "config.json").layers.length, 10_000);
  // The limit is one layer per tensor.
  const deep = { ...GPT2, n_layer: 10_001 };
  const file = { path: "a.safetensors", tensors: 10_001 };
  assert.equal(readArchitecture(deep, "config.json", file).layers.length, 10_001);
  assert.equal(readOutline(endless, "config.json").nLayer, 2 ** 31 - 1);
});
