/**
 * Causal attention of T query rows over the KV cache.
 *
 *     s[j] = scale · q · k[j],  then softCap · tanh(s / softCap) if there is a cap
 *     y    = Σ softmax(s)[j] · v[j]
 *
 * y, q [T, H·D]; k, v [G, S, D]; query head h reads key/value head ⌊h·G/H⌋. The last row sees
 * `length` keys, each row before it one less; with a window W, a row sees the last W of them. As
 * torch's scaled_dot_product_attention.
 *
 * @module
 */
import { expectTensor, expectThat } from "../../errors.ts";
import { type Closure, type Cost, f32Of, reads, writes } from "../contract.ts";
import { bindCache, expectCache, type KvCache, kvFormatOfShape } from "../kv_cache/mod.ts";
import { type KvDtype, kvRowBytes } from "../../formats/kv.ts";
import type { Segment } from "../../step.ts";
import { BYTES } from "../../formats/mod.ts";
import type { Tensor } from "../../tensor.ts";

/** Options of `attention`, which differ between model families. */
export interface AttentionOptions {
  /** Factor of the scores; default 1/sqrt(D). */
  readonly scale?: number;
  /** Soft bound of the scores (Gemma 2); default none. */
  readonly softCap?: number;
  /** Most keys that a row sees, including its own (Mistral); default all. */
  readonly window?: number;
  /** G; default the cache's, which it must equal. */
  readonly nKvHead?: number;
}

/** A checked call. */
export interface AttentionCall {
  readonly op: "attention";
  readonly y: Tensor;
  readonly q: Tensor;
  readonly cache: KvCache;
  readonly options: AttentionOptions;
  readonly shape: AttentionShape;
}

/** Sizes of the call. */
export interface AttentionShape {
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

/** @throws {RangeError} If the shapes do not fit each other, or `y` is `q`. */
export function attentionCall(
  y: Tensor,
  q: Tensor,
  cache: KvCache,
  options: AttentionOptions = {},
): AttentionCall {
  const { nKvHead } = options;
  const held = expectCache("attention", cache);
  const { G, D } = held;
  const [T, width] = q.shape;
  const H = width / D;
  expectThat("attention", H % G === 0, `a multiple of ${G} heads of ${D}, got q [${q.shape}]`);
  expectThat("attention", (nKvHead ?? G) === G, `nKvHead ${G} as in the cache, got ${nKvHead}`);
  expectTensor("attention", "q", q, [T, H * D]);
  expectTensor("attention", "y", y, [T, H * D]);
  expectThat("attention", y !== q, "y to be another tensor than q");
  return { op: "attention", y, q, cache, options, shape: { ...held, H } };
}

/** Operands and their access. */
export function attentionOperands({ y, q, cache }: AttentionCall) {
  return { y: writes(y), q: reads(q), k: reads(cache.k), v: reads(cache.v) };
}

/** Reads q, writes y, reads the keys and values that any row sees. */
export function attentionCost(call: AttentionCall, { rows, length }: Segment): Cost {
  const { options: { window = Infinity }, shape: { H, G, D } } = call;
  let seen = 0; // keys, summed over rows
  for (let row = 0; row < rows; row++) seen += Math.min(length - row, window);
  const keys = Math.min(length, window + rows - 1);
  const row = kvRowBytes(kvFormatOfShape(call.shape), D);
  const bytes = 2 * G * keys * row + BYTES.F32 * 2 * rows * H * D;
  return { name: "attention", bytes, flops: 4 * H * D * seen };
}

/** Keys and values [S, D] of a key/value head. */
type HeadOf = (g: number) => KvCache<Float32Array>;

/** Binds the call to typed arrays. */
export function bindAttention({ options, shape, ...call }: AttentionCall): Closure {
  const [y, q] = [f32Of(call.y), f32Of(call.q)];
  const { S, D } = shape;
  const scores = new Float64Array(S);
  const sums = new Float64Array(D);
  const { rows: codec, width } = kvFormatOfShape(shape);
  if (!codec) {
    const cache = { k: f32Of(call.cache.k), v: f32Of(call.cache.v) };
    return (step) => attentionJs(y, q, cache, options, shape, step, scores, sums);
  }
  const packed = bindCache(call.cache);
  const head = { k: new Float32Array(S * D), v: new Float32Array(S * D) };
  const unpack = (g: number, from: number, to: number) => {
    for (const name of ["k", "v"] as const) {
      const rows = packed[name].subarray(g * S * width(D), (g + 1) * S * width(D));
      for (let j = from; j < to; j++) {
        const row = rows.subarray(j * width(D), (j + 1) * width(D));
        codec.unpack(head[name].subarray(j * D, (j + 1) * D), row);
      }
    }
    return head;
  };
  return (step) => {
    const from = Math.max(0, step.length - step.rows + 1 - (options.window ?? Infinity));
    const headOf = (g: number) => unpack(g, from, step.length);
    attendJs(y, q, headOf, options, shape, step, scores, sums);
  };
}

/** The plain form, and oracle of the others. Scratch: `scores` [S], `sums` [D]. */
export function attentionJs(
  y: Float32Array,
  q: Float32Array,
  { k, v }: KvCache<Float32Array>,
  options: AttentionOptions,
  shape: AttentionShape,
  step: { rows: number; length: number },
  scores: Float64Array = new Float64Array(shape.S),
  sums: Float64Array = new Float64Array(shape.D),
): void {
  const size = shape.S * shape.D;
  const headOf = (g: number) => ({
    k: k.subarray(g * size, (g + 1) * size),
    v: v.subarray(g * size, (g + 1) * size),
  });
  attendJs(y, q, headOf, options, shape, step, scores, sums);
}

/** Attention to the heads that `headOf` returns, each of which is asked for once. */
function attendJs(
  y: Float32Array,
  q: Float32Array,
  headOf: HeadOf,
  { scale, softCap, window = Infinity }: AttentionOptions,
  { H, G, D }: AttentionShape,
  { rows, length }: { rows: number; length: number },
  scores: Float64Array,
  sums: Float64Array,
): void {
  const factor = scale ?? 1 / Math.sqrt(D);
  for (let g = 0; g < G; g++) {
    const { k, v } = headOf(g);
    for (let t = 0; t < rows; t++) {
      const end = length - rows + 1 + t;
      const start = Math.max(0, end - window);
      for (let h = g * H / G; h < (g + 1) * H / G; h++) {
        const qAt = (t * H + h) * D;
        let max = -Infinity;
        for (let j = start; j < end; j++) {
          let s = 0;
          for (let d = 0; d < D; d++) s += q[qAt + d] * k[j * D + d];
          s *= factor;
          if (softCap) s = softCap * Math.tanh(s / softCap);
          scores[j] = s;
          if (s > max) max = s;
        }
        let total = 0;
        sums.fill(0);
        for (let j = start; j < end; j++) {
          const p = Math.exp(scores[j] - max);
          total += p;
          for (let d = 0; d < D; d++) sums[d] += p * v[j * D + d];
        }
        for (let d = 0; d < D; d++) y[qAt + d] = sums[d] / total;
      }
    }
  }
}
