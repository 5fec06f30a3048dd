/**
 * Architecture record: shapes and conventions of a decoder as plain data, which `structuredClone`
 * can copy.
 *
 * @module
 */
import type { Activation } from "../../kernels/ops/activation.ts";
import type { RopeScaling } from "../../kernels/ops/rope.ts";

/** The supported families. */
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
 * Positions of a layer's norms, f being attention or the MLP:
 *
 *     pre    x + f(norm(x))          GPT-2, LLaMA
 *     post   x + norm(f(x))          OLMo 2
 *     both   x + norm(f(norm(x)))    Gemma 2
 *     sum    norm(x + f(x))          OPT 350M, which has no norm before the head
 */
export type NormPlaces = "pre" | "post" | "both" | "sum";

/** Norms of a parallel layer: 1 shared by attention and MLP (Phi), or 2 (GPT-NeoX). */
export type ParallelNorms = 1 | 2;

/** Shapes and conventions of a decoder. */
export interface Architecture {
  /** The family whose conventions the model follows. */
  readonly family: Family;
  /** V: number of tokens in the vocabulary. */
  readonly vocabSize: number;
  /** Longest context of the model, in tokens. */
  readonly blockSize: number;
  /** Number of layers. */
  readonly nLayer: number;
  /** Shape of each layer, first to last. [nLayer] */
  readonly layers: readonly LayerShape[];
  /** H: number of query heads. */
  readonly nHead: number;
  /** G: number of key/value heads. */
  readonly nKvHead: number;
  /** C: width of the residual stream. */
  readonly nEmbd: number;
  /** D: width of a head. */
  readonly headDim: number;
  /** F: hidden width of the MLP. */
  readonly nInner: number;
  /** Which linear layers and norms have biases. */
  readonly bias: Biases;
  /** Activation of the MLP. */
  readonly activation: Activation;
  /** Whether the MLP multiplies the activation by a second projection. */
  readonly gated: boolean;
  /** Formula of all norms. */
  readonly norm: NormKind;
  /** Positions of a layer's norms. */
  readonly norms: NormPlaces;
  /** Whether there is a norm before the head. */
  readonly finalNorm: boolean;
  /**
   * Norms of a layer whose attention and MLP read the same stream; null if the MLP reads the stream
   * after attention.
   */
  readonly parallel: ParallelNorms | null;
  /** Norm of queries and keys: over each head, or over the whole row; null for none. */
  readonly qkNorm: "head" | "row" | null;
  /** Rotary positions; null if positions are learned. */
  readonly rope: Rope | null;
  /** Rotary positions of sliding-window layers, in families with two tables (Gemma 3). */
  readonly ropeLocal: Rope | null;
  /** Rows of the file's table of learned positions before position 0. */
  readonly positionOffset: number;
  /** Soft cap of the attention scores: cap · tanh(score / cap); null for none. */
  readonly attentionSoftCap: number | null;
  /** Soft cap of the logits: cap · tanh(logit / cap); null for none. */
  readonly logitSoftCap: number | null;
  /** Factor of token embeddings. */
  readonly embedScale: number;
  /**
   * Whether `embedScale` is first rounded to the dtype of the embeddings, as in transformers'
   * Gemma.
   */
  readonly embedScaleRounded: boolean;
  /** Factor of the outputs of attention and MLP. */
  readonly residualScale: number;
  /** Factor of the logits. */
  readonly logitScale: number;
  /**
   * Whether the KV cache becomes a ring beyond the context: the oldest keys are replaced (LabCore).
   */
  readonly slides: boolean;
  /** Whether beyond the context the last ids are encoded again from position 0 (nanoGPT). */
  readonly crops: boolean;
  /** Whether the head uses the weights of the token embedding. */
  readonly tied: boolean;
  /** Token at the beginning of a text; null if the family has none. */
  readonly bosId: number | null;
  /** Tokens that end a text. */
  readonly eosIds: readonly number[];
}

/** Properties that differ between layers. */
export interface LayerShape {
  /** Rotary positions: the record's `rope` or `ropeLocal`; null if the layer has none. */
  readonly rope: Rope | null;
  /** Factor of the attention scores. */
  readonly attentionScale: number;
  /** Number of keys that a query attends to, including its own; null for all. */
  readonly window: number | null;
}

/** A record whose layers are not listed yet: a damaged configuration may have billions of them. */
export type Outline = Omit<Architecture, "layers"> & {
  /** The shape of layer `layer`, counted from 0. */
  readonly layerOf: (layer: number) => LayerShape;
};

/** Which parts of a model have biases. */
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

/** Formula of all norms of a model; see `kernels/ops/norm.ts`. */
export interface NormKind {
  /** `layer` subtracts the mean, `rms` does not. */
  readonly kind: "layer" | "rms";
  /** Added to the variance (`layer`) or the mean square (`rms`). */
  readonly eps: number;
  /** Added to every weight. */
  readonly offset: number;
}

/** Rotary positions; see `kernels/ops/rope.ts`. */
export interface Rope {
  /** Base of the frequencies: θᵢ = theta^(−2i/R). */
  readonly theta: number;
  /** R: rotated numbers of a head, from the first. */
  readonly rotaryDim: number;
  /** Rotates pairs (2i, 2i+1) instead of (i, i + R/2). */
  readonly interleaved: boolean;
  /** Scaling of the frequencies for longer contexts; default none. */
  readonly scaling?: RopeScaling;
}

/** Conventions that most families share with GPT-2; a family states only the differences. */
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
