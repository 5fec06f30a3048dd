/**
 * One step of a GPT decoder: T rows of token ids in, logits out.
 *
 * Recorded once for each kind of step and replayed while tokens flow; what changes from step to step (position, number of rows) is
 * data on the device. Families differ in the data of `w`, never by name.
 * Letters: T rows, C width, H query heads, G key/value heads, D head size, F hidden width, V vocabulary, S cache slots.
 *
 * @module
 */
import type { Activation } from "../kernels/activation.ts";
import type { Backend, Recorder } from "../kernels/backend.ts";
import type { KvCache } from "../kernels/kv_cache/mod.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Architecture } from "./architecture.ts";
import type { Block, Weights } from "./weights.ts";

/** Records the forward pass: ids → logits, or → the cache alone where `s` has no logits. */
export function forward(k: Recorder, w: Weights, s: State): void {
  k.embed(s.x, w.wte, s.ids); // x [T, C]
  if (w.wpe) k.addPosition(s.x, w.wpe); // learned positions; rotary ones are in the block
  for (const [i, block] of w.h.entries()) {
    attention(k, block, w, s, s.cache[i]);
    mlp(k, block, s);
  }
  if (!s.logits) return;
  k.norm(s.n, s.x, w.lnF); // n [T, C]
  k.matmul(s.logits, s.n, w.lmHead); // logits [T, V]
}

function attention(k: Recorder, { ln1, attn }: Block, w: Weights, s: State, cache: KvCache): void {
  k.norm(s.n, s.x, ln1); // n [T, C]
  k.matmul(s.qkv, s.n, attn.cAttn.weight, { bias: attn.cAttn.bias }); // qkv [T, (H + 2G)·D]
  k.writeKv(s.q, cache, s.qkv, w.rope); // q [T, H·D]; K and V go where attention reads them
  k.attention(s.y, s.q, cache, { scale: attn.scale }); // y [T, H·D], causal
  k.matmul(s.x, s.y, attn.cProj.weight, { bias: attn.cProj.bias, residual: true }); // x += y · cProj
}

function mlp(k: Recorder, { ln2, mlp: { cFc, cProj } }: Block, s: State): void {
  k.norm(s.n, s.x, ln2); // n [T, C]
  k.matmul(s.f, s.n, cFc.weight, { bias: cFc.bias, activation: s.activation }); // f [T, F]
  k.matmul(s.x, s.f, cProj.weight, { bias: cProj.bias, residual: true }); // x += f · cProj
}

/** What a step works on. */
export interface State {
  /** [T] I32 */
  readonly ids: Tensor;
  /** The residual stream [T, C]. */
  readonly x: Tensor;
  /** Normed [T, C]. */
  readonly n: Tensor;
  /** [T, (H + 2G)·D] */
  readonly qkv: Tensor;
  /** [T, H·D] */
  readonly q: Tensor;
  /** [T, H·D] */
  readonly y: Tensor;
  /** [T, F] */
  readonly f: Tensor;
  /** [T, V]; none where only the cache is filled. */
  readonly logits?: Tensor;
  /** One for each layer. */
  readonly cache: readonly KvCache[];
  readonly activation: Activation;
}

/** Extents of a state's tensors of `rows` rows, the logits apart. */
export function stateShapes(a: Architecture, rows: number): Record<string, number[]> {
  const { nEmbd: C, nHead: H, nKvHead: G, headDim: D, nInner: F } = a;
  return {
    ids: [rows],
    x: [rows, C],
    n: [rows, C],
    qkv: [rows, (H + 2 * G) * D],
    q: [rows, H * D],
    y: [rows, H * D],
    f: [rows, F],
  };
}

/** A state of `rows` rows over a cache. */
export function makeState(
  backend: Backend,
  a: Architecture,
  rows: number,
  cache: readonly KvCache[],
): State {
  const shapes = stateShapes(a, rows);
  const f32 = (name: string) => backend.tensor(shapes[name], "F32", "activations");
  return {
    ids: backend.tensor(shapes.ids, "I32", "activations"),
    x: f32("x"),
    n: f32("n"),
    qkv: f32("qkv"),
    q: f32("q"),
    y: f32("y"),
    f: f32("f"),
    cache,
    activation: a.activation,
  };
}

/** Logits [rows, V] for a state. */
export function makeLogits(backend: Backend, a: Architecture, rows: number): Tensor {
  return backend.tensor([rows, a.vocabSize], "F32", "activations");
}

/** Keys and values of every layer, for `slots` tokens. */
export function makeCache(backend: Backend, a: Architecture, slots: number): KvCache[] {
  const shape = [a.nKvHead, slots, a.headDim];
  return Array.from({ length: a.nLayer }, () => ({
    k: backend.tensor(shape, "F32", "kvCache"),
    v: backend.tensor(shape, "F32", "kvCache"),
  }));
}
