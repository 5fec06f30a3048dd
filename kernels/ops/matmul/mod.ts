/**
 * Matmul of a linear layer, with its epilogue: bias, activation, gate, scale, cap, residual.
 *
 *     v = scale · gate ⊙ activation(x · Wᵀ + bias)
 *     v = softCap · tanh(v / softCap)                   if there is a cap
 *     y = v, or y += v under `residual`
 *
 * y, gate [T, N]; x [T, K]; weight [N, K]; bias [N]. As torch.nn.functional.linear; the cap is
 * Gemma 2's. With `column`, y [T, W] is made by several products, each of its own columns:
 *
 *     row t of y   │ q: column 0, Q4_K │ k: column H·D │ v: column (H + G)·D, Q6_K │
 *
 * @module
 */
import { type Activation, ACTIVATIONS } from "../activation.ts";
import { type Closure, type Cost, f32Of, mergeCosts, reads, updates, writes } from "../contract.ts";
import { normCost, type NormOptions } from "../norm.ts";
import { type WriteKvCall, writeKvCost, writeKvOperands } from "../kv_cache/mod.ts";
import { expectTensor, expectThat } from "../../errors.ts";
import { BYTES, FORMATS, storedBytes, type Weight, type WeightDtype } from "../../formats/mod.ts";
import type { Segment } from "../../step.ts";
import type { Tensor } from "../../tensor.ts";

/** Epilogue of `matmul`. */
export interface MatmulOptions<A = Tensor> {
  /** [N], added to each sum. */
  readonly bias?: A;
  /** Applied after the bias; default none. */
  readonly activation?: Activation;
  /** [T, N], multiplied in after the activation: the other half of a gated MLP. */
  readonly gate?: A;
  /** Factor of the result; default 1. */
  readonly scale?: number;
  /** Soft bound of the result; default none. */
  readonly softCap?: number;
  /** Whether to add to y instead of overwriting it; default false. */
  readonly residual?: boolean;
  /** First of the N columns of y [T, W] that are written; default all of y [T, N]. No gate. */
  readonly column?: number;
}

/** Numbers per row of y, and the first column of a product. */
export interface Columns {
  readonly width: number;
  readonly first: number;
}

/** Columns of y that a call writes. */
export function columnsOf({ y, options: { column = 0 } }: MatmulCall): Columns {
  return { width: y.shape[1], first: column };
}

/** A second product of x, which was fused into a call as its gate. */
export interface UpProduct {
  /** Of the same shape and dtype as the call's weight. */
  readonly weight: Weight;
  /** [N] */
  readonly bias?: Tensor;
}

/** A checked call. */
export interface MatmulCall {
  readonly op: "matmul";
  readonly y: Tensor;
  readonly x: Tensor;
  readonly weight: Weight;
  readonly options: MatmulOptions;
  /** Norm of x that was fused into the call. */
  readonly norm?: NormOptions;
  /** Product that was fused into the call, in place of `options.gate`. */
  readonly up?: UpProduct;
  /** The `writeKv` that reads y, fused into the call: q, k and v are written, and y is not. */
  readonly heads?: WriteKvCall;
}

/** @throws {RangeError} If the shapes do not fit each other, or `y` is one of the inputs. */
export function matmulCall(
  y: Tensor,
  x: Tensor,
  weight: Weight,
  options: MatmulOptions = {},
): MatmulCall {
  const { bias, gate, column } = options;
  const [N, K] = weight.shape;
  const T = x.shape[0];
  expectTensor("matmul", "x", x, [T, K]);
  expectTensor("matmul", "y", y, [T, column === undefined ? N : y.shape[1]]);
  if (column !== undefined) {
    const fits = Number.isInteger(column) && column >= 0 && column + N <= y.shape[1];
    expectThat("matmul", fits, `columns within y [${y.shape}], got ${N} from ${column} on`);
    expectThat("matmul", !gate, "no gate for some columns of y");
  }
  if (bias) expectTensor("matmul", "bias", bias, [N]);
  if (gate) expectTensor("matmul", "gate", gate, [T, N]);
  expectThat("matmul", y !== x && y !== gate, "y to be another tensor than its inputs");
  return { op: "matmul", y, x, weight, options };
}

/** Operands and their access. */
export function matmulOperands({ y, x, weight, options, norm, up, heads }: MatmulCall) {
  const { bias, gate, residual, column } = options;
  const written = heads && writeKvOperands(heads);
  const isPartial = residual || column !== undefined;
  return {
    y: written ? undefined : isPartial ? updates(y) : writes(y),
    x: reads(x),
    weight: reads(weight),
    bias: reads(bias),
    gate: reads(gate),
    normWeight: reads(norm?.weight),
    normBias: reads(norm?.bias),
    upWeight: reads(up?.weight),
    upBias: reads(up?.bias),
    q: written?.q,
    k: written?.k,
    v: written?.v,
    table: written?.table,
  };
}

/**
 * Reads the stored weight, x and gate; writes y (and reads it for a residual). What was fused into
 * the call saves the bytes of the tensors between.
 */
export function matmulCost(call: MatmulCall, step: Segment): Cost {
  const { x, weight: { shape: [N, K] }, options: { bias, gate }, norm, up, heads } = call;
  const row = BYTES.F32 * step.rows;
  const costs = [productCost(call, bias, !!gate || !!up, step)];
  if (up) costs.unshift(productCost({ ...call, ...up, options: {} }, up.bias, false, step));
  if (norm) costs.unshift(normCost({ x, options: norm }, step));
  if (heads) costs.push(writeKvCost(heads, step));
  if (costs.length === 1) return costs[0];
  return mergeCosts(
    costs,
    row * ((norm ? 2 * K : 0) + (up ? K + 2 * N : 0) + (heads ? 2 * N : 0)),
  );
}

/** Cost of a product by itself. */
function productCost(
  { weight, options: { residual } }: Pick<MatmulCall, "weight" | "options">,
  bias: Tensor | undefined,
  gated: boolean,
  { rows }: Pick<Segment, "rows">,
): Cost {
  const [N, K] = weight.shape;
  const perRow = K + N * (1 + (gated ? 1 : 0) + (residual ? 1 : 0));
  const bytes = storedBytes(weight.dtype, N * K) + BYTES.F32 * (rows * perRow + (bias ? N : 0));
  return { name: `matmul ${K}→${N}`, bytes, flops: 2 * rows * N * K };
}

/** Binds the call to typed arrays. */
export function bindMatmul(call: MatmulCall): Closure {
  const [y, x, weight] = [f32Of(call.y), f32Of(call.x), call.weight as Rows];
  const { bias, gate } = call.options;
  const options = { ...call.options, bias: bias && f32Of(bias), gate: gate && f32Of(gate) };
  const scratch = matmulScratch(weight.dtype, weight.shape[1]);
  const columns = columnsOf(call);
  return ({ rows }) => matmulJs(y, x, weight, options, rows, { scratch, columns });
}

/** A weight [N, K] in plain rows, as typed arrays read it. */
export interface Rows {
  /** Whole blocks of the dtype, row after row. */
  readonly data: Uint8Array;
  readonly dtype: WeightDtype;
  readonly shape: readonly [N: number, K: number];
}

/** Rows of W per pass over x: 8 sums fit in registers, and x is read once for all of them. */
const BLOCK = 8;

/** Scratch of `matmulJs`: decoded rows [8, K] and sums [8]. */
export interface MatmulScratch {
  readonly rows: Float32Array;
  readonly sums: Float64Array;
}

/** Scratch for a weight of K inputs; F32 weights need no decoded rows. */
export function matmulScratch(dtype: WeightDtype, K: number): MatmulScratch {
  const decoded = FORMATS[dtype].view ? 0 : BLOCK * K;
  return { rows: new Float32Array(decoded), sums: new Float64Array(BLOCK) };
}

/** The plain form, and oracle of the others. Decodes 8 rows at a time, except F32. */
export function matmulJs(
  y: Float32Array,
  x: Float32Array,
  weight: Rows,
  options: MatmulOptions<Float32Array>,
  T: number,
  { scratch, columns }: { readonly scratch?: MatmulScratch; readonly columns?: Columns } = {},
): void {
  const { data, dtype, shape: [N, K] } = weight;
  const { rows, sums } = scratch ?? matmulScratch(dtype, K);
  const { width, first: column } = columns ?? { width: N, first: 0 };
  const { view, decode } = FORMATS[dtype];
  const whole = view && view(data);
  const rowBytes = storedBytes(dtype, K);
  for (let n = 0; n < N; n += BLOCK) {
    const count = Math.min(BLOCK, N - n);
    if (!whole) {
      decode(rows.subarray(0, count * K), data.subarray(n * rowBytes, (n + count) * rowBytes));
    }
    const [w, first] = whole ? [whole, n * K] : [rows, 0];
    for (let t = 0; t < T; t++) {
      if (count === BLOCK) dot8(sums, x, t * K, w, first, K);
      else for (let i = 0; i < count; i++) sums[i] = dot(x, t * K, w, first + i * K, K);
      store(y, t * width + column + n, n, sums, count, options);
    }
  }
}

/** sums[i] = w[i] · x for 8 neighbouring rows of W and one row of x. */
function dot8(
  sums: Float64Array,
  x: Float32Array,
  xAt: number,
  w: Float32Array,
  wAt: number,
  K: number,
): void {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
  const r0 = wAt, r1 = r0 + K, r2 = r1 + K, r3 = r2 + K;
  const r4 = r3 + K, r5 = r4 + K, r6 = r5 + K, r7 = r6 + K;
  for (let k = 0; k < K; k++) {
    const xk = x[xAt + k];
    s0 += w[r0 + k] * xk;
    s1 += w[r1 + k] * xk;
    s2 += w[r2 + k] * xk;
    s3 += w[r3 + k] * xk;
    s4 += w[r4 + k] * xk;
    s5 += w[r5 + k] * xk;
    s6 += w[r6 + k] * xk;
    s7 += w[r7 + k] * xk;
  }
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
  sums[4] = s4;
  sums[5] = s5;
  sums[6] = s6;
  sums[7] = s7;
}

function dot(x: Float32Array, xAt: number, w: Float32Array, wAt: number, K: number): number {
  let sum = 0;
  for (let k = 0; k < K; k++) sum += w[wAt + k] * x[xAt + k];
  return sum;
}

/** The epilogue, of `count` sums of outputs n, n + 1, … of one row; stores from y[at] on. */
function store(
  y: Float32Array,
  at: number,
  n: number,
  sums: Float64Array,
  count: number,
  { bias, activation, gate, scale = 1, softCap, residual = false }: MatmulOptions<Float32Array>,
): void {
  for (let i = 0; i < count; i++) {
    let v = bias ? sums[i] + bias[n + i] : sums[i];
    if (activation) v = ACTIVATIONS[activation](v);
    if (gate) v *= gate[at + i];
    v *= scale;
    if (softCap) v = softCap * Math.tanh(v / softCap);
    y[at + i] = residual ? y[at + i] + v : v;
  }
}
