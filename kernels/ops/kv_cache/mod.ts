/**
 * KV cache write: splits the fused projection; norms and rotates q and k; stores k and v.
 *
 *     q[t]            = rope(qNorm(qkv[t, 0 … H·D]))
 *     k[·, slot + t]  = rope(kNorm(qkv[t, H·D … (H+G)·D]))
 *     v[·, slot + t]  = qkv[t, (H+G)·D …]
 *
 * q [T, H·D]; qkv [T, (H+2G)·D]; k, v [G, S, D]. Row t has position + t and cache slot + t.
 *
 * @module
 */
import { expectTensor, expectThat } from "../../errors.ts";
import { type Closure, type Cost, f32Of, reads, updates, writes } from "../contract.ts";
import { bindNormOptions, type Norm, normBytes, normFlops, normJs } from "../norm.ts";
import { rotateJs } from "../rope.ts";
import type { Segment } from "../../step.ts";
import { BYTES } from "../../formats/mod.ts";
import type { Tensor } from "../../tensor.ts";

/** Keys and values of one layer. */
export interface KvCache<A = Tensor> {
  /** [G, S, D], already rotated. */
  readonly k: A;
  /** [G, S, D] */
  readonly v: A;
}

/** Options of `writeKv`: norms and rotation of q and k. */
export interface WriteKvOptions<A = Tensor> {
  /** [P, R] from `ropeTable`; none for models with learned positions. */
  readonly table?: A;
  /** R: rotated numbers of a head; default the table's width. */
  readonly rotaryDim?: number;
  /** Rotates pairs (2i, 2i+1) instead of (i, i + R/2); default false. */
  readonly interleaved?: boolean;
  /** Norm of q. Weight [D]: over each head (Qwen 3); weight [H·D]: over the whole row (OLMo 2). */
  readonly qNorm?: Norm<A>;
  /** Norm of k. Weight [D] or [G·D], as `qNorm`. */
  readonly kNorm?: Norm<A>;
}

/** A checked call. */
export interface WriteKvCall {
  readonly op: "writeKv";
  readonly q: Tensor;
  readonly cache: KvCache;
  readonly qkv: Tensor;
  readonly options: WriteKvOptions;
  readonly shape: WriteKvShape;
}

/** Sizes of the call. */
export interface WriteKvShape {
  /** Query heads. */
  readonly H: number;
  /** Key/value heads. */
  readonly G: number;
  /** Head size. */
  readonly D: number;
  /** Cache slots. */
  readonly S: number;
}

/** @throws {RangeError} If the shapes do not fit each other. */
export function writeKvCall(
  q: Tensor,
  cache: KvCache,
  qkv: Tensor,
  options: WriteKvOptions = {},
): WriteKvCall {
  const { table, rotaryDim, qNorm, kNorm } = options;
  const [G, S, D] = cache.k.shape;
  const [T, width] = q.shape;
  const H = width / D;
  expectThat("writeKv", H % G === 0, `a multiple of ${G} query heads of ${D}, got q [${q.shape}]`);
  expectTensor("writeKv", "k", cache.k, [G, S, D]);
  expectTensor("writeKv", "v", cache.v, [G, S, D]);
  expectTensor("writeKv", "q", q, [T, H * D]);
  expectTensor("writeKv", "qkv", qkv, [T, (H + 2 * G) * D]);
  if (table) {
    const R = rotaryDim ?? table.shape[1];
    expectTensor("writeKv", "table", table, [table.shape[0], R]);
    expectThat("writeKv", R % 2 === 0 && R <= D, `an even rotaryDim of at most ${D}, got ${R}`);
  }
  if (qNorm) expectNorm("qNorm", qNorm, D, H * D);
  if (kNorm) expectNorm("kNorm", kNorm, D, G * D);
  return { op: "writeKv", q, cache, qkv, options, shape: { H, G, D, S } };
}

/** Operands and their access; of the cache, only the rows' slots are written. */
export function writeKvOperands({ q, cache, qkv, options }: WriteKvCall) {
  const { table, qNorm, kNorm } = options;
  return {
    q: writes(q),
    k: updates(cache.k),
    v: updates(cache.v),
    qkv: reads(qkv),
    table: reads(table),
    qWeight: reads(qNorm?.weight),
    qBias: reads(qNorm?.bias),
    kWeight: reads(kNorm?.weight),
    kBias: reads(kNorm?.bias),
  };
}

/** R: rotated numbers of a head; 0 without a table. */
export function rotaryDimOf({ table, rotaryDim }: WriteKvOptions): number {
  return table ? rotaryDim ?? table.shape[1] : 0;
}

/** Reads qkv and the table's rows, writes q, k and v. */
export function writeKvCost({ qkv, options, shape }: WriteKvCall, { rows }: Segment): Cost {
  const { H, G, D } = shape;
  const { qNorm, kNorm } = options;
  const rotary = rotaryDimOf(options);
  const normed = (qNorm ? H * D * normFlops(qNorm) : 0) + (kNorm ? G * D * normFlops(kNorm) : 0);
  const parameters = (qNorm ? normBytes(qNorm) : 0) + (kNorm ? normBytes(kNorm) : 0);
  return {
    name: "writeKv",
    bytes: BYTES.F32 * rows * (2 * qkv.shape[1] + rotary) + parameters,
    // A rotated pair takes four products and two sums.
    flops: rows * (3 * (H + G) * rotary + normed),
  };
}

/** Binds the call to typed arrays. */
export function bindWriteKv({ shape, ...call }: WriteKvCall): Closure {
  const [q, qkv, cache] = [f32Of(call.q), f32Of(call.qkv), bindCache(call.cache)];
  const { interleaved, table, qNorm, kNorm } = call.options;
  const options = {
    rotaryDim: rotaryDimOf(call.options),
    interleaved,
    table: table && f32Of(table),
    qNorm: qNorm && bindNormOptions(qNorm),
    kNorm: kNorm && bindNormOptions(kNorm),
  };
  const key = new Float32Array(shape.G * shape.D);
  return (step) => writeKvJs(q, cache, qkv, options, shape, step, key);
}

/** The cache as typed arrays. */
export function bindCache({ k, v }: KvCache): KvCache<Float32Array> {
  return { k: f32Of(k), v: f32Of(v) };
}

/** Checks a norm over each head (weight [D]) or over the whole row. */
function expectNorm(operand: string, { weight, bias }: Norm, D: number, row: number): void {
  const C = weight.shape[0] === D ? D : row;
  expectTensor("writeKv", operand, weight, [C]);
  if (bias) expectTensor("writeKv", `${operand}.bias`, bias, [C]);
}

/** The plain form, and oracle of the others. `key` is scratch [G·D]. */
export function writeKvJs(
  q: Float32Array,
  cache: KvCache<Float32Array>,
  qkv: Float32Array,
  options: WriteKvOptions<Float32Array>,
  { H, G, D, S }: WriteKvShape,
  { rows, position, slot }: { rows: number; position: number; slot: number },
  key: Float32Array = new Float32Array(G * D),
): void {
  const { table, interleaved = false, qNorm, kNorm } = options;
  const width = (H + 2 * G) * D;
  const rotaryDim = options.rotaryDim ?? D;
  for (let t = 0; t < rows; t++) {
    const query = q.subarray(t * H * D, (t + 1) * H * D);
    query.set(qkv.subarray(t * width, t * width + H * D));
    key.set(qkv.subarray(t * width + H * D, t * width + (H + G) * D));
    if (qNorm) normJs(query, query, qNorm, query.length / qNorm.weight.length);
    if (kNorm) normJs(key, key, kNorm, key.length / kNorm.weight.length);
    if (table) {
      for (let h = 0; h < H; h++) {
        rotateJs(query, h * D, table, position + t, rotaryDim, interleaved);
      }
      for (let g = 0; g < G; g++) {
        rotateJs(key, g * D, table, position + t, rotaryDim, interleaved);
      }
    }
    const values = t * width + (H + G) * D;
    for (let g = 0; g < G; g++) {
      const at = (g * S + slot + t) * D;
      cache.k.set(key.subarray(g * D, (g + 1) * D), at);
      cache.v.set(qkv.subarray(values + g * D, values + (g + 1) * D), at);
    }
  }
}
