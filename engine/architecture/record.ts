/**
 * The architecture record: the shape and the conventions of a decoder as plain data, which survives
 * `structuredClone`.
 *
 * @module
 */
import type { Activation } from "../../kernels/ops/activation.ts";
import type { RopeScaling } from "../../kernels/ops/rope.ts";

/** The families that this version knows. */
export type Family =
  | "labcore"
  | "nanogpt"
  | "gpt2"
  | "llama"
  | "mistral"
  | "qwen2"
  | "qwen3"
  | "gemma"
  | "gemma2"
  | "gemma3"
  | "phi"
  | "phi3"
  | "gpt_neox"
  | "gptj"
  | "opt"
  | "olmo2"
  | "smollm3"
  | "granite"
  | "starcoder2"
  | "stablelm";

/**
 * Norms of a layer: `pre` before attention and before the MLP (GPT-2); `post` after each, before
 * the addition (OLMo 2); `both` of these (Gemma 2); `sum` of the stream after each addition, and
 * none before the head (OPT 350M).
 */
export type NormPlaces = "pre" | "post" | "both" | "sum";

/** Norms of a parallel layer: one for attention and MLP (Phi), or one each (GPT-NeoX). */
export type ParallelNorms = 1 | 2;

/** The shape and the conventions of a decoder. */
export interface Architecture {
  /** The family whose conventions the model follows. */
  readonly family: Family;
  /** V */
  readonly vocabSize: number;
  /** The longest context that the model was made for, in tokens. */
  readonly blockSize: number;
  /** Number of layers. */
  readonly nLayer: number;
  /** [nLayer], the first layer first. */
  readonly layers: readonly LayerShape[];
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
  /** Which linear layers and norms have biases. */
  readonly bias: Biases;
  /** Activation of the MLP. */
  readonly activation: Activation;
  /** Whether the MLP multiplies the activation by a second projection. */
  readonly gated: boolean;
  /** Kind of all norms. */
  readonly norm: NormKind;
  /** Places of a layer's norms. */
  readonly norms: NormPlaces;
  /** Whether there is a norm before the head. */
  readonly finalNorm: boolean;
  /**
   * Norms of a layer whose MLP reads the stream as attention does; null where it follows attention.
   */
  readonly parallel: ParallelNorms | null;
  /** Norm of queries and keys: over each head, or over the whole row; null for none. */
  readonly qkNorm: "head" | "row" | null;
  /** Rotary positions; null where positions are learned. */
  readonly rope: Rope | null;
  /** The second rotary table of families that have two (Gemma 3's local layers). */
  readonly ropeLocal: Rope | null;
  /** Rows before the first position in the file's table of learned positions. */
  readonly positionOffset: number;
  /** Bound of attention scores: softCap · tanh(score / softCap); null for none. */
  readonly attentionSoftCap: number | null;
  /** Bound of logits, in the same way; null for none. */
  readonly logitSoftCap: number | null;
  /** Factor of token embeddings. */
  readonly embedScale: number;
  /**
   * Whether that factor is first rounded to the dtype that the embeddings are kept in, as
   * transformers' Gemma does.
   */
  readonly embedScaleRounded: boolean;
  /** Factor of what attention and the MLP add to the stream. */
  readonly residualScale: number;
  /** Factor of the logits. */
  readonly logitScale: number;
  /** Whether past the context keys and values go round the cache (LabCore). */
  readonly slides: boolean;
  /** Whether past the context the last ids are encoded again from position 0 (nanoGPT). */
  readonly crops: boolean;
  /** Whether the head is the token embedding. */
  readonly tied: boolean;
  /** The token that begins a text; null where the family has none. */
  readonly bosId: number | null;
  /** The tokens that end a text. */
  readonly eosIds: readonly number[];
}

/** What may differ from layer to layer. */
export interface LayerShape {
  /** Rotary positions: the record's `rope` or `ropeLocal`; null where the layer has none. */
  readonly rope: Rope | null;
  /** Scale of the attention scores. */
  readonly attentionScale: number;
  /** Keys that a row sees, its own included; null for all. */
  readonly window: number | null;
}

/**
 * A record whose layers are not listed yet: a damaged configuration may ask for billions of them.
 */
export type Outline = Omit<Architecture, "layers"> & {
  /** The shape of a layer, counted from 0. */
  readonly layerOf: (layer: number) => LayerShape;
};

/** Which parts have biases. */
export interface Biases {
  /** The projection to queries, keys and values. */
  readonly qkv: boolean;
  /** The output projection of attention. */
  readonly attnProj: boolean;
  /** The MLP's projections. */
  readonly mlp: boolean;
  /** The norms. */
  readonly norm: boolean;
  /** The head. */
  readonly lmHead: boolean;
}

/** Kind of all norms of a model; see `kernels/ops/norm.ts`. */
export interface NormKind {
  /** `layer` subtracts the mean, `rms` does not. */
  readonly kind: "layer" | "rms";
  /** Added to the variance (`layer`) or the mean square (`rms`). */
  readonly eps: number;
  /** Added to every weight. */
  readonly offset: number;
}

/** How a rotary table is made and used; see `kernels/ops/rope.ts`. */
export interface Rope {
  /** Base of the series of frequencies. */
  readonly theta: number;
  /** R: numbers of a head that are rotated. */
  readonly rotaryDim: number;
  /** Rotates pairs (2i, 2i+1) instead of (i, i + R/2). */
  readonly interleaved: boolean;
  /** How the frequencies are stretched; default not at all. */
  readonly scaling?: RopeScaling;
}

/** Conventions that most families share with GPT-2; a family states only what differs. */
export const COMMON = {
  gated: false,
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
} satisfies Partial<Outline>;
