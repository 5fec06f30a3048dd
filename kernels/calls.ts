/**
 * Calls: a recorded forward pass as a list of data, which every backend lowers.
 *
 *     record(build) ──▶ Call[] ──fuse()──▶ Call[]
 *                         │ lower()          │ lower()
 *                         ▼                  ▼
 *                 js closures, wasm entries, webgpu dispatches; operands and costs
 *
 * A call is checked once, when it is recorded. A new operation needs a module under `ops/`, its
 * lines here, and one line in each backend.
 *
 * @module
 */
import type { Weight } from "./formats/mod.ts";
import {
  type AttentionCall,
  attentionCall,
  attentionCost,
  attentionOperands,
  type AttentionOptions,
} from "./ops/attention/mod.ts";
import type { Cost, Operand, Operands } from "./ops/contract.ts";
import {
  type AddPositionCall,
  addPositionCall,
  addPositionCost,
  addPositionOperands,
  type EmbedCall,
  embedCall,
  embedCost,
  embedOperands,
  type EmbedOptions,
} from "./ops/embed.ts";
import {
  type KvCache,
  type WriteKvCall,
  writeKvCall,
  writeKvCost,
  writeKvOperands,
  type WriteKvOptions,
} from "./ops/kv_cache/mod.ts";
import {
  type MatmulCall,
  matmulCall,
  matmulCost,
  matmulOperands,
  type MatmulOptions,
} from "./ops/matmul/mod.ts";
import { type NormCall, normCall, normCost, normOperands, type NormOptions } from "./ops/norm.ts";
import {
  type SampleCall,
  sampleCall,
  sampleCost,
  sampleOperands,
  type Sampling,
} from "./ops/sample/mod.ts";
import type { Segment, StepRoom } from "./step.ts";
import type { Tensor } from "./tensor.ts";

/** A checked call of the recorder. */
export type Call =
  | EmbedCall
  | AddPositionCall
  | NormCall
  | MatmulCall
  | WriteKvCall
  | AttentionCall
  | SampleCall;

/**
 * Records the calls of a forward pass. Letters of shapes: `tensor.ts`; the module of each operation
 * has its formula and source. Every method throws a RangeError if its operands do not fit.
 */
export interface Recorder {
  /**
   * y[t] = scale · table[ids[t]]
   * @param y [T, C]
   * @param table [V, C]
   * @param ids [T] I32; an id outside the table gives zeros.
   * @param options the scale.
   */
  embed(y: Tensor, table: Weight, ids: Tensor, options?: EmbedOptions): void;
  /**
   * x[t] += table[position + t]
   * @param x [T, C]
   * @param table [P, C]
   */
  addPosition(x: Tensor, table: Weight): void;
  /**
   * y = norm(x), or y += norm(x)
   * @param y [T, C]; may be `x`.
   * @param x [T, C]
   * @param options kind, weight and bias [C], eps.
   */
  norm(y: Tensor, x: Tensor, options: NormOptions): void;
  /**
   * y = epilogue(x · Wᵀ)
   * @param y [T, N]
   * @param x [T, K]
   * @param weight [N, K]
   * @param options the epilogue, and the columns of y that are written.
   */
  matmul(y: Tensor, x: Tensor, weight: Weight, options?: MatmulOptions): void;
  /**
   * Splits qkv, norms and rotates q and k, stores k and v.
   * @param q [T, H·D]
   * @param cache k and v [G, S, D]
   * @param qkv [T, (H+2G)·D]
   * @param options norms and the rotary table.
   */
  writeKv(q: Tensor, cache: KvCache, qkv: Tensor, options?: WriteKvOptions): void;
  /**
   * y = softmax(scale · q · kᵀ) · v, causal
   * @param y [T, H·D]
   * @param q [T, H·D]
   * @param cache k and v [G, S, D]
   * @param options scale, cap and window.
   */
  attention(y: Tensor, q: Tensor, cache: KvCache, options?: AttentionOptions): void;
  /**
   * Draws the next id from one row of logits.
   * @param ids [T] I32; the drawn id becomes the first.
   * @param logits [1, V]
   * @param sampling settings and state on the device.
   */
  sample(ids: Tensor, logits: Tensor, sampling: Sampling): void;
  /**
   * Leaves the contents of tensors undefined after the pass, so that calls may be fused that only
   * pass them on.
   * @param tensors activations that nothing reads before the next pass writes them.
   */
  discard(...tensors: Tensor[]): void;
}

/** A recorded pass. */
export interface Pass {
  readonly calls: Call[];
  /** Tensors whose contents after the pass do not matter. */
  readonly discarded: ReadonlySet<Tensor>;
}

/**
 * Returns the calls that `build` makes, in order.
 * @throws {RangeError} If the operands of a call do not fit each other.
 */
export function record(build: (k: Recorder) => void): Call[] {
  return recordPass(build).calls;
}

/** As `record`, with the tensors that `build` discards. */
export function recordPass(build: (k: Recorder) => void): Pass {
  const calls: Call[] = [];
  const discarded = new Set<Tensor>();
  const recorded = <A extends unknown[]>(check: (...args: A) => Call) => (...args: A): void => {
    calls.push(check(...args));
  };
  build({
    embed: recorded(embedCall),
    addPosition: recorded(addPositionCall),
    norm: recorded(normCall),
    matmul: recorded(matmulCall),
    writeKv: recorded(writeKvCall),
    attention: recorded(attentionCall),
    sample: recorded(sampleCall),
    discard: (...tensors) => tensors.forEach((tensor) => discarded.add(tensor)),
  });
  return { calls, discarded };
}

/** One function per operation, from a call and a context to an R. */
export type Forms<Context, R> = {
  readonly [Op in Call["op"]]: (call: Extract<Call, { op: Op }>, context: Context) => R;
};

/** Applies the form of the call's operation. */
export function lower<Context, R>(call: Call, forms: Forms<Context, R>, context: Context): R {
  const form = forms[call.op] as (call: Call, context: Context) => R;
  return form(call, context);
}

const OPERANDS: Forms<void, Operands> = {
  embed: embedOperands,
  addPosition: addPositionOperands,
  norm: normOperands,
  matmul: matmulOperands,
  writeKv: writeKvOperands,
  attention: attentionOperands,
  sample: sampleOperands,
};

const COSTS: Forms<Segment, Cost> = {
  embed: embedCost,
  addPosition: addPositionCost,
  norm: normCost,
  matmul: matmulCost,
  writeKv: writeKvCost,
  attention: attentionCost,
  sample: sampleCost,
};

/** Names of all operations. */
export const OPERATIONS = Object.keys(OPERANDS) as readonly Call["op"][];

/** Tensors and weights of a call by name, each with its access. */
export function namedOperandsOf(call: Call): [string, Operand][] {
  return Object.entries(lower(call, OPERANDS, undefined))
    .filter((entry): entry is [string, Operand] => entry[1] !== undefined);
}

/** Tensors and weights of a call, each with its access. */
export function operandsOf(call: Call): Operand[] {
  return namedOperandsOf(call).map(([, operand]) => operand);
}

/** Whether a call reads `tensor` or keeps part of its old values. */
export function dependsOn(call: Call, tensor: Tensor | Weight): boolean {
  return operandsOf(call).some(({ of, access }) => of === tensor && access !== "write");
}

/** Whether a call overwrites all rows in use of `tensor` without reading it. */
export function overwrites(call: Call, tensor: Tensor | Weight): boolean {
  return operandsOf(call).some(({ of, access }) => of === tensor && access === "write");
}

/** Largest step of a pass: no row exceeds a tensor that its calls write. */
export function roomOf(calls: readonly Call[]): StepRoom {
  const written = calls.flatMap(operandsOf).filter(({ access }) => access !== "read")
    .map(({ of }) => of.shape);
  const least = (shapes: readonly (readonly number[])[], axis: number) =>
    Math.min(...shapes.map((shape) => shape[axis])); // Infinity for none
  return {
    rows: least(written.filter((shape) => shape.length === 2), 0), // [T, …]
    slots: least(written.filter((shape) => shape.length === 3), 1), // [G, S, D]
  };
}

/** Minimum bytes and FLOPs of a call in a step, including calls fused into it. */
export function costOf(call: Call, segment: Segment): Cost {
  return lower(call, COSTS, segment);
}
