/**
 * Weights of a model on a backend, in the shape that the decoder reads, and their upload.
 *
 * `names.ts` has the names of each family's tensors, `specs.ts` the tensors of an architecture,
 * `match.ts` finds them in a checkpoint.
 *
 * @module
 */
import type { Activation } from "../../kernels/ops/activation.ts";
import type { Backend } from "../../kernels/backend.ts";
import type { Norm } from "../../kernels/ops/norm.ts";
import { ropeTable } from "../../kernels/ops/rope.ts";
import {
  narrow,
  storedBytes,
  type Weight,
  type WeightDtype,
  widen,
} from "../../kernels/formats/mod.ts";
import { bytesOf, type FillRows, sizeOf, type Tensor } from "../../kernels/tensor.ts";
import type { Architecture, LayerShape, Rope as RopeFacts } from "../architecture/mod.ts";
import type { WeightSource } from "./match.ts";
import { type LayerSpec, type SpecTree, type WeightSpec, weightSpecs } from "./specs.ts";

export { checkpointWeights, type WeightSource } from "./match.ts";
export { randomWeights } from "./random.ts";
export {
  countLayerParameters,
  countParameters,
  type SpecTree,
  specTree,
  type WeightSpec,
  weightSpecs,
} from "./specs.ts";

/** A linear layer: y = x · Wᵀ + bias. */
export interface Linear {
  /** [N, K] */
  readonly weight: Weight;
  /** [N] */
  readonly bias?: Tensor;
}

/** The end of attention and of the MLP: x += scale · cProj(y), with a norm in some families. */
export interface Output {
  /** [C, H·D] or [C, F] */
  readonly cProj: Linear;
  /** Norm of the summand (Gemma 2, OLMo 2). */
  readonly lnPost?: Norm;
  /** Norm of the sum (OPT 350M). */
  readonly lnSum?: Norm;
  /** Factor of the summand (Granite). */
  readonly residualScale?: number;
}

/** The attention of a layer. */
export interface Attention extends Output {
  /** [(H + 2G)·D, C] */
  readonly cAttn: Linear;
  /** Absent where positions are learned, or the layer has none. */
  readonly rope?: Rope;
  /** Norm of queries: [D] for each head, or [H·D]. */
  readonly qNorm?: Norm;
  /** Norm of keys: [D] for each head, or [G·D]. */
  readonly kNorm?: Norm;
  /** Scale of the scores. */
  readonly scale: number;
  /** Bound of the scores: softCap · tanh(score / softCap). */
  readonly softCap?: number;
  /** Keys that a row sees; default all. */
  readonly window?: number;
}

/** The MLP of a layer. */
export interface Mlp extends Output {
  /** [F, C] */
  readonly cFc: Linear;
  /** [F, C]; its output multiplies the activation of `cFc` in a gated MLP. */
  readonly cUp?: Linear;
  readonly activation: Activation;
}

/** One layer of the decoder. */
export interface Block {
  /** Norm before attention; absent where attention reads the stream itself. */
  readonly ln1?: Norm;
  readonly attn: Attention;
  /** Norm before the MLP; absent where it reads the stream itself, or what attention reads. */
  readonly ln2?: Norm;
  readonly mlp: Mlp;
  /** Whether the MLP reads the stream as it was before attention. */
  readonly parallel: boolean;
}

/** Rotary positions, as `writeKv` takes them. */
export interface Rope {
  /** [P, R] */
  readonly table: Tensor;
  readonly rotaryDim: number;
  readonly interleaved: boolean;
}

/** All weights of a model on a backend. */
export interface Weights {
  /** [V, C] */
  readonly wte: Weight;
  /** Factor of the token embeddings (Gemma, Granite). */
  readonly embedScale?: number;
  /** [P, C]; absent where positions are rotary. */
  readonly wpe?: Weight;
  readonly h: readonly Block[];
  /** Norm before the head. */
  readonly lnF?: Norm;
  /** [V, C]; the same as `wte` where they are tied. */
  readonly lmHead: Weight;
  /** [V] */
  readonly lmHeadBias?: Tensor;
  /** Factor of the logits (Granite). */
  readonly logitScale?: number;
  /** Bound of the logits (Gemma 2): softCap · tanh(logit / softCap). */
  readonly logitSoftCap?: number;
}

/**
 * Bytes of a model's tensors as they are kept: norms and biases in F32, the rest in their dtypes.
 */
export function weightBytes(source: Pick<WeightSource, "specs" | "dtype">): number {
  return weightSpecs(source.specs).reduce((bytes, spec) => {
    const dtype = spec.shape.length === 1 ? "F32" : source.dtype(spec);
    return bytes + storedBytes(dtype, sizeOf(spec.shape));
  }, 0);
}

/**
 * Uploads every tensor to a backend.
 * @param positions rows of the rotary tables: one more than the context.
 * @param onBytes called after each chunk of bytes, and awaited; it may throw to stop the upload.
 */
export async function uploadWeights(
  backend: Backend,
  a: Architecture,
  source: WeightSource,
  positions: number,
  onBytes: (count: number) => void | Promise<void>,
): Promise<Weights> {
  const to = uploader(backend, a, source, onBytes);
  const { specs } = source;
  const ropes = uploadRopes(backend, a, positions);
  const wte = await to.weight(specs.wte);
  const wpe = specs.wpe && await to.weight(specs.wpe);
  const h: Block[] = [];
  for (const [i, block] of specs.h.entries()) {
    h.push(await uploadBlock(to, block, a, a.layers[i], ropes));
  }
  return {
    wte,
    embedScale: unless1(embedScaleOf(a, wte.dtype)),
    wpe,
    h,
    lnF: await to.norm(specs.lnF),
    lmHead: specs.lmHead ? await to.weight(specs.lmHead) : wte,
    lmHeadBias: specs.lmHeadBias && await to.vector(specs.lmHeadBias),
    logitScale: unless1(a.logitScale),
    logitSoftCap: a.logitSoftCap ?? undefined,
  };
}

/** Uploads the tensors of a layer. */
async function uploadBlock(
  { norm, linear }: Uploader,
  specs: SpecTree["h"][number],
  a: Architecture,
  { rope, attentionScale, window }: LayerShape,
  ropes: ReadonlyMap<string, Rope>,
): Promise<Block> {
  const residualScale = unless1(a.residualScale);
  return {
    ln1: await norm(specs.ln1),
    attn: {
      cAttn: await linear(specs.cAttn),
      rope: rope ? ropes.get(keyOf(rope)) : undefined,
      qNorm: await norm(specs.qNorm),
      kNorm: await norm(specs.kNorm),
      scale: attentionScale,
      softCap: a.attentionSoftCap ?? undefined,
      window: window ?? undefined,
      cProj: await linear(specs.attnProj),
      lnPost: await norm(specs.lnAttn),
      lnSum: await norm(specs.lnAttnSum),
      residualScale,
    },
    ln2: await norm(specs.ln2),
    mlp: {
      cFc: await linear(specs.cFc),
      cUp: specs.cUp && await linear(specs.cUp),
      activation: a.activation,
      cProj: await linear(specs.mlpProj),
      lnPost: await norm(specs.lnMlp),
      lnSum: await norm(specs.lnMlpSum),
      residualScale,
    },
    parallel: a.parallel !== null,
  };
}

/** Factor of token embeddings that are kept in `dtype`. */
export function embedScaleOf(
  { embedScale, embedScaleRounded }: Pick<Architecture, "embedScale" | "embedScaleRounded">,
  dtype: WeightDtype,
): number {
  if (!embedScaleRounded) return embedScale;
  const into = new Float32Array(1);
  widen(into, narrow(Float32Array.of(embedScale), dtype), dtype, 0, 1);
  return into[0];
}

/** A factor, or undefined for 1, which needs no multiplication. */
function unless1(factor: number): number | undefined {
  return factor === 1 ? undefined : factor;
}

type Uploader = ReturnType<typeof uploader>;

/** Uploads a spec of each kind: a matrix, a vector, a norm, a linear layer. */
function uploader(
  backend: Backend,
  a: Architecture,
  source: WeightSource,
  onBytes: (count: number) => void | Promise<void>,
) {
  const fill = (spec: WeightSpec, dtype: WeightDtype): FillRows => {
    const rows = source.fill(spec, dtype);
    return async (row, count, into) => {
      await rows(row, count, into);
      await onBytes(into.byteLength);
    };
  };
  const weight = (spec: WeightSpec): Promise<Weight> => {
    const [N, K] = spec.shape;
    const dtype = source.dtype(spec);
    return backend.weight([N, K], dtype, fill(spec, dtype), { stored: spec.stored });
  };
  const vector = async (spec: WeightSpec): Promise<Tensor> => {
    const tensor = backend.tensor(spec.shape, "F32", "weights");
    const values = new Float32Array(sizeOf(spec.shape));
    await fill(spec, "F32")(0, values.length, bytesOf(values));
    backend.write(tensor, values);
    return tensor;
  };
  const norm = async (layer?: LayerSpec): Promise<Norm | undefined> =>
    layer && {
      ...a.norm,
      weight: await vector(layer.weight),
      bias: layer.bias && await vector(layer.bias),
    };
  const linear = async (layer: LayerSpec): Promise<Linear> => ({
    weight: await weight(layer.weight),
    bias: layer.bias && await vector(layer.bias),
  });
  return { weight, vector, norm, linear };
}

/** The rotary tables, by the values that they are computed from. */
function uploadRopes(
  backend: Backend,
  { rope, ropeLocal }: Architecture,
  positions: number,
): Map<string, Rope> {
  const ropes = new Map<string, Rope>();
  for (const facts of [rope, ropeLocal]) {
    if (!facts) continue;
    const { rotaryDim, interleaved } = facts;
    const table = backend.tensor([positions, rotaryDim], "F32", "weights");
    backend.write(table, ropeTable({ ...facts, positions }));
    ropes.set(keyOf(facts), { table, rotaryDim, interleaved });
  }
  return ropes;
}

/** Equal for equal positions: a copy of a record need not share its objects. */
function keyOf(rope: RopeFacts): string {
  return JSON.stringify(rope);
}
