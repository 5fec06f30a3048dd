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
import { bindCache, type KvCache } from "../kv_cache/mod.ts";
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
}

/** @throws {RangeError} If the shapes do not fit each other, or `y` is `q`. */
export function attentionCall(
  y: Tensor,
  q: Tensor,
  cache: KvCache,
  options: AttentionOptions = {},
): AttentionCall {
  const { nKvHead } = options;
  const [G, S, D] = cache.k.shape;
  const [T, width] = q.shape;
  const H = width / D;
  expectThat("attention", H % G === 0, `a multiple of ${G} heads of ${D}, got q [${q.shape}]`);
  expectThat("attention", (nKvHead ?? G) === G, `nKvHead ${G} as in the cache, got ${nKvHead}`);
  expectTensor("attention", "q", q, [T, H * D]);
  expectTensor("attention", "y", y, [T, H * D]);
  expectTensor("attention", "k", cache.k, [G, S, D]);
  expectTensor("attention", "v", cache.v, [G, S, D]);
  expectThat("attention", y !== q, "y to be another tensor than q");
  return { op: "attention", y, q, cache, options, shape: { H, G, D, S } };
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
  const bytes = BYTES.F32 * (2 * G * D * keys + 2 * rows * H * D);
  return { name: "attention", bytes, flops: 4 * H * D * seen };
}

/** Binds the call to typed arrays. */
export function bindAttention({ options, shape, ...call }: AttentionCall): Closure {
  const [y, q, cache] = [f32Of(call.y), f32Of(call.q), bindCache(call.cache)];
  const scores = new Float64Array(shape.S);
  const sums = new Float64Array(shape.D);
  return (step) => attentionJs(y, q, cache, options, shape, step, scores, sums);
}

/** The plain form, and oracle of the others. Scratch: `scores` [S], `sums` [D]. */
export function attentionJs(
  y: Float32Array,
  q: Float32Array,
  { k, v }: KvCache<Float32Array>,
  { scale, softCap, window = Infinity }: AttentionOptions,
  { H, G, D, S }: AttentionShape,
  { rows, length }: { rows: number; length: number },
  scores: Float64Array = new Float64Array(S),
  sums: Float64Array = new Float64Array(D),
): void {
  const factor = scale ?? 1 / Math.sqrt(D);
  for (let t = 0; t < rows; t++) {
    const end = length - rows + 1 + t;
    const start = Math.max(0, end - window);
    for (let h = 0; h < H; h++) {
      const qAt = (t * H + h) * D;
      const kvAt = Math.floor(h * G / H) * S * D;
      let max = -Infinity;
      for (let j = start; j < end; j++) {
        const kAt = kvAt + j * D;
        let s = 0;
        for (let d = 0; d < D; d++) s += q[qAt + d] * k[kAt + d];
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
        const vAt = kvAt + j * D;
        for (let d = 0; d < D; d++) sums[d] += p * v[vAt + d];
      }
      for (let d = 0; d < D; d++) y[qAt + d] = sums[d] / total;
    }
  }
}
