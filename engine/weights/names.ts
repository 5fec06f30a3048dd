/**
 * Tensor names of each family in Hugging Face checkpoints: one table per family.
 *
 * No other file contains names of checkpoints. Whether a model has an optional tensor is decided by
 * the architecture record.
 *
 * @module
 */
import type { Family } from "../architecture/mod.ts";

/** Names of a family's tensors, without `.weight` and `.bias`. */
export interface NameTable {
  /** Possible prefixes of all names except the head's; the first one in the file is used. */
  readonly prefixes: readonly string[];
  /** Token embeddings. */
  readonly wte: string;
  /** Learned positions. */
  readonly wpe?: string;
  /** Norm before the head. */
  readonly lnF: string;
  /** Possible names of the head, without prefix; the first one in the file is used. */
  readonly lmHead: readonly string[];
  /** Name of the list of layers, before the layer's number. */
  readonly layers: string;
  /** Norm before attention; for norms of kind `sum`, after its addition. */
  readonly ln1?: string;
  /** Queries, keys and values: one tensor, or three whose rows are concatenated. */
  readonly qkv: readonly [string] | readonly [string, string, string];
  /**
   * Whether the rows of the one tensor are grouped by head: q₀ k₀ v₀ q₁ k₁ v₁ … instead of
   * q₀ q₁ … k₀ k₁ … v₀ v₁ ….
   */
  readonly qkvByHead?: boolean;
  readonly qNorm?: string;
  readonly kNorm?: string;
  readonly attnProj: string;
  /** Norm of attention's output. */
  readonly lnAttn?: string;
  /** Norm before the MLP; for norms of kind `sum`, after its addition. */
  readonly ln2?: string;
  /** Projection before the activation. */
  readonly fc: string;
  /**
   * Projection that multiplies the activation; equal to `fc` if one tensor has the rows of both,
   * `fc`'s first.
   */
  readonly up?: string;
  readonly mlpProj: string;
  /** Norm of the MLP's output. */
  readonly lnMlp?: string;
  /** Whether the file stores linear layers as [K, N] (Conv1D). */
  readonly transposed?: boolean;
  /** Tensors of other parts of a multimodal model. */
  readonly others?: RegExp;
}

const GPT2: NameTable = {
  prefixes: ["transformer."],
  wte: "wte",
  wpe: "wpe",
  lnF: "ln_f",
  lmHead: ["lm_head"],
  layers: "h",
  ln1: "ln_1",
  qkv: ["attn.c_attn"],
  attnProj: "attn.c_proj",
  ln2: "ln_2",
  fc: "mlp.c_fc",
  mlpProj: "mlp.c_proj",
};

const LLAMA: NameTable = {
  prefixes: ["model."],
  wte: "embed_tokens",
  lnF: "norm",
  lmHead: ["lm_head"],
  layers: "layers",
  ln1: "input_layernorm",
  qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
  attnProj: "self_attn.o_proj",
  ln2: "post_attention_layernorm",
  fc: "mlp.gate_proj",
  up: "mlp.up_proj",
  mlpProj: "mlp.down_proj",
};

const QWEN3: NameTable = { ...LLAMA, qNorm: "self_attn.q_norm", kNorm: "self_attn.k_norm" };

const GEMMA2: NameTable = {
  ...LLAMA,
  lnAttn: "post_attention_layernorm",
  ln2: "pre_feedforward_layernorm",
  lnMlp: "post_feedforward_layernorm",
};

/** Tensor names by family. */
export const NAMES: Readonly<Record<Family, NameTable>> = {
  labcore: GPT2,
  nanogpt: GPT2,
  gpt2: { ...GPT2, transposed: true },
  llama: LLAMA,
  mistral: LLAMA,
  qwen2: LLAMA,
  qwen3: QWEN3,
  gemma: LLAMA,
  gemma2: GEMMA2,
  gemma3: {
    ...GEMMA2,
    prefixes: ["language_model.model.", "model.language_model.", "model."],
    lmHead: ["lm_head", "language_model.lm_head"],
    qNorm: QWEN3.qNorm,
    kNorm: QWEN3.kNorm,
    others: /^(model\.)?(vision_tower|multi_modal_projector)\./,
  },
  phi: {
    ...LLAMA,
    lnF: "final_layernorm",
    qNorm: "self_attn.q_layernorm",
    kNorm: "self_attn.k_layernorm",
    attnProj: "self_attn.dense",
    fc: "mlp.fc1",
    mlpProj: "mlp.fc2",
  },
  phi3: {
    ...LLAMA,
    qkv: ["self_attn.qkv_proj"],
    fc: "mlp.gate_up_proj",
    up: "mlp.gate_up_proj",
  },
  gpt_neox: {
    prefixes: ["gpt_neox."],
    wte: "embed_in",
    lnF: "final_layer_norm",
    lmHead: ["embed_out", "lm_head"], // the name in the file; in memory
    layers: "layers",
    ln1: "input_layernorm",
    qkv: ["attention.query_key_value"],
    qkvByHead: true,
    attnProj: "attention.dense",
    ln2: "post_attention_layernorm",
    fc: "mlp.dense_h_to_4h",
    mlpProj: "mlp.dense_4h_to_h",
  },
  gptj: {
    ...GPT2,
    qkv: ["attn.q_proj", "attn.k_proj", "attn.v_proj"],
    attnProj: "attn.out_proj",
    fc: "mlp.fc_in",
    mlpProj: "mlp.fc_out",
  },
  opt: {
    ...LLAMA,
    prefixes: ["model.decoder.", "decoder."],
    wpe: "embed_positions",
    lnF: "final_layer_norm",
    ln1: "self_attn_layer_norm",
    attnProj: "self_attn.out_proj",
    ln2: "final_layer_norm",
    fc: "fc1",
    mlpProj: "fc2",
  },
  olmo2: {
    ...QWEN3,
    lnAttn: "post_attention_layernorm",
    lnMlp: "post_feedforward_layernorm",
  },
  smollm3: LLAMA,
  granite: LLAMA,
  starcoder2: { ...LLAMA, fc: "mlp.c_fc", mlpProj: "mlp.c_proj" },
  stablelm: LLAMA,
};

/**
 * Buffers in old checkpoints, which are ignored: causal masks, mask values and rotary frequencies.
 */
export const BUFFERS =
  /^((h|layers)\.\d+\.(attn|attention|self_attn)\.(bias|masked_bias|rotary_emb\.inv_freq)|rotary_emb\.inv_freq)$/;
