/**
 * What a model is, in one record, whatever its config.json calls things.
 *
 * @module
 */
import type { Activation } from "../kernels/activation.ts";
import { CheckpointError } from "./errors.ts";

/** The families that this version knows. */
export type Family = "labcore" | "nanogpt" | "gpt2";

/** The shape and the conventions of a decoder. */
export interface Architecture {
  /** Whose conventions the model follows. */
  readonly family: Family;
  /** V */
  readonly vocabSize: number;
  /** The longest context that the model was made for, in tokens. */
  readonly blockSize: number;
  /** Layers. */
  readonly nLayer: number;
  /** H */
  readonly nHead: number;
  /** G */
  readonly nKvHead: number;
  /** C */
  readonly nEmbd: number;
  /** D */
  readonly headDim: number;
  /** F */
  readonly nInner: number;
  /** Whether the linear layers have biases. */
  readonly bias: boolean;
  /** Whether the norms have biases. */
  readonly normBias: boolean;
  /** The MLP's function. */
  readonly activation: Activation;
  /** Added to the variance in every norm. */
  readonly normEps: number;
  /** Rotary positions; null where positions are learned. */
  readonly rope: Rope | null;
  /** Scale of the attention scores of each layer. */
  readonly attentionScale: (layer: number) => number;
  /** Whether past the context the window slides (LabCore) or the generation ends. */
  readonly slides: boolean;
  /** Whether the head is the token embedding. */
  readonly tied: boolean;
  /** The token that begins a text; null where the family has none. */
  readonly bosId: number | null;
  /** The tokens that end a text. */
  readonly eosIds: readonly number[];
}

/** How a rotary table is made and used; see `kernels/rope.ts`. */
export interface Rope {
  /** Base of the series of frequencies. */
  readonly theta: number;
  /** Numbers of a head that turn. */
  readonly rotaryDim: number;
  /** Pairs (2i, 2i+1) in place of (i, i + R/2). */
  readonly interleaved: boolean;
}

/** Largest extent that a configuration may name; a shape beyond it is a damaged file and no model. */
const MAX_EXTENT = 2 ** 31 - 1;

/**
 * Reads a config.json, or the `[model]` section of a TOML preset (which has `family` for `model_type`).
 * @param where names the file in messages.
 * @throws {CheckpointError} when a key is missing or has a value that no model can have, or the family is not known.
 */
export function readArchitecture(config: Record<string, unknown>, where: string): Architecture {
  const family = config.model_type ?? config.family;
  const keys = new ConfigKeys(config, where);
  switch (family) {
    case "labcore_gpt":
    case "labcore":
      return labcore(keys);
    case "nanogpt":
      return nanogpt(keys);
    case "gpt2":
      return gpt2(keys);
    default:
      throw new CheckpointError(
        `Cannot read "${where}": expected a model_type of labcore_gpt, nanogpt or gpt2, got ${
          JSON.stringify(family) ?? "none"
        }`,
      );
  }
}

/** LabCore's GPT: nanoGPT's block with learned or rotary positions, exact GELU, tied embedding. */
function labcore(keys: ConfigKeys): Architecture {
  const [nEmbd, nHead] = [keys.size("n_embd"), keys.size("n_head")];
  const headDim = keys.headDim(nEmbd, nHead);
  const rotary = keys.flag("use_rope", false);
  if (rotary && headDim % 2) {
    keys.fail("n_embd", `an even multiple of n_head (${nHead}) for rotary positions`);
  }
  return {
    family: "labcore",
    vocabSize: keys.size("vocab_size"),
    blockSize: keys.size("block_size"),
    nLayer: keys.size("n_layer"),
    nHead,
    nKvHead: nHead,
    nEmbd,
    headDim,
    nInner: 4 * nEmbd,
    bias: keys.flag("bias", true),
    normBias: true,
    activation: keys.activation("activation", "gelu"),
    normEps: 1e-5,
    rope: rotary ? { theta: 10000, rotaryDim: headDim, interleaved: true } : null,
    attentionScale: () => 1 / Math.sqrt(headDim),
    slides: true,
    tied: true,
    bosId: null,
    eosIds: [],
  };
}

/** nanoGPT's GPT: LabCore's with learned positions, `bias` for its norms too, and no word on what comes after the context. */
function nanogpt(keys: ConfigKeys): Architecture {
  const base = labcore(keys);
  if (base.rope) keys.fail("use_rope", "false");
  return { ...base, family: "nanogpt", normBias: base.bias, slides: false };
}

/** GPT-2 as transformers has it. */
function gpt2(keys: ConfigKeys): Architecture {
  const [nEmbd, nHead] = [keys.size("n_embd"), keys.size("n_head")];
  const headDim = keys.headDim(nEmbd, nHead);
  if (keys.flag("add_cross_attention", false)) keys.fail("add_cross_attention", "false");
  const scaled = keys.flag("scale_attn_weights", true);
  const byLayer = keys.flag("scale_attn_by_inverse_layer_idx", false);
  return {
    family: "gpt2",
    vocabSize: keys.size("vocab_size"),
    blockSize: keys.size(keys.has("n_positions") ? "n_positions" : "block_size", 1024),
    nLayer: keys.size("n_layer"),
    nHead,
    nKvHead: nHead,
    nEmbd,
    headDim,
    nInner: keys.size("n_inner", 4 * nEmbd),
    bias: true,
    normBias: true,
    activation: keys.activation(
      keys.has("activation") ? "activation" : "activation_function",
      "gelu_new",
    ),
    normEps: keys.positive("layer_norm_epsilon", 1e-5),
    rope: null,
    attentionScale: (layer) => (scaled ? 1 / Math.sqrt(headDim) : 1) / (byLayer ? layer + 1 : 1),
    slides: false,
    tied: keys.flag("tie_word_embeddings", true),
    bosId: keys.ids("bos_token_id")[0] ?? null,
    eosIds: keys.ids("eos_token_id"),
  };
}

/** Activations by the names that configurations use. */
const ACTIVATION_NAMES: Readonly<Record<string, Activation>> = {
  relu: "relu",
  gelu: "gelu",
  gelu_new: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
  geluTanh: "geluTanh",
  silu: "silu",
  swish: "silu",
};

/** Reads one key at a time, with its default and its bounds. `null` counts as absent, as transformers has it. */
class ConfigKeys {
  constructor(readonly config: Record<string, unknown>, readonly where: string) {}

  has(key: string): boolean {
    return Object.hasOwn(this.config, key) && this.config[key] !== null;
  }

  fail(key: string, expected: string): never {
    throw new CheckpointError(
      `Cannot read "${this.where}": expected ${key} to be ${expected}, got ${
        JSON.stringify(this.config[key]) ?? "none"
      }`,
    );
  }

  size(key: string, fallback?: number): number {
    const value = this.has(key) ? this.config[key] : fallback;
    if (
      typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > MAX_EXTENT
    ) {
      return this.fail(key, `an integer from 1 to ${MAX_EXTENT}`);
    }
    return value;
  }

  positive(key: string, fallback: number): number {
    const value = this.has(key) ? this.config[key] : fallback;
    if (typeof value !== "number" || !(value > 0 && value < Infinity)) {
      return this.fail(key, "a positive number");
    }
    return value;
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.has(key) ? this.config[key] : fallback;
    return typeof value === "boolean" ? value : this.fail(key, "true or false");
  }

  activation(key: string, fallback: string): Activation {
    const value = this.has(key) ? this.config[key] : fallback;
    if (typeof value !== "string" || !Object.hasOwn(ACTIVATION_NAMES, value)) {
      return this.fail(key, `one of ${Object.keys(ACTIVATION_NAMES).join(" ")}`);
    }
    return ACTIVATION_NAMES[value];
  }

  ids(key: string): number[] {
    if (!this.has(key)) return [];
    const value = this.config[key];
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    if (!ids.every((id) => Number.isInteger(id))) return this.fail(key, "an id or a list of ids");
    return ids as number[];
  }

  headDim(nEmbd: number, nHead: number): number {
    if (nEmbd % nHead) this.fail("n_embd", `a multiple of n_head (${nHead})`);
    return nEmbd / nHead;
  }
}
