/**
 * Calls: a recorded forward pass as data, a list that every backend lowers.
 *
 *     record(build) ──▶ Call[] ──fuse()──▶ Call[]
 *                         │ lower()          │ lower()
 *                         ▼                  ▼
 *                 js closures, wasm entries, webgpu dispatches; operands and costs
 *
 * A call is checked once, when it is recorded. A new operation takes a folder under `ops/`, its
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

/** A call of the recorder, checked. */
export type Call =
  | EmbedCall
  | AddPositionCall
  | NormCall
  | MatmulCall
  | WriteKvCall
  | AttentionCall
  | SampleCall;

/** Calls of a forward pass. Each operation's module has its formula, shapes and oracle. */
export interface Recorder {
  /** y[t] = scale · table[ids[t]] */
  embed(y: Tensor, table: Weight, ids: Tensor, options?: EmbedOptions): void;
  /** x[t] += table[position + t] */
  addPosition(x: Tensor, table: Weight): void;
  /** y = norm(x), or y += norm(x); y may be x. */
  norm(y: Tensor, x: Tensor, options: NormOptions): void;
  /** y = x · Wᵀ with its epilogue. */
  matmul(y: Tensor, x: Tensor, weight: Weight, options?: MatmulOptions): void;
  /** Splits qkv; norms and rotates q and k; stores k and v. */
  writeKv(q: Tensor, cache: KvCache, qkv: Tensor, options?: WriteKvOptions): void;
  /** y = softmax(q · kᵀ) · v, causal. */
  attention(y: Tensor, q: Tensor, cache: KvCache, options?: AttentionOptions): void;
  /** Draws the next id from one row of logits. */
  sample(ids: Tensor, logits: Tensor, sampling: Sampling): void;
}

/**
 * The calls that `build` makes, in order.
 * @throws {RangeError} naming the operation whose operands do not fit.
 */
export function record(build: (k: Recorder) => void): Call[] {
  const calls: Call[] = [];
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
  });
  return calls;
}

/** A form of each operation, which makes an R of a call and some context. */
export type Forms<Context, R> = {
  readonly [Op in Call["op"]]: (call: Extract<Call, { op: Op }>, context: Context) => R;
};

/** What the form of the call's operation makes of it. */
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

/** The operations, by the names of their calls. */
export const OPERATIONS = Object.keys(OPERANDS) as readonly Call["op"][];

/** Tensors and weights of a call, each with its access. */
export function operandsOf(call: Call): Operand[] {
  const operands = Object.values(lower(call, OPERANDS, undefined));
  return operands.filter((operand) => operand !== undefined);
}

/** Whether a call reads `tensor`, or keeps a part of what it held. */
export function dependsOn(call: Call, tensor: Tensor): boolean {
  return operandsOf(call).some(({ of, access }) => of === tensor && access !== "write");
}

/** Whether a call overwrites every row in use of `tensor`. */
export function overwrites(call: Call, tensor: Tensor): boolean {
  return operandsOf(call).some(({ of, access }) => of === tensor && access === "write");
}

/** The largest step that calls have room for: no row goes beyond a tensor that they write. */
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

/** Bytes and operations that a call takes in a step at least, with what was fused into it. */
export function costOf(call: Call, segment: Segment): Cost {
  return lower(call, COSTS, segment);
}
