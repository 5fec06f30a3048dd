/**
 * KV cache write: splits the fused projection; norms and rotates q and k; stores k and v.
 *
 *     q[t]            = rope(qNorm(qkv[t, 0 … H·D]))
 *     k[·, slot + t]  = rope(kNorm(qkv[t, H·D … (H+G)·D]))
 *     v[·, slot + t]  = qkv[t, (H+G)·D …]
 *
 * q [T, H·D]; qkv [T, (H+2G)·D]; k, v [G, S, D]. Row t has position + t and cache slot + t. Rows of
 * the cache are packed in the format of `formats/kv.ts`; all else is F32.
 *
 * @module
 */
import { expectTensor, expectThat } from "../../errors.ts";
import { type Closure, type Cost, f32Of, type HostTensor } from "../contract.ts";
import { reads, updates, writes } from "../contract.ts";
import { bindNormOptions, type Norm, normBytes, normFlops, normJs } from "../norm.ts";
import { rotateJs } from "../rope.ts";
import type { Segment } from "../../step.ts";
import { BYTES, hostArray } from "../../formats/mod.ts";
import { KV_DTYPES, type KvDtype, type KvFormat, kvFormatOf } from "../../formats/kv.ts";
import { KV_FORMATS, kvRowBytes } from "../../formats/kv.ts";
import type { HostArray, Tensor } from "../../tensor.ts";

/** Keys and values of one layer, in a format of `formats/kv.ts`, which draws its rows. */
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
  /** Format of the cache; default F32. */
  readonly kv?: KvDtype;
}

/** The format of a shape's cache. */
export function kvFormatOfShape({ kv = "F32" }: Pick<WriteKvShape, "kv">): KvFormat {
  return KV_FORMATS[kv];
}

/**
 * Checks a cache, and returns its shape and format.
 * @throws {RangeError} If it is in no format, its head size has none, or keys and values differ.
 */
export function expectCache(op: string, { k, v }: KvCache): Omit<WriteKvShape, "H"> {
  const format = kvFormatOf(k.dtype);
  if (!format) {
    throw new RangeError(
      `Cannot record "${op}": expected a cache of ${KV_DTYPES.join(" ")}, got ${k.dtype}`,
    );
  }
  const [G, S, width] = k.shape;
  const D = format.headDim(width);
  const { dtype, multiple, tensor } = format;
  const isWhole = D % multiple === 0 && format.width(D) === width;
  expectThat(op, isWhole, `rows of ${multiple} numbers each in ${dtype}, got k [${k.shape}]`);
  expectTensor(op, "k", k, [G, S, width], tensor);
  expectTensor(op, "v", v, [G, S, width], tensor);
  return { G, S, D, kv: dtype };
}

/** @throws {RangeError} If the shapes do not fit each other. */
export function writeKvCall(
  q: Tensor,
  cache: KvCache,
  qkv: Tensor,
  options: WriteKvOptions = {},
): WriteKvCall {
  const { table, rotaryDim, qNorm, kNorm } = options;
  const held = expectCache("writeKv", cache);
  const { G, D } = held;
  const [T, width] = q.shape;
  const H = width / D;
  expectThat("writeKv", H % G === 0, `a multiple of ${G} query heads of ${D}, got q [${q.shape}]`);
  expectTensor("writeKv", "q", q, [T, H * D]);
  expectTensor("writeKv", "qkv", qkv, [T, (H + 2 * G) * D]);
  if (table) {
    const R = rotaryDim ?? table.shape[1];
    expectTensor("writeKv", "table", table, [table.shape[0], R]);
    expectThat("writeKv", R % 2 === 0 && R <= D, `an even rotaryDim of at most ${D}, got ${R}`);
  }
  if (qNorm) expectNorm("qNorm", qNorm, D, H * D);
  if (kNorm) expectNorm("kNorm", kNorm, D, G * D);
  return { op: "writeKv", q, cache, qkv, options, shape: { ...held, H } };
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
    bytes: BYTES.F32 * rows * (qkv.shape[1] + H * D + rotary) + parameters +
      2 * rows * G * kvRowBytes(kvFormatOfShape(shape), D),
    // A rotated pair takes four products and two sums.
    flops: rows * (3 * (H + G) * rotary + normed),
  };
}

/** Binds the call to typed arrays. */
export function bindWriteKv({ shape, ...call }: WriteKvCall): Closure {
  const [q, qkv] = [f32Of(call.q), f32Of(call.qkv)];
  const { interleaved, table, qNorm, kNorm } = call.options;
  const options = {
    rotaryDim: rotaryDimOf(call.options),
    interleaved,
    table: table && f32Of(table),
    qNorm: qNorm && bindNormOptions(qNorm),
    kNorm: kNorm && bindNormOptions(kNorm),
  };
  const { G, D, S } = shape;
  const key = new Float32Array(G * D);
  const { rows: codec, width, tensor } = kvFormatOfShape(shape);
  if (!codec) {
    const cache = { k: f32Of(call.cache.k), v: f32Of(call.cache.v) };
    return (step) => writeKvJs(q, cache, qkv, options, shape, step, key);
  }
  const T = call.q.shape[0];
  const plain = { k: new Float32Array(G * T * D), v: new Float32Array(G * T * D) };
  const packed = bindCache(call.cache);
  const row = hostArray(tensor, width(D));
  return (step) => {
    writeKvJs(q, plain, qkv, options, { ...shape, S: T }, { ...step, slot: 0 }, key);
    for (const name of ["k", "v"] as const) {
      for (let g = 0; g < G; g++) {
        for (let t = 0; t < step.rows; t++) {
          codec.pack(row, plain[name].subarray((g * T + t) * D, (g * T + t + 1) * D));
          (packed[name] as Uint32Array).set(row, (g * S + step.slot + t) * row.length);
        }
      }
    }
  };
}

/** The cache as typed arrays, in its format. */
export function bindCache({ k, v }: KvCache): KvCache<HostArray> {
  return { k: (k as HostTensor).data, v: (v as HostTensor).data };
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
