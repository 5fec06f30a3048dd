/**
 * Weights of a model on a backend: the structure that the decoder reads, and the upload.
 *
 *     names.ts: names of a family's tensors ─┐
 *     architecture ──▶ specs.ts: tensors ────┴▶ match.ts: rows in a file ──▶ uploadWeights()
 *
 * Letters: V vocabulary, P positions, C width, H query heads, G key/value heads, D head width,
 * F hidden width, R rotated numbers of a head.
 *
 * @module
 */
import type { Activation } from "../../kernels/ops/activation.ts";
import type { Backend } from "../../kernels/backend.ts";
import type { Norm } from "../../kernels/ops/norm.ts";
import { ropeTable } from "../../kernels/ops/rope.ts";
import {
  isBlocked,
  narrow,
  numbersIn,
  storedBytes,
  type Weight,
  type WeightDtype,
  widen,
} from "../../kernels/formats/mod.ts";
import { bytesOf, type FillRows, sizeOf, type Tensor } from "../../kernels/tensor.ts";
import type { Architecture, LayerShape, Rope as RopeFacts } from "../architecture/mod.ts";
import { tensorsTogether } from "../tensors.ts";
import { LongRope } from "./long_rope.ts";
import { encodeColumns } from "./encode_columns.ts";
import type { WeightSource } from "./match.ts";
import { type LayerSpec, type SpecTree, type WeightSpec, weightSpecs } from "./specs.ts";

export { chooseDtypes, type Holds, mainDtype } from "./dtypes.ts";
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

/** Output of attention or MLP: x += residualScale · cProj(y), with a norm in some families. */
export interface Output {
  /** [C, H·D] or [C, F] */
  readonly cProj: Linear;
  /** Norm of cProj(y), before the addition (Gemma 2, OLMo 2). */
  readonly lnPost?: Norm;
  /** Norm of x, after the addition (OPT 350M). */
  readonly lnSum?: Norm;
  /** Factor of cProj(y); default 1 (Granite). */
  readonly residualScale?: number;
}

/** The attention of a layer. */
export interface Attention extends Output {
  /** [(H + 2G)·D, C]: rows of q, k and v; a matrix for each run of rows of one dtype. */
  readonly cAttn: readonly Linear[];
  /** Absent if positions are learned, or the layer has none. */
  readonly rope?: Rope;
  /** Norm of queries: [D] for each head, or [H·D]. */
  readonly qNorm?: Norm;
  /** Norm of keys: [D] for each head, or [G·D]. */
  readonly kNorm?: Norm;
  /** Factor of the scores. */
  readonly scale: number;
  /** Soft cap of the scores: softCap · tanh(score / softCap). */
  readonly softCap?: number;
  /** Number of keys that a query attends to; default all. */
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
  /** Norm before attention; absent if attention reads the stream without a norm. */
  readonly ln1?: Norm;
  readonly attn: Attention;
  /** Norm before the MLP; absent if it reads the stream without a norm, or attention's input. */
  readonly ln2?: Norm;
  readonly mlp: Mlp;
  /** Whether attention and MLP read the same stream. */
  readonly parallel: boolean;
}

/** Rotary positions, as arguments of `writeKv`. */
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
  /** [P, C]; absent if positions are rotary. */
  readonly wpe?: Weight;
  readonly h: readonly Block[];
  /** Norm before the head. */
  readonly lnF?: Norm;
  /** [V, C]; equal to `wte` if they are tied. */
  readonly lmHead: Weight;
  /** [V] */
  readonly lmHeadBias?: Tensor;
  /** Factor of the logits (Granite). */
  readonly logitScale?: number;
  /** Soft cap of the logits (Gemma 2): softCap · tanh(logit / softCap). */
  readonly logitSoftCap?: number;
  /** Tables whose values depend on the number of tokens in use (Phi 3). */
  readonly longRopes: readonly LongRope[];
}

/** Whether a matrix is quantised. */
export function isQuantised({ wte, lmHead, h }: Weights): boolean {
  const linears = h.flatMap(({ attn, mlp }) => [
    ...attn.cAttn,
    attn.cProj,
    mlp.cFc,
    ...mlp.cUp ? [mlp.cUp] : [],
    mlp.cProj,
  ]);
  return [wte, lmHead, ...linears.map(({ weight }) => weight)].some(({ dtype }) =>
    isBlocked(dtype)
  );
}

/** Bytes of a model's weights: norms and biases in F32, matrices in their dtypes. */
export function weightBytes(source: Pick<WeightSource, "specs" | "dtype">): number {
  return weightSpecs(source.specs).reduce((bytes, spec) => {
    const dtype = spec.shape.length === 1 ? "F32" : source.dtype(spec);
    return bytes + storedBytes(dtype, sizeOf(spec.shape));
  }, 0);
}

/**
 * Uploads all weights to a backend.
 * @param positions rows of the rotary tables: one more than the context.
 * @param onBytes called and awaited after each chunk of bytes; throws to stop the upload.
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
  const { ropes, longRopes } = uploadRopes(backend, a, positions);
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
    longRopes,
  };
}

/** Uploads the tensors of a layer. */
async function uploadBlock(
  { norm, linear, linears }: Uploader,
  specs: SpecTree["h"][number],
  a: Architecture,
  { rope, attentionScale, window }: LayerShape,
  ropes: ReadonlyMap<string, Rope>,
): Promise<Block> {
  const residualScale = unless1(a.residualScale);
  return {
    ln1: await norm(specs.ln1),
    attn: {
      cAttn: await linears(specs.cAttn),
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

/** Factor of token embeddings of dtype `dtype`; blocks have no dtype to round it to. */
export function embedScaleOf(
  { embedScale, embedScaleRounded }: Pick<Architecture, "embedScale" | "embedScaleRounded">,
  dtype: WeightDtype,
): number {
  if (!embedScaleRounded || isBlocked(dtype)) return embedScale;
  const into = new Float32Array(1);
  widen(into, narrow(Float32Array.of(embedScale), dtype), dtype, 0, 1);
  return into[0];
}

/** A factor; undefined for 1, which needs no multiplication. */
function unless1(factor: number): number | undefined {
  return factor === 1 ? undefined : factor;
}

/** Dtype that rows are uploaded in: floats if the backend quantises them. */
function fromOf(
  dtype: WeightDtype,
  plain: WeightDtype | undefined,
  { encodes = () => false }: Pick<Backend, "encodes">,
): WeightDtype {
  if (plain === dtype) return dtype;
  const floats = [...plain ? [plain] : [], "F32"] as const;
  return floats.find((from) => encodes(dtype, from)) ?? dtype;
}

type Uploader = ReturnType<typeof uploader>;

/** Functions that upload a matrix, a vector, a norm or a linear layer. */
function uploader(
  backend: Backend,
  a: Architecture,
  source: WeightSource,
  onBytes: (count: number) => void | Promise<void>,
) {
  /** Rows in dtype `from`; progress counts the bytes that they take in `dtype`. */
  const fill = (spec: WeightSpec, dtype: WeightDtype, from = dtype): FillRows => {
    const rows = source.fill(spec, from);
    return async (row, count, into) => {
      await rows(row, count, into);
      await onBytes(storedBytes(dtype, numbersIn(from, into.byteLength)));
    };
  };
  const weight = async (spec: WeightSpec): Promise<Weight> => {
    const [N, K] = spec.shape;
    const dtype = source.dtype(spec);
    const from = fromOf(dtype, source.plain?.(spec), backend);
    if (isBlocked(dtype) && spec.stored === "KN" && from === dtype) {
      const rows = await encodeColumns(fill(spec, dtype, "F32"), [N, K], dtype);
      return await backend.weight([N, K], dtype, rows, { stored: "NK" });
    }
    return await backend.weight([N, K], dtype, fill(spec, dtype, from), {
      stored: spec.stored,
      from,
    });
  };
  const vectors = makeVectors(backend, source);
  const vector = async (spec: WeightSpec): Promise<Tensor> => {
    const tensor = vectors.get(spec)!;
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
  const linears = async (layers: readonly LayerSpec[]): Promise<Linear[]> => {
    const uploaded: Linear[] = [];
    for (const layer of layers) uploaded.push(await linear(layer));
    return uploaded;
  };
  return { weight, vector, norm, linear, linears };
}

/**
 * Allocates the norms and biases of a model, by their specs. In one buffer, since WebGPU checks
 * each buffer of a dispatch: four fewer of them take 5 % off the host's time of a step (lavapipe).
 */
function makeVectors(backend: Backend, { specs }: WeightSource): Map<WeightSpec, Tensor> {
  const vectors = weightSpecs(specs).filter(({ shape }) => shape.length === 1);
  const tensors = tensorsTogether(
    backend,
    vectors.map(({ shape }) => ({ shape, dtype: "F32" })),
    "weights",
  );
  return new Map(vectors.map((spec, i) => [spec, tensors[i]]));
}

/** Uploads the rotary tables; `ropes` has them by the key of their parameters. */
function uploadRopes(
  backend: Backend,
  { rope, ropeLocal }: Architecture,
  positions: number,
): { ropes: Map<string, Rope>; longRopes: LongRope[] } {
  const ropes = new Map<string, Rope>();
  const longRopes: LongRope[] = [];
  for (const facts of [rope, ropeLocal]) {
    if (!facts) continue;
    const { rotaryDim, interleaved } = facts;
    const table = backend.tensor([positions, rotaryDim], "F32", "weights");
    backend.write(table, ropeTable({ ...facts, positions }));
    ropes.set(keyOf(facts), { table, rotaryDim, interleaved });
    const { scaling } = facts;
    if (scaling?.type === "longrope" && positions - 1 > scaling.originalPositions) {
      longRopes.push(new LongRope(backend, table, { ...facts, scaling }));
    }
  }
  return { ropes, longRopes };
}

/** A key by value: a copied record has other objects with equal values. */
function keyOf(rope: RopeFacts): string {
  return JSON.stringify(rope);
}
