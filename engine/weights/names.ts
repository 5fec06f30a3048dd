/**
 * What each family calls its tensors: the only border where foreign names live. A family is a
 * table; what it has of these and what not is in the architecture's record.
 *
 * @module
 */
import type { Family } from "../architecture/mod.ts";

/** Names of a family's tensors, `.weight` and `.bias` apart. */
export interface NameTable {
  /** What may stand before all names but the head's; the first that the file has is taken. */
  readonly prefixes: readonly string[];
  /** Token embeddings. */
  readonly wte: string;
  /** Learned positions. */
  readonly wpe?: string;
  /** Norm before the head. */
  readonly lnF: string;
  /** The head, with no prefix; the first is taken that the file has. */
  readonly lmHead: readonly string[];
  /** What stands before a layer's number. */
  readonly layers: string;
  /** Norm of what attention reads, or of the sum with what it gives. */
  readonly ln1?: string;
  /** Queries, keys and values: one tensor, or three whose rows follow one another. */
  readonly qkv: readonly [string] | readonly [string, string, string];
  /**
   * Whether the one tensor has query, key and value of a head side by side, and not all queries
   * first.
   */
  readonly qkvByHead?: boolean;
  readonly qNorm?: string;
  readonly kNorm?: string;
  readonly attnProj: string;
  /** Norm of what attention gives. */
  readonly lnAttn?: string;
  /** Norm of what the MLP reads, or of the sum with what it gives. */
  readonly ln2?: string;
  /** The projection that goes through the activation. */
  readonly fc: string;
  /**
   * The projection that is multiplied in; the same name as `fc` where one tensor has the rows of
   * both, `fc`'s first.
   */
  readonly up?: string;
  readonly mlpProj: string;
  /** Norm of what the MLP gives. */
  readonly lnMlp?: string;
  /** File has the transpose of linear layers (Conv1D). */
  readonly transposed?: boolean;
  /** Tensors of other parts of the repository's model. */
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

/** The table of each family. */
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
    lmHead: ["embed_out"],
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
 * Buffers that old checkpoints hold beside the weights: causal masks, their fillers, and rotary
 * frequencies.
 */
export const BUFFERS =
  /^((h|layers)\.\d+\.(attn|attention|self_attn)\.(bias|masked_bias|rotary_emb\.inv_freq)|rotary_emb\.inv_freq)$/;
