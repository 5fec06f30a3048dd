/**
 * Forward pass of a GPT decoder: token ids [T] → logits [T, V].
 *
 *     ids ─embed─▶ x ─┬─ ln1 ─ attention ─▶ + ─┬─ ln2 ─ mlp ─▶ + ─▶ … ─▶ lnF ─ lmHead ─▶ logits
 *                     └─────────────────────┘  └───────────────┘   residual stream x [T, C]
 *
 * Recorded once for each kind of step, then replayed for every token; position and number of rows
 * are data on the device. Families differ only in the data of `w`; no code asks for their names.
 * Letters: T rows, C width, H query heads, G key/value heads, D head size, F hidden width, V
 * vocabulary, S cache slots.
 *
 * @module
 */
import type { Backend, Recorder } from "../kernels/backend.ts";
import { type KvDtype, kvFormatFor } from "../kernels/formats/kv.ts";
import type { KvCache } from "../kernels/ops/kv_cache/mod.ts";
import type { Norm } from "../kernels/ops/norm.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Architecture } from "./architecture/mod.ts";
import { tensorsTogether } from "./tensors.ts";
import type { Attention, Linear, Mlp, Output, Weights } from "./weights/mod.ts";

/** Records the forward pass: ids → logits, or only → cache if `s` has no logits. */
export function forward(k: Recorder, w: Weights, s: State): void {
  k.embed(s.x, w.wte, s.ids, { scale: w.embedScale }); // x [T, C]
  if (w.wpe) k.addPosition(s.x, w.wpe); // learned positions; attention applies rotary ones
  for (const [i, block] of w.h.entries()) {
    const n = normed(k, s.n, s.x, block.ln1); // n [T, C]
    if (block.parallel) {
      const m = block.ln2 ? normed(k, s.m!, s.x, block.ln2) : n; // m [T, C], of x before attention
      attention(k, block.attn, n, s, s.cache[i]);
      mlp(k, block.mlp, m, s);
    } else {
      attention(k, block.attn, n, s, s.cache[i]);
      mlp(k, block.mlp, normed(k, s.n, s.x, block.ln2), s);
    }
  }
  k.discard(s.n, s.qkv, s.q, s.y, s.f, ...s.g ? [s.g] : []); // of use within a layer only
  if (!s.logits) return;
  const n = normed(k, s.n, s.x, w.lnF); // n [T, C]
  const { lmHeadBias: bias, logitScale: scale, logitSoftCap: softCap } = w;
  k.matmul(s.logits, n, w.lmHead, { bias, scale, softCap }); // logits [T, V]
}

function attention(k: Recorder, attn: Attention, n: Tensor, s: State, cache: KvCache): void {
  const { cAttn, rope, qNorm, kNorm, scale, softCap, window } = attn;
  project(k, s.qkv, n, cAttn); // qkv [T, (H + 2G)·D]
  k.writeKv(s.q, cache, s.qkv, { ...rope, qNorm, kNorm }); // q [T, H·D]; k, v [G, S, D]
  k.attention(s.y, s.q, cache, { scale, softCap, window }); // y [T, H·D], causal
  addTo(k, s, s.y, attn); // x += y · cProj
}

/** y = x · Wᵀ + bias; of several matrices, each makes its own columns of y. */
export function project(k: Recorder, y: Tensor, x: Tensor, parts: readonly Linear[]): void {
  let column = 0;
  for (const { weight, bias } of parts) {
    k.matmul(y, x, weight, { bias, ...parts.length > 1 && { column } });
    column += weight.shape[0];
  }
}

function mlp(k: Recorder, layer: Mlp, n: Tensor, s: State): void {
  const { cFc, cUp, activation } = layer;
  if (cUp) k.matmul(s.g!, n, cUp.weight, { bias: cUp.bias }); // g [T, F]
  k.matmul(s.f, n, cFc.weight, { bias: cFc.bias, activation, gate: cUp && s.g }); // f [T, F]
  addTo(k, s, s.f, layer); // x += f · cProj
}

/** n = norm(x) [T, C]; without a norm, x itself. */
function normed(k: Recorder, n: Tensor, x: Tensor, norm?: Norm): Tensor {
  if (!norm) return x;
  k.norm(n, x, norm);
  return n;
}

/**
 * x += scale · cProj(y) [T, C], with the norms that a family applies here. Overwrites `n`, which a
 * parallel block would still read: no family has both.
 */
function addTo(k: Recorder, s: State, y: Tensor, layer: Output): void {
  const { cProj: { weight, bias }, lnPost, lnSum, residualScale: scale } = layer;
  if (lnPost) {
    k.matmul(s.n, y, weight, { bias }); // n [T, C]
    k.norm(s.x, s.n, { ...lnPost, residual: true, scale });
  } else {
    k.matmul(s.x, y, weight, { bias, scale, residual: true });
  }
  if (lnSum) k.norm(s.x, s.x, lnSum);
}

/** Tensors of a step of T rows; F32 but for the ids and the cache. */
export interface State {
  /** Token ids [T], I32. */
  readonly ids: Tensor;
  /** Residual stream [T, C]. */
  readonly x: Tensor;
  /** Normalised x [T, C]. */
  readonly n: Tensor;
  /** x after the second norm of a parallel block [T, C]; absent if no block has two. */
  readonly m?: Tensor;
  /** Queries, keys and values [T, (H + 2G)·D]. */
  readonly qkv: Tensor;
  /** Queries after rotation [T, H·D]. */
  readonly q: Tensor;
  /** Output of the heads [T, H·D]. */
  readonly y: Tensor;
  /** Hidden layer of the MLP [T, F]. */
  readonly f: Tensor;
  /** Factor of a gated MLP [T, F]; absent without a gate. */
  readonly g?: Tensor;
  /** Logits [T, V]; absent if the step only fills the cache. */
  readonly logits?: Tensor;
  /** Keys and values [G, S, D] of each layer. */
  readonly cache: readonly KvCache[];
}

/** Tensors whose size depends on the number of rows. */
type RowTensors = Omit<State, "logits" | "cache">;

/** Shapes of a state's tensors for `rows` rows, logits excluded. */
export function stateShapes(a: Architecture, rows: number): Record<string, number[]> {
  const { nEmbd: C, nHead: H, nKvHead: G, headDim: D, nInner: F } = a;
  const shapes: Record<keyof RowTensors, number[] | null> = {
    ids: [rows],
    x: [rows, C],
    n: [rows, C],
    m: a.parallel === 2 ? [rows, C] : null,
    qkv: [rows, (H + 2 * G) * D],
    q: [rows, H * D],
    y: [rows, H * D],
    f: [rows, F],
    g: a.gated ? [rows, F] : null,
  };
  return Object.fromEntries(Object.entries(shapes).filter(([, shape]) => shape !== null)) as Record<
    string,
    number[]
  >;
}

/** Allocates a state of `rows` rows over a cache. */
export function makeState(
  backend: Backend,
  a: Architecture,
  rows: number,
  cache: readonly KvCache[],
): State {
  const { ids, ...others } = stateShapes(a, rows);
  const specs = Object.values(others).map((shape) => ({ shape, dtype: "F32" as const }));
  // The host's time counts in steps of one row; more rows keep the device busy.
  const tensors = rows === 1
    ? tensorsTogether(backend, specs, "activations")
    : specs.map(({ shape, dtype }) => backend.tensor(shape, dtype, "activations"));
  const named = Object.keys(others).map((name, i) => [name, tensors[i]]);
  const state = { ...Object.fromEntries(named) as RowTensors, cache };
  return { ...state, ids: backend.tensor(ids, "I32", "activations") };
}

/** Allocates the logits of a state, [rows, V]. */
export function makeLogits(backend: Backend, a: Architecture, rows: number): Tensor {
  return backend.tensor([rows, a.vocabSize], "F32", "activations");
}

/** Allocates keys and values of every layer, [G, slots, D], in `dtype` or the next that fits. */
export function makeCache(
  backend: Backend,
  a: Architecture,
  slots: number,
  dtype: KvDtype,
): KvCache[] {
  const { tensor, width } = kvFormatFor(dtype, a.headDim);
  const shape = [a.nKvHead, slots, width(a.headDim)];
  const spec = { shape, dtype: tensor };
  return Array.from({ length: a.nLayer }, () => {
    const [k, v] = tensorsTogether(backend, [spec, spec], "kvCache");
    return { k, v };
  });
}
