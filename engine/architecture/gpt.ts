/**
 * GPT-2 and what descends from nanoGPT: families that spell their keys as GPT-2 did.
 *
 * @module
 */
import type { ConfigKeys } from "./keys.ts";
import { COMMON, type Outline } from "./record.ts";

/** LabCore's GPT: nanoGPT's block with learned or rotary positions, exact GELU, tied embedding. */
export function labcore(keys: ConfigKeys): Outline {
  const headDim = keys.headDim("n_embd", "n_head");
  const [nEmbd, nHead] = [keys.size("n_embd"), keys.size("n_head")];
  const rotary = keys.flag("use_rope", false);
  if (rotary && headDim % 2) {
    keys.fail("n_embd", `an even multiple of n_head (${nHead}) for rotary positions`);
  }
  const rope = rotary ? { theta: 10000, rotaryDim: headDim, interleaved: true } : null;
  const bias = keys.flag("bias", true);
  return {
    ...COMMON,
    family: "labcore",
    vocabSize: keys.size("vocab_size"),
    blockSize: keys.size("block_size"),
    nLayer: keys.size("n_layer"),
    nHead,
    nKvHead: nHead,
    nEmbd,
    headDim,
    nInner: 4 * nEmbd,
    bias: { qkv: bias, attnProj: bias, mlp: bias, norm: true, lmHead: false },
    activation: keys.activation("activation", "gelu"),
    norm: { kind: "layer", eps: 1e-5, offset: 0 },
    rope,
    layerOf: () => ({ rope, attentionScale: 1 / Math.sqrt(headDim), window: null }),
    slides: true,
    tied: true,
    bosId: null,
    eosIds: [],
  };
}

/**
 * nanoGPT's GPT: LabCore's with learned positions, `bias` for its norms too, and no word on what
 * comes after the context.
 */
export function nanogpt(keys: ConfigKeys): Outline {
  const base = labcore(keys);
  if (base.rope) keys.fail("use_rope", "false");
  const bias = { ...base.bias, norm: base.bias.qkv };
  return { ...base, family: "nanogpt", bias, slides: false };
}

/** GPT-2 as transformers has it. */
export function gpt2(keys: ConfigKeys): Outline {
  const headDim = keys.headDim("n_embd", "n_head");
  const [nEmbd, nHead] = [keys.size("n_embd"), keys.size("n_head")];
  const scaled = keys.flag("scale_attn_weights", true);
  const byLayer = keys.flag("scale_attn_by_inverse_layer_idx", false);
  return {
    ...COMMON,
    family: "gpt2",
    vocabSize: keys.size("vocab_size"),
    blockSize: keys.size(keys.has("n_positions") ? "n_positions" : "block_size", 1024),
    nLayer: keys.size("n_layer"),
    nHead,
    nKvHead: nHead,
    nEmbd,
    headDim,
    nInner: keys.size("n_inner", 4 * nEmbd),
    bias: { qkv: true, attnProj: true, mlp: true, norm: true, lmHead: false },
    activation: keys.activation(
      keys.has("activation") ? "activation" : "activation_function",
      "gelu_new",
    ),
    norm: { kind: "layer", eps: keys.positive("layer_norm_epsilon", 1e-5), offset: 0 },
    layerOf: (layer) => ({
      rope: null,
      attentionScale: (scaled ? 1 / Math.sqrt(headDim) : 1) / (byLayer ? layer + 1 : 1),
      window: null,
    }),
    tied: keys.flag("tie_word_embeddings", true),
    bosId: keys.ids("bos_token_id")[0] ?? null,
    eosIds: keys.ids("eos_token_id"),
  };
}
