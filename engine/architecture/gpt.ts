/**
 * Configuration readers of GPT-2, nanoGPT and LabCore, which use GPT-2's key names.
 *
 * @module
 */
import type { ConfigKeys } from "./keys.ts";
import { COMMON, type Outline } from "./record.ts";

/** Keys that nanoGPT's GPTConfig always has. */
const GPT_CONFIG_KEYS = ["n_layer", "n_head", "n_embd", "block_size", "vocab_size"] as const;

/** Whether an object has all keys of nanoGPT's GPTConfig. */
export function isGptConfig(has: (key: string) => boolean): boolean {
  return GPT_CONFIG_KEYS.every(has);
}

/**
 * Derives nanoGPT's GPTConfig from the tensors of a state dict, except the number of heads, which
 * no shape contains; null if the tensors are another model's.
 */
export function gptConfigOf(
  tensors: readonly { readonly name: string; readonly shape: readonly number[] }[],
): Record<string, unknown> | null {
  const plain = (name: string) => name.replace(/^transformer\./, "");
  const shapes = new Map(tensors.map(({ name, shape }) => [plain(name), shape]));
  const [wte, wpe] = [shapes.get("wte.weight"), shapes.get("wpe.weight")];
  if (!wte || !wpe || !shapes.has("h.0.attn.c_attn.weight")) return null;
  const layers = [...shapes.keys()].flatMap((name) => /^h\.(\d+)\./.exec(name)?.[1] ?? []);
  return {
    model_type: "nanogpt",
    vocab_size: wte[0],
    n_embd: wte[1],
    block_size: wpe[0],
    n_layer: 1 + layers.reduce((most, layer) => Math.max(most, Number(layer)), 0),
    bias: shapes.has("h.0.attn.c_attn.bias"),
  };
}

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
 * nanoGPT's GPT: LabCore's, but with learned positions and norms whose bias depends on `bias`.
 * Beyond the context it encodes the last ids again from position 0.
 */
export function nanogpt(keys: ConfigKeys): Outline {
  const base = labcore(keys);
  if (base.rope) keys.fail("use_rope", "false");
  const bias = { ...base.bias, norm: base.bias.qkv };
  return { ...base, family: "nanogpt", bias, slides: false, crops: true };
}

/** GPT-2 of transformers. */
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
