/**
 * WGSL KV cache write: one workgroup per head and row. `mod.ts` has the formula and the shapes.
 *
 * @module
 */
import type { Norm } from "../norm.ts";
import type { GpuDispatch, GpuTarget } from "../contract.ts";
import {
  kvFormatOfShape,
  rotaryDimOf,
  type WriteKvCall,
  writeKvOperands,
  type WriteKvOptions,
  type WriteKvShape,
} from "./mod.ts";
import {
  mainWgsl,
  type Shader,
  sumOverLanesWgsl,
  workgroupArray,
  workgroupBytes,
} from "../../wgsl/shader.ts";

/** Constants of the shader. */
export interface WriteKvWgsl extends WriteKvShape {
  /** Lanes of a workgroup, a power of two. */
  readonly lanes: number;
  /** R: rotated numbers of a head; 0 without a table. */
  readonly rotaryDim: number;
  /** Whether the device has subgroups; default false. */
  readonly subgroups?: boolean;
  /** What the dispatch writes; default all three. */
  readonly part?: WriteKvPart;
  readonly options: WriteKvOptions<unknown>;
}

/** Queries; keys and values; or all three. */
export type WriteKvPart = "q" | "kv" | "qkv";

/**
 * Dispatches of a call: one; but two if both norms have a bias and there is a table, since every
 * device binds at most eight buffers and that would be nine.
 */
function writeKvParts({ table, qNorm, kNorm }: WriteKvOptions<unknown>): WriteKvPart[] {
  return table && qNorm?.bias && kNorm?.bias ? ["q", "kv"] : ["qkv"];
}

/** Workgroups of a part. */
function writeKvGroups({ H, G }: WriteKvShape, part: WriteKvPart, rows: number): number {
  return rows * headsOf(part, H, G);
}

/** Heads of a part per row, in the order queries, keys, values. */
function headsOf(part: WriteKvPart, H: number, G: number): number {
  return { q: H, kv: 2 * G, qkv: H + 2 * G }[part];
}

/** Mean and 1/deviation of `count` numbers of qkv, equal in every lane. */
function statsWgsl(lanes: number, subgroups?: boolean): Shader {
  const sum = sumOverLanesWgsl(lanes, { subgroups });
  const wgsl = /* wgsl */ `
${sum.wgsl}
fn mean_of(lane: u32, start: u32, count: u32) -> f32 {
  var sum = 0.0;
  for (var i = lane; i < count; i += ${lanes}u) { sum += qkv[start + i]; }
  return sum_over_lanes(lane, sum) / f32(count);
}
fn inverse_of(lane: u32, start: u32, count: u32, mean: f32, eps: f32) -> f32 {
  var squares = 0.0;
  for (var i = lane; i < count; i += ${lanes}u) {
    let d = qkv[start + i] - mean;
    squares += d * d;
  }
  return 1.0 / sqrt(sum_over_lanes(lane, squares) / f32(count) + eps);
}
`;
  return { ...sum, wgsl };
}

/** A norm over each of `heads` heads, or over all of them together. */
interface HeadNorm {
  readonly norm: Norm<unknown> | undefined;
  readonly wholeRow: boolean;
  readonly heads: number;
}

/**
 * Reads a head of `name` (q or k): `declare` defines `at_<name>(index within the head, start of the
 * head, its number, mean, 1/deviation)`, `stats` computes the last two.
 */
function headWgsl(
  name: "q" | "k",
  D: number,
  { norm, wholeRow, heads }: HeadNorm,
): { declare: string; stats: string } {
  if (!norm) {
    const declare =
      `fn at_${name}(i: u32, start: u32, head: u32, mean: f32, inverse: f32) -> f32 { return qkv[start + i]; }`;
    return { declare, stats: "let mean = 0.0; let inverse = 1.0;" };
  }
  const { kind, bias, eps, offset = 0 } = norm;
  const [weightAt, biasAt] = name === "q" ? [5, 6] : [7, 8];
  const c = wholeRow ? `head * ${D}u + i` : "i";
  const declareBias = bias
    ? `@group(1) @binding(${biasAt}) var<storage, read> ${name}_bias: array<f32>;`
    : "";
  const shift = bias ? `+ ${name}_bias[${c}]` : "";
  const own = name === "q" ? "head" : "g";
  const [from, count] = wholeRow ? [`start - ${own} * ${D}u`, heads * D] : ["start", D];
  return {
    declare: /* wgsl */ `
@group(1) @binding(${weightAt}) var<storage, read> ${name}_weight: array<f32>;
${declareBias}
fn at_${name}(i: u32, start: u32, head: u32, mean: f32, inverse: f32) -> f32 {
  return (qkv[start + i] - mean) * inverse * (${name}_weight[${c}] + f32(${offset})) ${shift};
}`,
    stats: `${kind === "rms" ? "let mean = 0.0;" : `let mean = mean_of(lane, ${from}, ${count}u);`}
    let inverse = inverse_of(lane, ${from}, ${count}u, mean, f32(${eps}));`,
  };
}

/** Defines a number of the rotated head, from both numbers of its pair. */
function rotatedWgsl(name: "q" | "k", rotaryDim: number, interleaved: boolean): string {
  const plain = `at_${name}(i, start, head, mean, inverse)`;
  if (rotaryDim === 0) {
    return `fn rotated_${name}(i: u32, start: u32, head: u32, mean: f32, inverse: f32, position: u32) -> f32 {
  return ${plain};
}`;
  }
  const half = rotaryDim / 2;
  const [pair, first, partner] = interleaved
    ? ["i / 2u", "i % 2u == 0u", "i ^ 1u"]
    : [`i % ${half}u`, `i < ${half}u`, `(i + ${half}u) % ${rotaryDim}u`];
  return /* wgsl */ `
fn rotated_${name}(i: u32, start: u32, head: u32, mean: f32, inverse: f32, position: u32) -> f32 {
  let mine = ${plain};
  if (i >= ${rotaryDim}u) { return mine; }
  let other = at_${name}(${partner}, start, head, mean, inverse);
  let row = position * ${rotaryDim}u + ${pair};
  let sine = table[row + ${half}u];
  return mine * table[row] + other * select(sine, -sine, ${first});
}`;
}

/**
 * The WGSL form: one workgroup per head and row, in the order queries, keys, values. Bindings: 0 q,
 * 1 k, 2 v, 3 qkv, 4 table, 5 and 6 weight and bias of the queries' norm, 7 and 8 of the keys'; a
 * part binds those that it uses. `run` and `index_of` come from `PRELUDE`.
 */
export function writeKvWgsl(constants: WriteKvWgsl): Shader {
  const { H, G, D, S, lanes, rotaryDim, subgroups, part = "qkv", options } = constants;
  const { table, qNorm, kNorm } = options;
  const packed = part === "q" ? null : kvFormatOfShape(constants).wgsl;
  const cacheType = packed ? "u32" : "f32";
  const row = packed ? workgroupArray("numbers", "f32", D) : { wgsl: "", workgroupBytes: 0 };
  const normed = part === "q" ? qNorm : part === "kv" ? kNorm : qNorm ?? kNorm;
  const stats = normed ? statsWgsl(lanes, subgroups) : { wgsl: "", workgroupBytes: 0 };
  const rotated = (name: "q" | "k") =>
    rotatedWgsl(name, table ? rotaryDim : 0, options.interleaved ?? false);
  const query = headWgsl("q", D, normOf(qNorm, D, H));
  const key = headWgsl("k", D, normOf(kNorm, D, G));
  const declareQuery = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> q: array<f32>;
${query.declare}
${rotated("q")}`;
  const declareKey = /* wgsl */ `
@group(1) @binding(1) var<storage, read_write> k: array<${cacheType}>;
@group(1) @binding(2) var<storage, read_write> v: array<${cacheType}>;
${row.wgsl}
${packed?.pack(D) ?? ""}
${key.declare}
${rotated("k")}`;
  const writeQuery = /* wgsl */ `{
    let to = (t * H + head) * D;
    ${query.stats}
    for (var i = lane; i < D; i += ${lanes}u) {
      q[to + i] = rotated_q(i, start, head, mean, inverse, position);
    }
  }`;
  const put = (name: "k" | "v", head: string, number: string) => /* wgsl */ `
    let to = (${head} * S + run.slot + t) * ${packed?.words(D) ?? D}u;
    for (var i = lane; i < D; i += ${lanes}u) { ${
    packed ? "numbers[i]" : `${name}[to + i]`
  } = ${number}; }
    ${packed ? storeWordsWgsl(name, packed.words(D), lanes) : ""}`;
  const writeKey = /* wgsl */ `if (head < H + G) {
    let g = head - H;
    ${key.stats}
    ${put("k", "g", "rotated_k(i, start, g, mean, inverse, position)")}
  } else {
    ${put("v", "(head - H - G)", "qkv[start + i]")}
  }`;
  const write = {
    q: writeQuery,
    kv: writeKey,
    qkv: `if (head < H) ${writeQuery} else ${writeKey}`,
  };
  const wgsl = /* wgsl */ `
@group(1) @binding(3) var<storage, read> qkv: array<f32>;
${table ? "@group(1) @binding(4) var<storage, read> table: array<f32>;" : ""}
${stats.wgsl}
${part === "kv" ? "" : declareQuery}
${part === "q" ? "" : declareKey}

const H = ${H}u;
const G = ${G}u;
const D = ${D}u;
const S = ${S}u;
const HEADS = ${headsOf(part, H, G)}u; // of this dispatch
const FIRST = ${part === "kv" ? H : 0}u;

${mainWgsl(lanes)} {
  let index = index_of(group, grid);
  if (index >= run.rows * HEADS) { return; }
  let t = index / HEADS;
  let head = FIRST + index % HEADS;
  let start = (t * (H + 2u * G) + head) * D;
  let position = run.position + t;
  ${write[part]}
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([stats, row]) };
}

/** Packs the row of `numbers`: a lane writes whole words, since a word holds several numbers. */
function storeWordsWgsl(name: "k" | "v", words: number, lanes: number): string {
  return /* wgsl */ `workgroupBarrier();
    for (var w = lane; w < ${words}u; w += ${lanes}u) { ${name}[to + w] = word_of(w); }`;
}

/** A norm with its extent, by the shape of its weight: [D] over each head, else the whole row. */
function normOf(norm: Norm<unknown> | undefined, D: number, heads: number): HeadNorm {
  const shape = (norm?.weight as { shape?: readonly number[] } | undefined)?.shape;
  return { norm, wholeRow: shape !== undefined && shape[0] !== D, heads };
}

/** Lowers the call to the dispatches of `writeKvParts`. */
export function writeKvDispatches(
  call: WriteKvCall,
  { software, subgroups }: GpuTarget,
): GpuDispatch[] {
  const all = writeKvOperands(call);
  const { options, shape } = call;
  const constants = {
    ...shape,
    lanes: software ? 16 : 64,
    rotaryDim: rotaryDimOf(options),
    subgroups,
    options,
  };
  return writeKvParts(options).map((part) => {
    const [queries, keys] = [part !== "kv", part !== "q"];
    return {
      op: "writeKv",
      ...writeKvWgsl({ ...constants, part }),
      operands: [
        queries ? all.q : undefined,
        keys ? all.k : undefined,
        keys ? all.v : undefined,
        all.qkv,
        all.table,
        queries ? all.qWeight : undefined,
        queries ? all.qBias : undefined,
        keys ? all.kWeight : undefined,
        keys ? all.kBias : undefined,
      ],
      groups: (rows) => writeKvGroups(shape, part, rows),
    };
  });
}
