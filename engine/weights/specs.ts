/**
 * Tensors of an architecture: shapes, and the rows of a file that each is made of.
 *
 * @module
 */
import { sizeOf, type StoredOrder } from "../../kernels/tensor.ts";
import type { Architecture, NormPlaces } from "../architecture/mod.ts";
import { NAMES, type NameTable } from "./names.ts";

/**
 * Rows taken from one tensor of a file. With `piece` and `stride`, such as the queries of GPT-NeoX:
 *
 *     file rows   q₀ k₀ v₀ q₁ k₁ v₁ …      D rows each: piece = D, stride = 3·D, start = 0
 *     taken       q₀ q₁ …                  count = H·D
 */
export interface Run {
  /** Possible names of the tensor, without prefix; the first one in the file is used. */
  readonly names: readonly string[];
  /** Rows of the whole stored tensor; for a vector, its numbers. */
  readonly of: number;
  /** The first row taken. */
  readonly start: number;
  /** Number of rows taken. */
  readonly count: number;
  /** Adjacent rows of a piece; default all rows. */
  readonly piece?: number;
  /** Rows from the start of a piece to the start of the next. */
  readonly stride?: number;
}

/** One tensor of a model. */
export interface WeightSpec {
  /** Possible names in a file, without prefix; the first one in the file is used. */
  readonly names: readonly string[];
  /** [N, K] for a weight, [N] for a norm or a bias. */
  readonly shape: readonly number[];
  /** KN: the file stores the transpose [K, N]. */
  readonly stored: StoredOrder;
  /** Sources of the rows, concatenated; default all rows of the tensor `names`. */
  readonly runs?: readonly Run[];
  /** Initial value of a vector's numbers; default 0. */
  readonly initial?: number;
}

/** The tensors of a linear layer or a norm. */
export interface LayerSpec {
  readonly weight: WeightSpec;
  readonly bias?: WeightSpec;
}

/** The sources of a spec's rows, concatenated. */
export function runsOf({ names, shape: [N, K], stored, runs }: WeightSpec): readonly Run[] {
  const rows = stored === "KN" ? K : N;
  return runs ?? [{ names, of: rows, start: 0, count: rows }];
}

/** Rows of a linear layer's weight and bias; `name` has no suffix. */
type Part = Omit<Run, "names"> & { readonly name: string };

/** The specs of a model, in the structure of the decoder. */
export type SpecTree = ReturnType<typeof specTree>;

/** Whether the rows of two tensors, by their names, are one matrix; else they are one each. */
export type Joins = (a: string, b: string) => boolean;

/**
 * The specs of all tensors of an architecture, in the structure of the decoder.
 * @param names of the tensors in the file; default those of Hugging Face checkpoints.
 * @param joins whether neighbours of q, k and v are one matrix; default always.
 */
export function specTree(
  a: Architecture,
  names: NameTable = NAMES[a.family],
  joins: Joins = () => true,
) {
  const { wte, lnF, lmHead } = names;
  const [embedding, head] = [`${wte}.weight`, lmHead.map((name) => `${name}.weight`)];
  const make = specMaker(a, names);
  return {
    wte: make.table(a.tied ? [embedding, ...head] : [embedding]),
    wpe: a.rope ? undefined : positions(a, names),
    h: Array.from({ length: a.nLayer }, (_, i) => blockSpecs(a, { names, i, joins }, make)),
    lnF: a.finalNorm ? make.norm(lnF) : undefined,
    lmHead: a.tied ? undefined : make.table(head),
    lmHeadBias: a.bias.lmHead ? make.vector(`${lmHead[0]}.bias`, a.vocabSize) : undefined,
  };
}

/** The tensors of layer `i`. */
function blockSpecs(
  a: Architecture,
  { names, i, joins }: { readonly names: NameTable; readonly i: number; readonly joins: Joins },
  { layer, linear, norm }: SpecMaker,
) {
  const { nEmbd: C, nInner: F, nHead: H, nKvHead: G, headDim: D, norms } = a;
  const at = `${names.layers}.${i}.`;
  /** A norm, if the family has norms at one of these positions. */
  const normAt = (places: readonly NormPlaces[], name?: string) =>
    name && places.includes(norms) ? norm(at + name) : undefined;
  const qkNorm = (heads: number, name?: string) =>
    a.qkNorm && name ? norm(at + name, a.qkNorm === "row" ? heads * D : D) : undefined;
  const fc = { name: at + names.fc, of: names.up === names.fc ? 2 * F : F, start: 0, count: F };
  const up = { ...fc, name: at + names.up, start: fc.of - F };
  return {
    ln1: normAt(["pre", "both"], names.ln1),
    cAttn: joined(qkvParts(a, names, at), joins).map((parts) =>
      layer(parts, parts.reduce((rows, { count }) => rows + count, 0), C, a.bias.qkv)
    ),
    qNorm: qkNorm(H, names.qNorm),
    kNorm: qkNorm(G, names.kNorm),
    attnProj: linear(at + names.attnProj, C, H * D, a.bias.attnProj),
    lnAttn: normAt(["post", "both"], names.lnAttn),
    lnAttnSum: normAt(["sum"], names.ln1),
    ln2: a.parallel === 1 ? undefined : normAt(["pre", "both"], names.ln2),
    cFc: layer([fc], F, C, a.bias.mlp),
    cUp: a.gated ? layer([up], F, C, a.bias.mlp) : undefined,
    mlpProj: linear(at + names.mlpProj, C, F, a.bias.mlp),
    lnMlp: normAt(["post", "both"], names.lnMlp),
    lnMlpSum: normAt(["sum"], names.ln2),
  };
}

type SpecMaker = ReturnType<typeof specMaker>;

/** Functions that make the specs of an embedding table, a vector, a norm or a linear layer. */
function specMaker(
  { nEmbd: C, vocabSize, norm: { offset }, bias }: Architecture,
  { transposed }: NameTable,
) {
  const tensor = (parts: readonly Part[], suffix: string, N: number, K?: number): WeightSpec => {
    const runs = parts.map(({ name, ...rows }) => ({ names: [name + suffix], ...rows }));
    const isWhole = runs.length === 1 && runs[0].of === N;
    return {
      names: runs[0].names,
      shape: K ? [N, K] : [N],
      stored: K && transposed ? "KN" : "NK",
      ...!isWhole && { runs },
    };
  };
  const whole = (name: string, N: number): Part[] => [{ name, of: N, start: 0, count: N }];
  const layer = (parts: readonly Part[], N: number, K: number, hasBias: boolean): LayerSpec => ({
    weight: tensor(parts, ".weight", N, K),
    bias: hasBias ? tensor(parts, ".bias", N) : undefined,
  });
  return {
    layer,
    linear: (name: string, N: number, K: number, hasBias: boolean) =>
      layer(whole(name, N), N, K, hasBias),
    vector: (name: string, N: number) => tensor(whole(name, N), "", N),
    norm: (name: string, N = C): LayerSpec => ({
      weight: { ...tensor(whole(name, N), ".weight", N), initial: 1 - offset },
      bias: bias.norm ? tensor(whole(name, N), ".bias", N) : undefined,
    }),
    table: (names: readonly string[]): WeightSpec => ({
      names,
      shape: [vocabSize, C],
      stored: "NK",
    }),
  };
}

/** The rows of queries, keys and values, in the order that `writeKv` expects. */
function qkvParts(
  { nHead: H, nKvHead: G, headDim: D }: Architecture,
  { qkv, qkvByHead }: NameTable,
  at: string,
): Part[] {
  const counts = [H * D, G * D, G * D];
  if (qkv.length === 3) {
    return qkv.map((name, i) => ({ name: at + name, of: counts[i], start: 0, count: counts[i] }));
  }
  const name = at + qkv[0];
  const of = (H + 2 * G) * D;
  if (!qkvByHead) return [{ name, of, start: 0, count: of }];
  const pieces = { of, count: H * D, piece: D, stride: 3 * D };
  return [0, 1, 2].map((part) => ({ name, start: part * D, ...pieces }));
}

/** Groups of neighbouring parts that are one matrix. */
function joined(parts: readonly Part[], joins: Joins): Part[][] {
  const groups: Part[][] = [];
  for (const part of parts) {
    const last = groups.at(-1);
    const follows = last && joins(`${last[0].name}.weight`, `${part.name}.weight`);
    if (follows) last.push(part);
    else groups.push([part]);
  }
  return groups;
}

/** Learned positions, without the rows before position 0: OPT's first two are never used. */
function positions(
  { blockSize, nEmbd, positionOffset }: Architecture,
  { wpe }: NameTable,
): WeightSpec {
  const names = [`${wpe}.weight`];
  const of = blockSize + positionOffset;
  const runs = [{ names, of, start: positionOffset, count: blockSize }];
  return { names, shape: [blockSize, nEmbd], stored: "NK", ...positionOffset && { runs } };
}

/** All specs of a model; tied tensors once. */
export function weightSpecs(tree: SpecTree): WeightSpec[] {
  const { wte, wpe, lnF, lmHead, lmHeadBias } = tree;
  const all = [wte, wpe, ...layerSpecs(tree), lnF?.weight, lnF?.bias, lmHead, lmHeadBias];
  return all.filter((spec) => spec !== undefined);
}

function layerSpecs({ h }: SpecTree): WeightSpec[] {
  const layers = h.flatMap((block) => Object.values(block)).flat();
  return layers.flatMap((l) => [l?.weight, l?.bias]).filter((spec) => spec !== undefined);
}

/** Number of parameters; tied tensors count once. */
export function countParameters(tree: SpecTree): number {
  return count(weightSpecs(tree));
}

/** Parameters of the layers: half the FLOPs of one prefilled token, without attention. */
export function countLayerParameters(tree: SpecTree): number {
  return count(layerSpecs(tree));
}

function count(specs: readonly WeightSpec[]): number {
  return specs.reduce((n, { shape }) => n + sizeOf(shape), 0);
}
