/**
 * Fusion of neighbouring calls: an embedding with its positions, a norm with its products.
 *
 *     embed(x, wte), addPosition(x, wpe)  ─▶  embed(x, wte, positions: wpe)
 *     norm(n, x), matmul(y, n, W)         ─▶  matmul(y, x, W, norm)
 *
 * The second applies to a single row whose norm only these products read. It saves the norm's
 * dispatch. A GPU folds the norm into the sums of the product; a CPU that emulates one sums the row
 * again in every workgroup, so a product with many outputs is not worth it.
 *
 * @module
 */
import { type Call, dependsOn, overwrites } from "./calls.ts";
import type { MatmulCall } from "./ops/matmul/mod.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Most outputs of a product that sums its row in each workgroup: with more, too many workgroups
 * repeat it.
 */
const MAX_NORMED_OUTPUTS = 32768;

/** Options of a fusion. */
export interface FuseOptions {
  /** Whether products fold a norm into their sums, however many outputs they have. */
  readonly folds?: boolean;
}

/** Fuses neighbouring calls if no observable tensor changes. */
export function fuse(calls: readonly Call[], { folds = false }: FuseOptions = {}): Call[] {
  const mostOutputs = folds ? Infinity : MAX_NORMED_OUTPUTS;
  const fused: Call[] = [];
  for (let i = 0; i < calls.length; i++) {
    const call = calls[i];
    const next = calls[i + 1];
    if (call.op === "embed" && next?.op === "addPosition" && next.x === call.y) {
      fused.push({ ...call, positions: next.table });
      i++;
    } else if (call.op === "norm") {
      const products = productsOf(calls, i, mostOutputs);
      if (!products.length) fused.push(call);
      for (const product of products) fused.push({ ...product, x: call.x, norm: call.options });
      i += products.length;
    } else fused.push(call);
  }
  return fused;
}

/** Products that can take over the norm before them: of one row, and its only readers. */
function productsOf(calls: readonly Call[], at: number, mostOutputs: number): MatmulCall[] {
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
  return isOverwritten(calls.slice(i), norm.y) ? products : [];
}

/** Whether calls overwrite `tensor` before one reads it; if none does, the host may read it. */
function isOverwritten(calls: readonly Call[], tensor: Tensor): boolean {
  for (const call of calls) {
    if (dependsOn(call, tensor)) return false;
    if (overwrites(call, tensor)) return true;
  }
  return false;
}
