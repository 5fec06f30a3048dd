/**
 * Model families of Hugging Face transformers as data: key names, defaults and conventions.
 *
 * Defaults are those of transformers' configuration_*.py. Sizes that every repository states have
 * no default.
 *
 * @module
 */
import type { Family } from "./record.ts";
import type { RopeFacts } from "./rope.ts";

/** A flag that is fixed for a family, or the name of the configuration key that holds it. */
export type FlagOrKey = boolean | string;

/** Configuration keys and conventions of a family. */
export interface FamilyFacts {
  /** The family's names of the reader's keys, where they differ. */
  readonly keyNames?: Readonly<Record<string, string>>;
  /** Default values of keys. */
  readonly defaults: Readonly<Record<string, unknown>>;
  /**
   * Whether the number of key/value heads equals the number of query heads; then
   * `num_key_value_heads` is ignored.
   */
  readonly ungrouped?: boolean;
  readonly norm: "layer" | "rms";
  /** Added to every weight of a norm; default 0. */
  readonly normOffset?: number;
  /** Positions of the norms; default `pre`. `preKey` is a flag: `pre` if true, else `sum`. */
  readonly norms?: "pre" | "post" | "both" | { readonly preKey: string };
  /** Key of the flag that removes the norm before the head. */
  readonly noFinalNorm?: string;
  /**
   * Number of norms of a block with parallel attention and MLP, and whether blocks are parallel.
   */
  readonly parallel?: { readonly norms: 1 | 2; readonly when: FlagOrKey };
  /** Whether the MLP has a gate. */
  readonly gated: boolean;
  /** Biases of the linear layers and the head; default none. */
  readonly bias?: {
    readonly qkv?: FlagOrKey;
    readonly attnProj?: FlagOrKey;
    readonly mlp?: FlagOrKey;
    readonly lmHead?: boolean;
  };
  /**
   * Norm of queries and keys: over each head, over the whole row, or over each head if the flag
   * `headKey` is true.
   */
  readonly qkNorm?: "head" | "row" | { readonly headKey: string };
  /** Rotary positions; absent if positions are learned. */
  readonly rope?: RopeFacts;
  /** Rows of the table of learned positions before position 0. */
  readonly positionOffset?: number;
  /**
   * Layers with a sliding window of `sliding_window` keys: all, or the ones in `layer_types`.
   * Without `layer_types`: all but every nth layer (`pattern`), layers from a number on (`from`),
   * or layers without rotary positions (`noRope`). `when` is the key of a flag that enables
   * windows.
   */
  readonly window?:
    | { readonly kind: "all" }
    | { readonly kind: "pattern"; readonly every: number; readonly everyKey?: string }
    | { readonly kind: "from"; readonly fromKey: string; readonly when: string }
    | { readonly kind: "noRope"; readonly when: string };
  /** Whether token embeddings are multiplied by √C, rounded to their dtype. */
  readonly embedRoot?: boolean;
  /** Keys of factors and limits that only some families have. */
  readonly scales?: {
    /** Factor of the token embeddings. */
    readonly embed?: string;
    /** Factor of the attention scores. */
    readonly attention?: string;
    /** The attention scores are divided by the square root of this number. */
    readonly attentionRoot?: string;
    /** Factor of the outputs of attention and MLP. */
    readonly residual?: string;
    /** Divisor of the logits. */
    readonly logitDivisor?: string;
    readonly attentionSoftCap?: string;
    readonly logitSoftCap?: string;
  };
  /**
   * Whether some layers have no rotary positions, by `no_rope_layers` or `no_rope_layer_interval`.
   */
  readonly noRopeLayers?: boolean;
  /** Activations that the family replaces by others. */
  readonly activations?: Readonly<Record<string, string>>;
  /** Default F / C: hidden width of the MLP per width of the model. */
  readonly innerPerWidth?: number;
  /** Keys with only one supported value. */
  readonly only?: Readonly<Record<string, unknown>>;
  /** Keys that must equal another key. */
  readonly same?: Readonly<Record<string, string>>;
}

/** LLaMA's key names and defaults, the base of later families. */
const LLAMA: FamilyFacts = {
  keyNames: { norm_eps: "rms_norm_eps" },
  defaults: {
    hidden_act: "silu",
    max_position_embeddings: 2048,
    norm_eps: 1e-6,
    bos_token_id: 1,
    eos_token_id: 2,
    tie_word_embeddings: false,
    attention_bias: false,
    mlp_bias: false,
    rope_theta: 10000,
  },
  norm: "rms",
  gated: true,
  bias: { qkv: "attention_bias", attnProj: "attention_bias", mlp: "mlp_bias" },
  rope: {},
};

const QWEN: FamilyFacts = {
  ...LLAMA,
  defaults: {
    ...LLAMA.defaults,
    max_position_embeddings: 32768,
    num_key_value_heads: 32,
    bos_token_id: null,
    eos_token_id: null,
    use_sliding_window: false,
    sliding_window: 4096,
    max_window_layers: 28,
  },
  window: { kind: "from", fromKey: "max_window_layers", when: "use_sliding_window" },
};

const GEMMA: FamilyFacts = {
  ...LLAMA,
  defaults: {
    ...LLAMA.defaults,
    head_dim: 256,
    hidden_act: "gelu_pytorch_tanh",
    max_position_embeddings: 8192,
    bos_token_id: 2,
    eos_token_id: 1,
    tie_word_embeddings: true,
  },
  normOffset: 1,
  bias: { qkv: "attention_bias", attnProj: "attention_bias" },
  embedRoot: true,
};

const GEMMA2: FamilyFacts = {
  ...GEMMA,
  keyNames: { ...GEMMA.keyNames, hidden_act: "hidden_activation" },
  defaults: {
    ...GEMMA.defaults,
    query_pre_attn_scalar: 256,
    sliding_window: 4096,
    attn_logit_softcapping: 50,
    final_logit_softcapping: 30,
  },
  norms: "both",
  window: { kind: "pattern", every: 2 },
  scales: {
    attentionRoot: "query_pre_attn_scalar",
    attentionSoftCap: "attn_logit_softcapping",
    logitSoftCap: "final_logit_softcapping",
  },
};

const PHI: FamilyFacts = {
  keyNames: { norm_eps: "layer_norm_eps" },
  defaults: {
    hidden_act: "gelu_new",
    max_position_embeddings: 2048,
    norm_eps: 1e-5,
    bos_token_id: 1,
    eos_token_id: 2,
    tie_word_embeddings: false,
    qk_layernorm: false,
    rope_theta: 10000,
  },
  norm: "layer",
  parallel: { norms: 1, when: true },
  gated: false,
  bias: { qkv: true, attnProj: true, mlp: true, lmHead: true },
  qkNorm: { headKey: "qk_layernorm" },
  rope: { partial: 0.5 },
};

/** The families that `readTransformers` reads. */
export const FAMILIES = {
  llama: LLAMA,
  mistral: {
    ...LLAMA,
    defaults: {
      ...LLAMA.defaults,
      num_key_value_heads: 8,
      max_position_embeddings: 131072,
      sliding_window: 4096,
    },
    bias: {},
    window: { kind: "all" },
  },
  qwen2: { ...QWEN, bias: { qkv: true } },
  qwen3: {
    ...QWEN,
    defaults: { ...QWEN.defaults, head_dim: 128 },
    bias: { qkv: "attention_bias", attnProj: "attention_bias" },
    qkNorm: "head",
  },
  gemma: { ...GEMMA, activations: { gelu: "gelu_pytorch_tanh" } },
  gemma2: GEMMA2,
  gemma3: {
    ...GEMMA2,
    defaults: {
      ...GEMMA2.defaults,
      // The text_config of a multimodal model omits values equal to these defaults.
      vocab_size: 262208,
      hidden_size: 2304,
      intermediate_size: 9216,
      num_hidden_layers: 26,
      num_attention_heads: 8,
      num_key_value_heads: 4,
      max_position_embeddings: 131072,
      attn_logit_softcapping: null,
      final_logit_softcapping: null,
      rope_theta: 1_000_000,
      rope_local_base_freq: 10_000,
    },
    qkNorm: "head",
    rope: { twoBases: true },
    window: { kind: "pattern", every: 6, everyKey: "sliding_window_pattern" },
    scales: {
      attentionRoot: "query_pre_attn_scalar",
      logitSoftCap: "final_logit_softcapping",
    },
    only: { attn_logit_softcapping: null },
  },
  phi: PHI,
  phi3: {
    ...LLAMA,
    defaults: {
      ...LLAMA.defaults,
      max_position_embeddings: 4096,
      original_max_position_embeddings: 4096,
      norm_eps: 1e-5,
      eos_token_id: 32000,
    },
    bias: {},
    rope: { partial: 1, types: { su: "longrope", yarn: "longrope" } },
    window: { kind: "all" },
  },
  gpt_neox: {
    ...PHI,
    keyNames: {
      ...PHI.keyNames,
      rope_theta: "rotary_emb_base",
      partial_rotary_factor: "rotary_pct",
    },
    defaults: {
      ...PHI.defaults,
      hidden_act: "gelu",
      bos_token_id: 0,
      attention_bias: true,
      use_parallel_residual: true,
    },
    ungrouped: true,
    parallel: { norms: 2, when: "use_parallel_residual" },
    bias: { qkv: "attention_bias", attnProj: "attention_bias", mlp: true },
    qkNorm: undefined,
    rope: { partial: 0.25 },
  },
  gptj: {
    keyNames: {
      hidden_size: "n_embd",
      num_attention_heads: "n_head",
      num_hidden_layers: "n_layer",
      intermediate_size: "n_inner",
      max_position_embeddings: "n_positions",
      hidden_act: "activation_function",
      norm_eps: "layer_norm_epsilon",
    },
    defaults: {
      ...PHI.defaults,
      rotary_dim: 64,
      bos_token_id: 50256,
      eos_token_id: 50256,
    },
    ungrouped: true,
    norm: "layer",
    parallel: { norms: 1, when: true },
    gated: false,
    innerPerWidth: 4,
    bias: { mlp: true, lmHead: true },
    rope: { rotaryDimKey: "rotary_dim", interleaved: true },
  },
  opt: {
    keyNames: { intermediate_size: "ffn_dim", hidden_act: "activation_function" },
    defaults: {
      hidden_act: "relu",
      max_position_embeddings: 2048,
      norm_eps: 1e-5,
      bos_token_id: 2,
      eos_token_id: 2,
      tie_word_embeddings: true,
      enable_bias: true,
      do_layer_norm_before: true,
      _remove_final_layer_norm: false,
    },
    ungrouped: true,
    norm: "layer",
    norms: { preKey: "do_layer_norm_before" },
    noFinalNorm: "_remove_final_layer_norm",
    gated: false,
    bias: { qkv: "enable_bias", attnProj: "enable_bias", mlp: "enable_bias" },
    positionOffset: 2,
    only: { layer_norm_elementwise_affine: true },
    same: { word_embed_proj_dim: "hidden_size" },
  },
  olmo2: {
    ...LLAMA,
    defaults: { ...LLAMA.defaults, norm_eps: 1e-5, bos_token_id: null, eos_token_id: 50279 },
    norms: "post",
    bias: { qkv: "attention_bias", attnProj: "attention_bias" },
    qkNorm: "row",
  },
  smollm3: {
    ...LLAMA,
    defaults: {
      ...LLAMA.defaults,
      num_key_value_heads: 4,
      max_position_embeddings: 32768,
      bos_token_id: 128000,
      eos_token_id: 128001,
      tie_word_embeddings: true,
      rope_theta: 2_000_000,
      no_rope_layer_interval: 4,
      use_sliding_window: false,
    },
    window: { kind: "noRope", when: "use_sliding_window" },
    noRopeLayers: true,
  },
  granite: {
    ...LLAMA,
    defaults: {
      ...LLAMA.defaults,
      embedding_multiplier: 1,
      attention_multiplier: 1,
      residual_multiplier: 1,
      logits_scaling: 1,
    },
    scales: {
      embed: "embedding_multiplier",
      attention: "attention_multiplier",
      residual: "residual_multiplier",
      logitDivisor: "logits_scaling",
    },
  },
  starcoder2: {
    ...LLAMA,
    keyNames: { norm_eps: "norm_epsilon" },
    defaults: {
      ...LLAMA.defaults,
      hidden_act: "gelu_pytorch_tanh",
      num_key_value_heads: 2,
      max_position_embeddings: 4096,
      norm_eps: 1e-5,
      bos_token_id: 50256,
      eos_token_id: 50256,
      tie_word_embeddings: true,
      use_bias: true,
    },
    norm: "layer",
    gated: false,
    bias: { qkv: "use_bias", attnProj: "use_bias", mlp: "use_bias" },
    window: { kind: "all" },
  },
  stablelm: {
    ...LLAMA,
    keyNames: { norm_eps: "layer_norm_eps" },
    defaults: {
      ...LLAMA.defaults,
      num_key_value_heads: 32,
      max_position_embeddings: 4096,
      norm_eps: 1e-5,
      bos_token_id: 0,
      eos_token_id: 0,
      use_qkv_bias: false,
      use_parallel_residual: false,
    },
    norm: "layer",
    parallel: { norms: 1, when: "use_parallel_residual" },
    bias: { qkv: "use_qkv_bias" },
    rope: { partial: 0.25 },
    // With qk_layernorm every head would have its own norm weights.
    only: { qk_layernorm: false },
  },
} satisfies Partial<Record<Family, FamilyFacts>>;
