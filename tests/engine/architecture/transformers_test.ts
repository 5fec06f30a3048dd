import assert from "node:assert/strict";
import { FAMILIES } from "../../../engine/architecture/families.ts";
import { type Architecture, readArchitecture } from "../../../engine/architecture/mod.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { embedScaleOf } from "../../../engine/weights/mod.ts";

type Config = Record<string, unknown>;

/** Sizes of a small model, under the family's keys. */
function sizesOf(type: string): Config {
  const shared = { model_type: type, vocab_size: 64 };
  if (type === "gptj") return { ...shared, n_embd: 32, n_layer: 4, n_head: 4, rotary_dim: 4 };
  const sizes = { ...shared, hidden_size: 32, num_hidden_layers: 4, num_attention_heads: 4 };
  return { ...sizes, [type === "opt" ? "ffn_dim" : "intermediate_size"]: 48 };
}

const read = (config: Config) => readArchitecture(config, "config.json");
/** The configuration of a small model, with additional keys. */
const make = (type: string, keys: Config = {}) =>
  read({ ...sizesOf(type), num_key_value_heads: 2, ...keys });

const windows = (a: Architecture) => a.layers.map(({ window }) => window);

function refuses(config: Config, expected: string): void {
  assert.throws(
    () => readArchitecture(config, "a/config.json"),
    new CheckpointError(`Cannot read "a/config.json": expected ${expected}`),
    JSON.stringify(config),
  );
}

Deno.test("readArchitecture() uses transformers' defaults of absent keys", () => {
  const facts = (
    { blockSize, nKvHead, headDim, activation, norm, tied, bosId, eosIds }: Architecture,
  ) => [
    ...[blockSize, nKvHead, headDim, activation, norm.kind, norm.eps, norm.offset, tied],
    ...[bosId, eosIds.join()],
  ];
  const H = { num_attention_heads: 32, hidden_size: 256 };
  const expected: [type: string, keys: Config, facts: unknown[]][] = [
    ["llama", {}, [2048, 4, 8, "silu", "rms", 1e-6, 0, false, 1, "2"]],
    ["mistral", H, [131072, 8, 8, "silu", "rms", 1e-6, 0, false, 1, "2"]],
    ["qwen2", H, [32768, 32, 8, "silu", "rms", 1e-6, 0, false, null, ""]],
    ["qwen3", H, [32768, 32, 128, "silu", "rms", 1e-6, 0, false, null, ""]],
    ["gemma", {}, [8192, 4, 256, "geluTanh", "rms", 1e-6, 1, true, 2, "1"]],
    ["gemma2", {}, [8192, 4, 256, "geluTanh", "rms", 1e-6, 1, true, 2, "1"]],
    ["gemma3_text", {}, [131072, 4, 256, "geluTanh", "rms", 1e-6, 1, true, 2, "1"]],
    ["phi", {}, [2048, 4, 8, "geluTanh", "layer", 1e-5, 0, false, 1, "2"]],
    ["phi3", {}, [4096, 4, 8, "silu", "rms", 1e-5, 0, false, 1, "32000"]],
    ["gpt_neox", {}, [2048, 4, 8, "gelu", "layer", 1e-5, 0, false, 0, "2"]],
    ["gptj", {}, [2048, 4, 8, "geluTanh", "layer", 1e-5, 0, false, 50256, "50256"]],
    ["opt", {}, [2048, 4, 8, "relu", "layer", 1e-5, 0, true, 2, "2"]],
    ["olmo2", {}, [2048, 4, 8, "silu", "rms", 1e-5, 0, false, null, "50279"]],
    ["smollm3", {}, [32768, 4, 8, "silu", "rms", 1e-6, 0, true, 128000, "128001"]],
    ["granite", {}, [2048, 4, 8, "silu", "rms", 1e-6, 0, false, 1, "2"]],
    ["starcoder2", {}, [4096, 2, 8, "geluTanh", "layer", 1e-5, 0, true, 50256, "50256"]],
    ["stablelm", H, [4096, 32, 8, "silu", "layer", 1e-5, 0, false, 0, "0"]],
  ];
  for (const [type, keys, values] of expected) {
    assert.deepEqual(facts(read({ ...sizesOf(type), ...keys })), values, type);
  }
  assert.equal(expected.length, Object.keys(FAMILIES).length);
  assert.equal(read(sizesOf("gptj")).nInner, 128);
  // null overrides the default of keys that may be null.
  const none = { num_key_value_heads: null, bos_token_id: null, eos_token_id: null };
  const { nKvHead, bosId, eosIds } = read({ ...sizesOf("mistral"), ...none });
  assert.deepEqual([nKvHead, bosId, eosIds], [4, null, []]);
});

Deno.test("readArchitecture() reads each layer's window", () => {
  const types = [true, false, true, false].map((slides) =>
    slides ? "sliding_attention" : "full_attention"
  );
  const cases: [type: string, keys: Config, windows: (number | null)[]][] = [
    ["llama", { sliding_window: 6 }, [null, null, null, null]],
    ["mistral", {}, [4096, 4096, 4096, 4096]],
    ["mistral", { sliding_window: null }, [null, null, null, null]],
    ["phi3", {}, [null, null, null, null]],
    ["phi3", { sliding_window: 6 }, [6, 6, 6, 6]],
    ["starcoder2", { sliding_window: 6 }, [6, 6, 6, 6]],
    ["qwen2", { sliding_window: 6 }, [null, null, null, null]],
    [
      "qwen2",
      { use_sliding_window: true, sliding_window: 6, max_window_layers: 2 },
      [null, null, 6, 6],
    ],
    [
      "qwen3",
      { use_sliding_window: true, sliding_window: 6, layer_types: types },
      [6, null, 6, null],
    ],
    ["qwen3", { sliding_window: -1, layer_types: types }, [null, null, null, null]],
    ["gemma2", {}, [4096, null, 4096, null]],
    ["gemma2", { layer_types: types.toReversed(), sliding_window: 5 }, [null, 5, null, 5]],
    ["gemma3_text", { sliding_window_pattern: 4 }, [4096, 4096, 4096, null]],
    ["smollm3", { sliding_window: 6 }, [null, null, null, null]],
    ["smollm3", { use_sliding_window: true, sliding_window: 6 }, [null, null, null, 6]],
  ];
  for (const [type, keys, expected] of cases) {
    assert.deepEqual(windows(make(type, keys)), expected, `${type} ${JSON.stringify(keys)}`);
  }
});

Deno.test("readArchitecture() reads SmolLM3's layers without rotary positions", () => {
  const rotates = (keys: Config) => make("smollm3", keys).layers.map(({ rope }) => rope !== null);
  assert.deepEqual(rotates({}), [true, true, true, false]);
  assert.deepEqual(rotates({ no_rope_layer_interval: 2 }), [true, false, true, false]);
  assert.deepEqual(rotates({ no_rope_layers: [0, 1, 1, 0] }), [false, true, true, false]);
});

Deno.test("readArchitecture() rounds Gemma's embedding factor to its dtype", () => {
  const gemma = make("gemma", { hidden_size: 40, num_attention_heads: 4 });
  assert.equal(embedScaleOf(gemma, "F32"), Math.fround(Math.sqrt(40)));
  assert.equal(embedScaleOf(gemma, "F16"), Math.f16round(Math.sqrt(40)));
  assert.equal(embedScaleOf(gemma, "BF16"), 6.3125);
  const granite = make("granite", { embedding_multiplier: 12.3, logits_scaling: 8 });
  assert.deepEqual([embedScaleOf(granite, "BF16"), granite.logitScale], [12.3, 1 / 8]);
});

Deno.test("readArchitecture() reads the language model of a multimodal model", () => {
  const text: Config = { ...sizesOf("gemma3_text"), num_key_value_heads: 1 };
  const { vocab_size: _, ...without } = text;
  const vision = { hidden_size: 7, num_experts: 4 };
  const a = read({
    ...{ model_type: "gemma3", vision_config: vision, eos_token_id: [1, 106] },
    text_config: without,
  });
  assert.deepEqual(
    [a.family, a.vocabSize, a.nEmbd, a.nKvHead, a.tied, a.eosIds],
    ["gemma3", 262208, 32, 1, true, [1, 106]],
  );
  refuses(
    { model_type: "gemma3", text_config: { ...text, num_experts: 4 } },
    "text_config.num_experts to be absent: this version runs no mixture of experts, got 4",
  );
  refuses({ model_type: "gemma3", text_config: 4 }, "text_config to be an object, got 4");
});

Deno.test("readArchitecture() names the key of an unsupported feature", () => {
  const cases: [type: string, keys: Config, expected: string][] = [
    [
      "llama",
      { num_local_experts: 8 },
      "num_local_experts to be absent: this version runs no mixture of experts, got 8",
    ],
    [
      "llama",
      { num_experts: 8 },
      "num_experts to be absent: this version runs no mixture of experts, got 8",
    ],
    [
      "llama",
      { quantization_config: { quant_method: "gptq", bits: 4 } },
      'quantization_config to be absent: this version reads plain F32, F16 and BF16 weights, got {"quant_method":"gptq","bits":4}',
    ],
    [
      "llama",
      { is_encoder_decoder: true },
      "is_encoder_decoder to be false: this version runs decoders, got true",
    ],
    [
      "mistral",
      { alibi: true },
      "alibi to be false: this version supports learned and rotary positions, got true",
    ],
    [
      "gemma3_text",
      { use_bidirectional_attention: true },
      "use_bidirectional_attention to be false: this version runs decoders, got true",
    ],
    ["gemma3_text", { attn_logit_softcapping: 50 }, "attn_logit_softcapping to be null, got 50"],
    ["stablelm", { qk_layernorm: true }, "qk_layernorm to be false, got true"],
    ["opt", { word_embed_proj_dim: 16 }, "word_embed_proj_dim to be hidden_size (32), got 16"],
    [
      "opt",
      { layer_norm_elementwise_affine: false },
      "layer_norm_elementwise_affine to be true, got false",
    ],
    [
      "qwen2",
      { use_sliding_window: true, layer_types: ["chunked_attention"] },
      'layer_types to be a list of full_attention or sliding_attention for each of 4 layers, got ["chunked_attention"]',
    ],
  ];
  for (const [type, keys, expected] of cases) {
    refuses({ ...sizesOf(type), num_key_value_heads: 2, ...keys }, expected);
  }
  for (const act of ["quick_gelu", "relu2", "swiglu", "toString"]) {
    assert.throws(() => make("llama", { hidden_act: act }), {
      name: "CheckpointError",
      message: new RegExp(`expected hidden_act to be one of .*, got "${act}"$`),
    });
  }
  for (const act of ["gelu_fast", "gelu_accurate", "gelu_python_tanh"]) {
    assert.equal(
      make("gpt_neox", { hidden_act: act }).activation,
      "geluTanh",
    );
  }
  // Keys that disable a feature are accepted.
  const off = {
    num_experts: 1,
    quantization_config: null,
    is_encoder_decoder: false,
    alibi: false,
  };
  assert.equal(make("llama", off).family, "llama");
});

Deno.test("readArchitecture() names the key of an impossible size", () => {
  const integer = "an integer from 1 to 2147483647";
  const cases: [type: string, keys: Config, expected: string][] = [
    ["llama", { num_attention_heads: 0 }, `num_attention_heads to be ${integer}, got 0`],
    [
      "llama",
      { hidden_size: 33 },
      "hidden_size to be a multiple of num_attention_heads (4), got 33",
    ],
    [
      "llama",
      { num_key_value_heads: 3 },
      "num_key_value_heads to be a divisor of the 4 heads, got 3",
    ],
    ["llama", { head_dim: -8 }, `head_dim to be ${integer}, got -8`],
    ["llama", { rms_norm_eps: 0 }, "rms_norm_eps to be a positive number, got 0"],
    ["llama", { attention_bias: "no" }, 'attention_bias to be true or false, got "no"'],
    ["llama", { tie_word_embeddings: 1 }, "tie_word_embeddings to be true or false, got 1"],
    [
      "llama",
      { max_position_embeddings: 1e99 },
      `max_position_embeddings to be ${integer}, got 1e+99`,
    ],
    ["mistral", { sliding_window: -1 }, `sliding_window to be ${integer}, got -1`],
    ["mistral", { sliding_window: 0 }, `sliding_window to be ${integer}, got 0`],
    [
      "qwen2",
      { use_sliding_window: true, max_window_layers: -1 },
      "max_window_layers to be a number of layers, got -1",
    ],
    [
      "gemma2",
      { attn_logit_softcapping: -3 },
      "attn_logit_softcapping to be a positive number, got -3",
    ],
    [
      "gemma2",
      { query_pre_attn_scalar: 0 },
      "query_pre_attn_scalar to be a positive number, got 0",
    ],
    [
      "smollm3",
      { no_rope_layers: [1, 0] },
      "no_rope_layers to be a list of a 0 or a 1 for each of 4 layers, got [1,0]",
    ],
    ["granite", { logits_scaling: 0 }, "logits_scaling to be a positive number, got 0"],
    ["opt", { ffn_dim: null }, `ffn_dim to be ${integer}, got null`],
    ["gptj", { n_positions: 0 }, `n_positions to be ${integer}, got 0`],
  ];
  for (const [type, keys, expected] of cases) {
    refuses(
      { ...sizesOf(type), num_key_value_heads: 2, ...keys },
      expected,
    );
  }
  for (const type of Object.keys(FAMILIES).filter((family) => family !== "gemma3")) {
    for (const key of Object.keys(sizesOf(type))) {
      if (key === "model_type" || key === "rotary_dim") continue;
      const { [key]: _, ...without } = sizesOf(type);
      refuses({ ...without, num_key_value_heads: 2 }, `${key} to be ${integer}, got none`);
    }
  }
});
