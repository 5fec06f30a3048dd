/**
 * Every tensor that a model of an architecture is made of: its shape, and where its rows come from
 * in a file.
 *
 * @module
 */
import { sizeOf, type StoredOrder } from "../../kernels/tensor.ts";
import type { Architecture } from "../architecture/mod.ts";
import { NAMES } from "./names.ts";

/** Rows of one tensor of a file. */
export interface Run {
  /** Names that the tensor may have in a file, without prefix; the first that is there is taken. */
  readonly names: readonly string[];
  /** Rows that the tensor has in all, as it is stored; of a vector, its numbers. */
  readonly of: number;
  /** The first row that is taken … */
  readonly start: number;
  /** … and how many are. */
  readonly count: number;
  /** Where they do not all follow one another: so many do … */
  readonly piece?: number;
  /** … and the next piece begins so many rows after this one. */
  readonly stride?: number;
}

/** One tensor that the decoder wants. */
export interface WeightSpec {
  /** Names that it may have in a file, without prefix; the first that is there is taken. */
  readonly names: readonly string[];
  /** [N, K] for a weight, [N] for a norm or a bias. */
  readonly shape: readonly number[];
  /** KN: the file holds the transpose. */
  readonly stored: StoredOrder;
  /** Where the rows come from, in order, if not from a tensor of their own. */
  readonly runs?: readonly Run[];
  /** What the numbers of a vector are before training; default 0. */
  readonly initial?: number;
}

/** A layer's tensors: a weight and, where it has one, a bias. */
export interface LayerSpec {
  readonly weight: WeightSpec;
  readonly bias?: WeightSpec;
}

/** Where the rows of a spec come from. */
export function runsOf({ names, shape: [N, K], stored, runs }: WeightSpec): readonly Run[] {
  const rows = stored === "KN" ? K : N;
  return runs ?? [{ names, of: rows, start: 0, count: rows }];
}

/** Rows of a layer's or a norm's tensors, `.weight` and `.bias` alike. */
type Part = Omit<Run, "names"> & { readonly name: string };

/** The specs of a model in the shape of the decoder. */
export type SpecTree = ReturnType<typeof specTree>;

/** Every tensor that a model of this architecture is made of, in the shape of the decoder. */
export function specTree(a: Architecture) {
  const { nEmbd: C, nInner: F, nHead: H, nKvHead: G, headDim: D, norms, norm: { offset } } = a;
  const names = NAMES[a.family];
  const tensor = (parts: readonly Part[], suffix: string, N: number, K?: number): WeightSpec => {
    const runs = parts.map(({ name, ...rows }) => ({ names: [name + suffix], ...rows }));
    const isWhole = runs.length === 1 && runs[0].of === N;
    return {
      names: runs[0].names,
      shape: K ? [N, K] : [N],
      stored: K && names.transposed ? "KN" : "NK",
      ...!isWhole && { runs },
    };
  };
  const layer = (parts: readonly Part[], N: number, K: number, bias: boolean): LayerSpec => ({
    weight: tensor(parts, ".weight", N, K),
    bias: bias ? tensor(parts, ".bias", N) : undefined,
  });
  const whole = (name: string, N: number): Part[] => [{ name, of: N, start: 0, count: N }];
  const linear = (name: string, N: number, K: number, bias: boolean) =>
    layer(whole(name, N), N, K, bias);
  const norm = (name: string, N = C): LayerSpec => ({
    weight: { ...tensor(whole(name, N), ".weight", N), initial: 1 - offset },
    bias: a.bias.norm ? tensor(whole(name, N), ".bias", N) : undefined,
  });
  const embedding = `${names.wte}.weight`;
  const head = names.lmHead.map((name) => `${name}.weight`);
  const table = (names: readonly string[]): WeightSpec => ({
    names,
    shape: [a.vocabSize, C],
    stored: "NK",
  });
  const block = (i: number) => {
    const at = `${names.layers}.${i}.`;
    /** A norm that stands in one of these places. */
    const normAt = (places: string, name?: string) =>
      name && places.split(" ").includes(norms) ? norm(at + name) : undefined;
    const qkNorm = (heads: number, name?: string) =>
      a.qkNorm && name ? norm(at + name, a.qkNorm === "row" ? heads * D : D) : undefined;
    const fc = { name: at + names.fc, of: names.up === names.fc ? 2 * F : F, start: 0, count: F };
    return {
      ln1: normAt("pre both", names.ln1),
      cAttn: layer(qkvParts(a, at), (H + 2 * G) * D, C, a.bias.qkv),
      qNorm: qkNorm(H, names.qNorm),
      kNorm: qkNorm(G, names.kNorm),
      attnProj: linear(at + names.attnProj, C, H * D, a.bias.attnProj),
      lnAttn: normAt("post both", names.lnAttn),
      lnAttnSum: normAt("sum", names.ln1),
      ln2: a.parallel === 1 ? undefined : normAt("pre both", names.ln2),
      cFc: layer([fc], F, C, a.bias.mlp),
      cUp: a.gated
        ? layer([{ ...fc, name: at + names.up, start: fc.of - F }], F, C, a.bias.mlp)
        : undefined,
      mlpProj: linear(at + names.mlpProj, C, F, a.bias.mlp),
      lnMlp: normAt("post both", names.lnMlp),
      lnMlpSum: normAt("sum", names.ln2),
    };
  };
  return {
    wte: table(a.tied ? [embedding, ...head] : [embedding]),
    wpe: a.rope ? undefined : positions(a),
    h: Array.from({ length: a.nLayer }, (_, i) => block(i)),
    lnF: a.finalNorm ? norm(names.lnF) : undefined,
    lmHead: a.tied ? undefined : table(head),
    lmHeadBias: a.bias.lmHead
      ? tensor(whole(names.lmHead[0], a.vocabSize), ".bias", a.vocabSize)
      : undefined,
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

/**
 * Learned positions. Rows before the first one are never looked up, and are left in the file (OPT).
 */
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
