/**
 * From the names in a file to the weights of the decoder. The only border where foreign names live: every name and every shape is
 * checked, and what is missing or left over is listed.
 *
 * @module
 */
import type { Backend } from "../kernels/backend.ts";
import type { Norm } from "../kernels/norm.ts";
import { ropeTable } from "../kernels/rope.ts";
import {
  bytesOf,
  type FillRows,
  narrow,
  sizeOf,
  type StoredOrder,
  type Tensor,
  type Weight,
  type WeightDtype,
} from "../kernels/tensor.ts";
import type { Architecture } from "./architecture.ts";
import { type Checkpoint, decode, type TensorInfo } from "./checkpoint/checkpoint.ts";
import { STORED_BYTES } from "./checkpoint/safetensors.ts";
import { CheckpointError } from "./errors.ts";

/** A linear layer: y = x · Wᵀ + bias. */
export interface Linear {
  /** [N, K] */
  readonly weight: Weight;
  /** [N] */
  readonly bias?: Tensor;
}

/** One layer of the decoder. */
export interface Block {
  readonly ln1: Norm;
  readonly attn: {
    /** [(H + 2G)·D, C] */
    readonly cAttn: Linear;
    /** [C, H·D] */
    readonly cProj: Linear;
    /** Scale of the scores. */
    readonly scale: number;
  };
  readonly ln2: Norm;
  readonly mlp: {
    /** [F, C] */
    readonly cFc: Linear;
    /** [C, F] */
    readonly cProj: Linear;
  };
}

/** Rotary positions, as `writeKv` takes them. */
export interface Rope {
  /** [P, R] */
  readonly table: Tensor;
  readonly rotaryDim: number;
  readonly interleaved: boolean;
}

/** Everything that was learned, on a backend. */
export interface Weights {
  /** [V, C] */
  readonly wte: Weight;
  /** [P, C]; none where positions are rotary. */
  readonly wpe?: Weight;
  /** None where positions are learned. */
  readonly rope?: Rope;
  readonly h: readonly Block[];
  readonly lnF: Norm;
  /** [V, C]; the same as `wte` where they are tied. */
  readonly lmHead: Weight;
}

/** One tensor that the decoder wants. */
export interface WeightSpec {
  /** Names that it may have in a file, without prefix; the first that is there is taken. */
  readonly names: readonly string[];
  /** [N, K] for a weight, [N] for a norm or a bias. */
  readonly shape: readonly number[];
  /** KN: the file holds the transpose. */
  readonly stored: StoredOrder;
}

/** Where the numbers of a wanted tensor come from: a file, or a generator of random ones. */
export interface WeightSource {
  /** The dtype in which the weight of this spec is to be kept. */
  dtype(spec: WeightSpec): WeightDtype;
  /** Gives rows in that dtype. */
  fill(spec: WeightSpec, dtype: WeightDtype): FillRows;
}

/** A layer's tensors: a weight and, where it has one, a bias. */
interface LayerSpec {
  readonly weight: WeightSpec;
  readonly bias?: WeightSpec;
}

/** All families spell their tensors as GPT-2 did; they differ in Conv1D's order and in which biases there are. */
function specTree(a: Architecture) {
  const { nEmbd: C, nInner: F, nHead: H, nKvHead: G, headDim: D } = a;
  const table = (names: string[], rows: number): WeightSpec => ({
    names,
    shape: [rows, C],
    stored: "NK",
  });
  const vector = (name: string, N: number): WeightSpec => ({
    names: [name],
    shape: [N],
    stored: "NK",
  });
  const norm = (name: string): LayerSpec => ({
    weight: vector(`${name}.weight`, C),
    bias: a.normBias ? vector(`${name}.bias`, C) : undefined,
  });
  const linear = (name: string, N: number, K: number): LayerSpec => ({
    weight: {
      names: [`${name}.weight`],
      shape: [N, K],
      stored: a.family === "gpt2" ? "KN" : "NK",
    },
    bias: a.bias ? vector(`${name}.bias`, N) : undefined,
  });
  return {
    wte: table(a.tied ? ["wte.weight", "lm_head.weight"] : ["wte.weight"], a.vocabSize),
    wpe: a.rope ? undefined : table(["wpe.weight"], a.blockSize),
    h: Array.from({ length: a.nLayer }, (_, i) => ({
      ln1: norm(`h.${i}.ln_1`),
      cAttn: linear(`h.${i}.attn.c_attn`, (H + 2 * G) * D, C),
      attnProj: linear(`h.${i}.attn.c_proj`, C, H * D),
      ln2: norm(`h.${i}.ln_2`),
      cFc: linear(`h.${i}.mlp.c_fc`, F, C),
      mlpProj: linear(`h.${i}.mlp.c_proj`, C, F),
    })),
    lnF: norm("ln_f"),
    lmHead: a.tied ? undefined : table(["lm_head.weight"], a.vocabSize),
  };
}

/** Every tensor that a model of this architecture is made of, tied ones once. */
export function weightSpecs(a: Architecture): WeightSpec[] {
  const { wte, wpe, h, lnF, lmHead } = specTree(a);
  const layers = h.flatMap((block) => Object.values(block));
  const all = [wte, wpe, ...[...layers, lnF].flatMap(({ weight, bias }) => [weight, bias]), lmHead];
  return all.filter((spec) => spec !== undefined);
}

/** Number of learned numbers, tied ones counted once. */
export function countParameters(a: Architecture): number {
  return weightSpecs(a).reduce((n, { shape }) => n + sizeOf(shape), 0);
}

/**
 * Puts every tensor on a backend.
 * @param positions rows of the rotary table, where there is one.
 * @param onBytes is told, and waited for, after each run of bytes; it may throw to give up.
 */
export async function putWeights(
  backend: Backend,
  a: Architecture,
  source: WeightSource,
  positions: number,
  onBytes: (count: number) => void | Promise<void>,
): Promise<Weights> {
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
    await fill(spec, "F32")(0, 1, values);
    backend.write(tensor, values);
    return tensor;
  };
  const norm = async (layer: LayerSpec): Promise<Norm> => ({
    kind: "layer",
    weight: await vector(layer.weight),
    bias: layer.bias && await vector(layer.bias),
    eps: a.normEps,
  });
  const linear = async (layer: LayerSpec): Promise<Linear> => ({
    weight: await weight(layer.weight),
    bias: layer.bias && await vector(layer.bias),
  });
  const tree = specTree(a);
  const wte = await weight(tree.wte);
  const wpe = tree.wpe && await weight(tree.wpe);
  const h: Block[] = [];
  for (const [i, block] of tree.h.entries()) {
    h.push({
      ln1: await norm(block.ln1),
      attn: {
        cAttn: await linear(block.cAttn),
        cProj: await linear(block.attnProj),
        scale: a.attentionScale(i),
      },
      ln2: await norm(block.ln2),
      mlp: { cFc: await linear(block.cFc), cProj: await linear(block.mlpProj) },
    });
  }
  const lnF = await norm(tree.lnF);
  const lmHead = tree.lmHead ? await weight(tree.lmHead) : wte;
  return { wte, wpe, rope: putRope(backend, a, positions), h, lnF, lmHead };
}

function putRope(backend: Backend, { rope }: Architecture, positions: number): Rope | undefined {
  if (!rope) return undefined;
  const { rotaryDim, interleaved, theta } = rope;
  const table = backend.tensor([positions, rotaryDim], "F32", "weights");
  backend.write(table, ropeTable({ positions, rotaryDim, theta }));
  return { table, rotaryDim, interleaved };
}

/** The dtypes that a weight keeps as it is stored. */
function isWeightDtype(dtype: string): dtype is WeightDtype {
  return dtype === "F32" || dtype === "F16" || dtype === "BF16";
}

/**
 * The weights of a checkpoint, each name and shape checked against the architecture.
 * @param dtype how weights are to be kept; "auto" as they are stored.
 * @throws {CheckpointError} listing what is missing, left over, or of another shape.
 */
export async function checkpointWeights(
  checkpoint: Checkpoint,
  a: Architecture,
  dtype: WeightDtype | "auto",
): Promise<WeightSource> {
  const found = await matchNames(checkpoint, a);
  return {
    dtype: (spec) => {
      const stored = found.get(spec.names[0])!.dtype;
      return dtype !== "auto" ? dtype : isWeightDtype(stored) ? stored : "F32";
    },
    fill: (spec, kept) => {
      const { name, dtype: stored, shape } = found.get(spec.names[0])!;
      const rowLength = shape.length === 1 ? shape[0] : shape[1];
      const rowBytes = rowLength * STORED_BYTES[stored];
      if (stored === kept) {
        return (row, _, into) => checkpoint.readBytes(name, row * rowBytes, bytesOf(into));
      }
      return async (row, count, into) => {
        const bytes = new Uint8Array(count * rowBytes);
        await checkpoint.readBytes(name, row * rowBytes, bytes);
        into.set(narrow(decode(bytes, stored), kept));
      };
    },
  };
}

/** Buffers that old checkpoints of GPT-2 hold beside the weights: the causal mask and its filler. */
const MASKS = /^h\.\d+\.attn\.(bias|masked_bias)$/;

/** Finds each wanted tensor in a file, by its first wanted name. */
async function matchNames(
  checkpoint: Checkpoint,
  a: Architecture,
): Promise<Map<string, TensorInfo>> {
  const cannot = `Cannot load "${checkpoint.path}" as ${a.family}`;
  const stored = checkpoint.tensors();
  if (a.nLayer > stored.length) {
    throw new CheckpointError(`${cannot}: ${a.nLayer} layers, but ${stored.length} tensors`);
  }
  const prefix = stored.some(({ name }) => name.startsWith("transformer.")) ? "transformer." : "";
  const byName = new Map(stored.map((t) => [t.name, t]));
  const left = new Set(byName.keys());
  const found = new Map<string, TensorInfo>();
  const missing: string[] = [];
  const wrong: string[] = [];
  for (const { names, shape, stored: order } of weightSpecs(a)) {
    // The head stands outside the prefix.
    const hits = names.flatMap((n) => byName.get(prefix + n) ?? byName.get(n) ?? []);
    hits.forEach(({ name }) => left.delete(name));
    const [hit, twin] = hits;
    if (!hit) {
      missing.push(names.join(" or "));
      continue;
    }
    const expected = order === "KN" ? shape.toReversed() : shape;
    if (`${hit.shape}` !== `${expected}`) {
      wrong.push(`${hit.name} is [${hit.shape}], expected [${expected}]`);
    } else if (twin && !await sameBytes(checkpoint, hit, twin)) {
      wrong.push(`${hit.name} and ${twin.name} are tied, but differ`);
    }
    found.set(names[0], hit);
  }
  const extra = [...left].filter((name) => !MASKS.test(name.slice(prefix.length)));
  const faults = [
    ...list("missing", missing),
    ...list("left over", extra),
    ...list("misshapen or unlike", wrong),
  ];
  if (faults.length) throw new CheckpointError(`${cannot}: ${faults.join("; ")}`);
  return found;
}

/** A short list for a message. */
function list(what: string, items: readonly string[]): string[] {
  if (!items.length) return [];
  const more = items.length > 6 ? ` and ${items.length - 6} more` : "";
  return [`${what}: ${items.slice(0, 6).join(", ")}${more}`];
}

/** Tied tensors are stored once as a rule; a writer that stored both must have stored the same. */
async function sameBytes(checkpoint: Checkpoint, a: TensorInfo, b: TensorInfo): Promise<boolean> {
  if (checkpoint.sharesBytes(a.name, b.name)) return true;
  if (a.dtype !== b.dtype || `${a.shape}` !== `${b.shape}`) return false;
  const size = sizeOf(a.shape) * STORED_BYTES[a.dtype];
  const [left, right] = [new Uint8Array(1 << 20), new Uint8Array(1 << 20)];
  for (let at = 0; at < size; at += left.length) {
    const count = Math.min(left.length, size - at);
    await checkpoint.readBytes(a.name, at, left.subarray(0, count));
    await checkpoint.readBytes(b.name, at, right.subarray(0, count));
    for (let i = 0; i < count; i++) if (left[i] !== right[i]) return false;
  }
  return true;
}

/** Random weights as GPT-2 is initialised (a deviation of 0.02; norms 1, biases 0), the same for a seed on every machine. */
export function randomWeights(seed: number, dtype: WeightDtype): WeightSource {
  return {
    dtype: () => dtype,
    fill: ({ names: [name], shape }, kept) => {
      if (shape.length === 1) {
        const value = name.endsWith(".bias") ? 0 : 1;
        return (_row, _count, into) => void into.fill(value);
      }
      let state = hash(seed, name);
      return (_row, _count, into) => {
        const values = kept === "F32" ? into as Float32Array : new Float32Array(into.length);
        // Uniform over ±0.02·√3, which has that deviation: xorshift32 (Marsaglia, 2003), the cheapest that will do.
        for (let i = 0; i < values.length; i++) {
          state ^= state << 13;
          state ^= state >>> 17;
          state ^= state << 5;
          values[i] = state * (0.02 * Math.sqrt(3) / 2 ** 31);
        }
        if (kept !== "F32") into.set(narrow(values, kept));
      };
    },
  };
}

/** A state for xorshift, never 0, from a seed and a name. */
function hash(seed: number, name: string): number {
  let h = seed ^ 0x811c9dc5;
  for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 0x01000193);
  return h || 1;
}
