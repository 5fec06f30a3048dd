/**
 * Fusion of neighbouring calls: an embedding with its positions, a norm with its products, a gate
 * with its product, a product with the cache write of its heads.
 *
 *     embed(x, wte), addPosition(x, wpe)  ─▶  embed(x, wte, positions: wpe)
 *     norm(n, x), matmul(y, n, W)         ─▶  matmul(y, x, W, norm)
 *     matmul(g, x, U), matmul(y, x, W, g) ─▶  matmul(y, x, W, up: U)
 *     matmul(qkv, x, W), writeKv(q, qkv)  ─▶  matmul(q, x, W, heads)
 *
 * All but the first apply to a single row, if nothing reads the tensor between: it is overwritten,
 * or the pass discards it. Each saves a dispatch. A GPU folds the norm into the sums of the
 * product; a CPU that emulates one sums the row again in every lane, so a product with many outputs
 * is not worth it.
 *
 * @module
 */
import { type Call, dependsOn, operandsOf, overwrites } from "./calls.ts";
import { kvFormatOfShape } from "./ops/kv_cache/mod.ts";
import type { MatmulCall, MatmulOptions } from "./ops/matmul/mod.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Most outputs of a product that sums its row in each lane: with more, too many of them repeat it.
 */
const MAX_NORMED_OUTPUTS = 32768;

/** Most operands of a dispatch on every device. */
const MAX_OPERANDS = 8;

/** Options of a fusion. */
export interface FuseOptions {
  /** Whether products fold a norm into their sums, however many outputs they have. */
  readonly folds?: boolean;
  /** Tensors whose contents after the pass do not matter. */
  readonly discarded?: ReadonlySet<Tensor>;
}

/** Fuses neighbouring calls if no observable tensor changes. */
export function fuse(calls: readonly Call[], options: FuseOptions = {}): Call[] {
  const { discarded = new Set() } = options;
  return fuseHeads(fuseGates(fuseNorms(calls, options), discarded), discarded);
}

/** Fuses positions into embeddings, and norms into products. */
function fuseNorms(
  calls: readonly Call[],
  { folds = false, discarded = new Set() }: FuseOptions,
): Call[] {
  const mostOutputs = folds ? Infinity : MAX_NORMED_OUTPUTS;
  const fused: Call[] = [];
  for (let i = 0; i < calls.length; i++) {
    const call = calls[i];
    const next = calls[i + 1];
    if (call.op === "embed" && next?.op === "addPosition" && next.x === call.y) {
      fused.push({ ...call, positions: next.table });
      i++;
    } else if (call.op === "norm") {
      const products = productsOf(calls, i, mostOutputs, discarded);
      if (!products.length) fused.push(call);
      for (const product of products) fused.push({ ...product, x: call.x, norm: call.options });
      i += products.length;
    } else fused.push(call);
  }
  return fused;
}

/** Fuses pairs of neighbouring calls: `join` returns the one that replaces both, if any. */
function fusePairs(
  calls: readonly Call[],
  join: (call: MatmulCall, next: Call, rest: readonly Call[]) => Call | undefined,
): Call[] {
  const fused: Call[] = [];
  for (let i = 0; i < calls.length; i++) {
    const call = calls[i];
    const next = calls[i + 1];
    const isProduct = call.op === "matmul" && next && call.x.shape[0] === 1;
    const joined = isProduct ? join(call, next, calls.slice(i + 2)) : undefined;
    fused.push(joined ?? call);
    if (joined) i++;
  }
  return fused;
}

/** Fuses a product into the next one, whose gate it is. */
function fuseGates(calls: readonly Call[], discarded: ReadonlySet<Tensor>): Call[] {
  return fusePairs(calls, (up, call, rest) => {
    if (call.op !== "matmul" || call.options.gate !== up.y || !isPlain(up.options)) return;
    const [{ weight, x, norm }, [N, K]] = [call, up.weight.shape];
    const isTwin = x === up.x && norm === up.norm && weight.dtype === up.weight.dtype &&
      weight.shape[0] === N && weight.shape[1] === K;
    if (!isTwin || !isOverwritten(rest, up.y, discarded)) return;
    const options = { ...call.options, gate: undefined };
    return { ...call, options, up: { weight: up.weight, bias: up.options.bias } };
  });
}

/** Fuses the cache write of heads without a norm into the product that makes them. */
function fuseHeads(calls: readonly Call[], discarded: ReadonlySet<Tensor>): Call[] {
  return fusePairs(calls, (call, heads, rest) => {
    if (heads.op !== "writeKv" || heads.qkv !== call.y || !isPlain(call.options)) return;
    if (heads.options.qNorm || heads.options.kNorm || heads.q === call.x) return;
    // A lane of the product has too few numbers for a packed cache's word or scale.
    if (kvFormatOfShape(heads.shape).rows) return;
    const fused = { ...call, heads };
    const fits = operandsOf(fused).length <= MAX_OPERANDS;
    return fits && isOverwritten(rest, call.y, discarded) ? fused : undefined;
  });
}

/** Whether an epilogue writes all of y, with nothing but a bias. */
function isPlain(options: MatmulOptions): boolean {
  const { activation, gate, scale = 1, softCap, residual, column } = options;
  return !activation && !gate && scale === 1 && !softCap && !residual && column === undefined;
}

/** Products that can take over the norm before them: of one row, and its only readers. */
function productsOf(
  calls: readonly Call[],
  at: number,
  mostOutputs: number,
  discarded: ReadonlySet<Tensor>,
): MatmulCall[] {
  const norm = calls[at];
  if (norm.op !== "norm" || norm.options.residual || norm.x === norm.y) return [];
  if (norm.x.shape[0] !== 1) return [];
  const products: MatmulCall[] = [];
  let i = at + 1;
  for (; i < calls.length; i++) {
    const call = calls[i];
    if (call.op !== "matmul" || call.x !== norm.y) break;
    const { y, weight, options } = call;
    // A product must not write a tensor that another workgroup has yet to norm.
    if (y === norm.x || y === norm.y || weight.shape[0] > mostOutputs) return [];
    if (options.gate === norm.y || options.gate === norm.x) return [];
    products.push(call);
  }
  return isOverwritten(calls.slice(i), norm.y, discarded) ? products : [];
}

/** Whether calls overwrite `tensor` before one reads it, or none reads it and it is discarded. */
function isOverwritten(
  calls: readonly Call[],
  tensor: Tensor,
  discarded: ReadonlySet<Tensor>,
): boolean {
  for (const call of calls) {
    if (dependsOn(call, tensor)) return false;
    if (overwrites(call, tensor)) return true;
  }
  return discarded.has(tensor);
}
