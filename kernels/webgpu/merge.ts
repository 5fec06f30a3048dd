/**
 * Neighbouring calls that one dispatch can do: an embedding with its positions, a norm with the products that read it.
 *
 * @module
 */
import type { AttentionOptions } from "../ops/attention/mod.ts";
import type { KvCache, WriteKvOptions } from "../ops/kv_cache/mod.ts";
import type { MatmulOptions } from "../ops/matmul/mod.ts";
import { MAX_NORM_WIDTH } from "../ops/matmul/wgsl.ts";
import type { NormOptions } from "../ops/norm.ts";
import type { Sampling } from "../ops/sample/mod.ts";
import type { Weight } from "../formats/mod.ts";
import type { Tensor } from "../tensor.ts";

/** A call of the recorder, checked, with what was merged into it. */
export type Recorded =
  | {
    readonly op: "embed";
    readonly y: Tensor;
    readonly table: Weight;
    readonly ids: Tensor;
    readonly scale: number;
    readonly positions?: Weight;
  }
  | { readonly op: "addPosition"; readonly y: Tensor; readonly table: Weight }
  | { readonly op: "norm"; readonly y: Tensor; readonly x: Tensor; readonly options: NormOptions }
  | {
    readonly op: "matmul";
    readonly y: Tensor;
    readonly x: Tensor;
    readonly weight: Weight;
    readonly options: MatmulOptions;
    readonly norm?: NormOptions;
  }
  | {
    readonly op: "writeKv";
    readonly y: Tensor;
    readonly cache: KvCache;
    readonly qkv: Tensor;
    readonly options: WriteKvOptions;
  }
  | {
    readonly op: "attention";
    readonly y: Tensor;
    readonly q: Tensor;
    readonly cache: KvCache;
    readonly options: AttentionOptions;
  }
  | {
    readonly op: "sample";
    readonly y: Tensor;
    readonly logits: Tensor;
    readonly sampling: Sampling;
  };

/** Outputs beyond which a product's workgroups are too many to norm the row again in each of them: heads. */
const MAX_NORMED_OUTPUTS = 32768;

/** What `calls` say, in fewer of them where that changes no tensor that anybody can read. */
export function merge(calls: readonly Recorded[]): Recorded[] {
  const merged: Recorded[] = [];
  for (let i = 0; i < calls.length; i++) {
    const call = calls[i];
    const next = calls[i + 1];
    if (call.op === "embed" && next?.op === "addPosition" && next.y === call.y) {
      merged.push({ ...call, positions: next.table });
      i++;
    } else if (call.op === "norm") {
      const products = productsOf(calls, i);
      if (!products.length) merged.push(call);
      for (const product of products) {
        merged.push({ ...product, x: call.x, norm: call.options });
      }
      i += products.length;
    } else merged.push(call);
  }
  return merged;
}

/** The products behind a norm that can make it on their way: one row, and nobody else reads what the norm would have left. */
function productsOf(
  calls: readonly Recorded[],
  at: number,
): (Recorded & { op: "matmul" })[] {
  const norm = calls[at];
  if (norm.op !== "norm" || norm.options.residual || norm.x === norm.y) return [];
  if (norm.x.shape[0] !== 1 || norm.x.shape[1] > MAX_NORM_WIDTH) return [];
  const products: (Recorded & { op: "matmul" })[] = [];
  let i = at + 1;
  for (; i < calls.length; i++) {
    const call = calls[i];
    if (call.op !== "matmul" || call.x !== norm.y) break;
    const { y, weight, options } = call;
    // A product that writes what another workgroup has yet to norm would be read half-way.
    if (y === norm.x || y === norm.y || weight.shape[0] > MAX_NORMED_OUTPUTS) return [];
    if (options.gate === norm.y || options.gate === norm.x) return [];
    products.push(call);
  }
  return overwritten(calls, i, norm.y) ? products : [];
}

/** Whether `t` is written whole before anything reads it; what nobody touches again, the host may read. */
function overwritten(calls: readonly Recorded[], from: number, t: Tensor): boolean {
  for (const call of calls.slice(from)) {
    if (reads(call).includes(t)) return false;
    if (call.y === t) return true;
  }
  return false;
}

function reads(call: Recorded): (Tensor | undefined)[] {
  switch (call.op) {
    case "embed":
      return [call.ids];
    case "addPosition":
      return [call.y];
    case "norm":
      return [call.x, call.options.residual ? call.y : undefined];
    case "matmul":
      return [call.x, call.options.gate, call.options.residual ? call.y : undefined];
    case "writeKv":
      return [call.qkv, call.cache.k, call.cache.v];
    case "attention":
      return [call.q, call.cache.k, call.cache.v];
    case "sample":
      return [call.logits];
  }
}
