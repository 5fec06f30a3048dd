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
 * Which norms a layer has: `pre` of what attention and the MLP read (GPT-2); `post` of what they
 * give, before it is added (OLMo 2); `both` of these (Gemma 2); `sum` of the stream after each
 * addition, and none at the end (OPT 350M).
 */
export type NormPlaces = "pre" | "post" | "both" | "sum";

/**
 * How many norms a layer has whose attention and MLP read the same stream: one for both (Phi), or
 * one each (GPT-NeoX).
 */
export type ParallelNorms = 1 | 2;

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
  /** One for each layer, the first one first. */
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
  /** The MLP's function. */
  readonly activation: Activation;
  /** Whether the MLP multiplies what the function gives by a second projection. */
  readonly gated: boolean;
  /** What all norms have in common. */
  readonly norm: NormKind;
  /** Where a layer's norms stand. */
  readonly norms: NormPlaces;
  /** Whether there is a norm before the head. */
  readonly finalNorm: boolean;
  /**
   * Norms of a layer whose attention and MLP read the same stream; null where the MLP reads what
   * attention added to.
   */
  readonly parallel: ParallelNorms | null;
  /** Norm of queries and keys: over each head, or over the whole row; null where there is none. */
  readonly qkNorm: "head" | "row" | null;
  /** Rotary positions; null where positions are learned. */
  readonly rope: Rope | null;
  /** The second rotary table of families that have two (Gemma 3's local layers). */
  readonly ropeLocal: Rope | null;
  /** Rows of the file's table of learned positions that stand before the first. */
  readonly positionOffset: number;
  /** A bound that attention scores approach; null where there is none. */
  readonly attentionSoftCap: number | null;
  /** A bound that logits approach; null where there is none. */
  readonly logitSoftCap: number | null;
  /** What token embeddings are multiplied by. */
  readonly embedScale: number;
  /**
   * Whether that factor is first rounded to the dtype that the embeddings are kept in, as
   * transformers' Gemma does.
   */
  readonly embedScaleRounded: boolean;
  /** What attention and the MLP give is multiplied by this before it is added. */
  readonly residualScale: number;
  /** What logits are multiplied by. */
  readonly logitScale: number;
  /** Whether past the context the window slides (LabCore) or the generation ends. */
  readonly slides: boolean;
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
  /** The projection of what attention gives. */
  readonly attnProj: boolean;
  /** The MLP's projections. */
  readonly mlp: boolean;
  /** The norms. */
  readonly norm: boolean;
  /** The head. */
  readonly lmHead: boolean;
}

/** What all norms of a model have in common; see `kernels/ops/norm.ts`. */
export interface NormKind {
  /** With the mean taken off, or not. */
  readonly kind: "layer" | "rms";
  /** Added to the variance, or to the mean square. */
  readonly eps: number;
  /** Added to every weight. */
  readonly offset: number;
}

/** How a rotary table is made and used; see `kernels/ops/rope.ts`. */
export interface Rope {
  /** Base of the series of frequencies. */
  readonly theta: number;
  /** Numbers of a head that turn. */
  readonly rotaryDim: number;
  /** Pairs (2i, 2i+1) in place of (i, i + R/2). */
  readonly interleaved: boolean;
  /** How the frequencies are stretched; none where they are not. */
  readonly scaling?: RopeScaling;
}

/** What most families have in common with GPT-2; a family states what it has otherwise. */
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
} satisfies Partial<Outline>;
