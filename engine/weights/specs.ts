/**
 * Tensors of a model by its architecture: the shape of each, and where its rows are in a file.
 *
 * @module
 */
import { sizeOf, type StoredOrder } from "../../kernels/tensor.ts";
import type { Architecture, NormPlaces } from "../architecture/mod.ts";
import { NAMES } from "./names.ts";

/** Rows of one tensor of a file. */
export interface Run {
  /** Possible names of the tensor, without prefix; the first one in the file is taken. */
  readonly names: readonly string[];
  /** Rows of the whole tensor as it is stored; of a vector, its numbers. */
  readonly of: number;
  /** The first row taken. */
  readonly start: number;
  /** Number of rows taken. */
  readonly count: number;
  /** Rows of a piece, where rows are taken with gaps between pieces; default all of them. */
  readonly piece?: number;
  /** Rows from the start of a piece to the start of the next. */
  readonly stride?: number;
}

/** One tensor of a model. */
export interface WeightSpec {
  /** Possible names in a file, without prefix; the first one found is taken. */
  readonly names: readonly string[];
  /** [N, K] for a weight, [N] for a norm or a bias. */
  readonly shape: readonly number[];
  /** KN: the file holds the transpose. */
  readonly stored: StoredOrder;
  /** Where the rows come from, in order; default a tensor of their own. */
  readonly runs?: readonly Run[];
  /** The numbers of a vector before training; default 0. */
  readonly initial?: number;
}

/** The tensors of a linear layer or a norm. */
export interface LayerSpec {
  readonly weight: WeightSpec;
  readonly bias?: WeightSpec;
}

/** Where the rows of a spec come from. */
export function runsOf({ names, shape: [N, K], stored, runs }: WeightSpec): readonly Run[] {
  const rows = stored === "KN" ? K : N;
  return runs ?? [{ names, of: rows, start: 0, count: rows }];
}

/** Rows of the tensors of a linear layer or a norm, `.weight` and `.bias` alike. */
type Part = Omit<Run, "names"> & { readonly name: string };

/** The specs of a model in the shape of the decoder. */
export type SpecTree = ReturnType<typeof specTree>;

/** Every tensor that a model of this architecture is made of, in the shape of the decoder. */
export function specTree(a: Architecture) {
  const { wte, lnF, lmHead } = NAMES[a.family];
  const [embedding, head] = [`${wte}.weight`, lmHead.map((name) => `${name}.weight`)];
  const make = specMaker(a);
  return {
    wte: make.table(a.tied ? [embedding, ...head] : [embedding]),
    wpe: a.rope ? undefined : positions(a),
    h: Array.from({ length: a.nLayer }, (_, i) => blockSpecs(a, i, make)),
    lnF: a.finalNorm ? make.norm(lnF) : undefined,
    lmHead: a.tied ? undefined : make.table(head),
    lmHeadBias: a.bias.lmHead ? make.vector(`${lmHead[0]}.bias`, a.vocabSize) : undefined,
  };
}

/** The tensors of layer `i`. */
function blockSpecs(a: Architecture, i: number, { layer, linear, norm }: SpecMaker) {
  const { nEmbd: C, nInner: F, nHead: H, nKvHead: G, headDim: D, norms } = a;
  const names = NAMES[a.family];
  const at = `${names.layers}.${i}.`;
  /** A norm of the families whose norms are in one of these places. */
  const normAt = (places: readonly NormPlaces[], name?: string) =>
    name && places.includes(norms) ? norm(at + name) : undefined;
  const qkNorm = (heads: number, name?: string) =>
    a.qkNorm && name ? norm(at + name, a.qkNorm === "row" ? heads * D : D) : undefined;
  const fc = { name: at + names.fc, of: names.up === names.fc ? 2 * F : F, start: 0, count: F };
  const up = { ...fc, name: at + names.up, start: fc.of - F };
  return {
    ln1: normAt(["pre", "both"], names.ln1),
    cAttn: layer(qkvParts(a, at), (H + 2 * G) * D, C, a.bias.qkv),
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

/**
 * Makes specs of each kind: a table, a vector, a norm, a linear layer of one tensor or of parts.
 */
function specMaker({ nEmbd: C, vocabSize, norm: { offset }, bias, family }: Architecture) {
  const { transposed } = NAMES[family];
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

/** The rows of queries, keys and values, in the order in which `writeKv` reads them. */
function qkvParts({ family, nHead: H, nKvHead: G, headDim: D }: Architecture, at: string): Part[] {
  const { qkv, qkvByHead } = NAMES[family];
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

/** Learned positions; OPT's two rows before the first are never looked up, and not read. */
function positions({ family, blockSize, nEmbd, positionOffset }: Architecture): WeightSpec {
  const names = [`${NAMES[family].wpe}.weight`];
  const of = blockSize + positionOffset;
  const runs = [{ names, of, start: positionOffset, count: blockSize }];
  return { names, shape: [blockSize, nEmbd], stored: "NK", ...positionOffset && { runs } };
}

/** Every spec of a model, tied ones once. */
export function weightSpecs(tree: SpecTree): WeightSpec[] {
  const { wte, wpe, lnF, lmHead, lmHeadBias } = tree;
  const all = [wte, wpe, ...layerSpecs(tree), lnF?.weight, lnF?.bias, lmHead, lmHeadBias];
  return all.filter((spec) => spec !== undefined);
}

function layerSpecs({ h }: SpecTree): WeightSpec[] {
  const layers = h.flatMap((block) => Object.values(block));
  return layers.flatMap((l) => [l?.weight, l?.bias]).filter((spec) => spec !== undefined);
}

/** Number of learned numbers, tied ones counted once. */
export function countParameters(tree: SpecTree): number {
  return count(weightSpecs(tree));
}

/** Learned numbers of the layers alone: half the operations of a prefill's row, attention apart. */
export function countLayerParameters(tree: SpecTree): number {
  return count(layerSpecs(tree));
}

function count(specs: readonly WeightSpec[]): number {
  return specs.reduce((n, { shape }) => n + sizeOf(shape), 0);
}
