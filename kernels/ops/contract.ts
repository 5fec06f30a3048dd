/**
 * Contract of an operation: its operands, its cost, and its form on each backend.
 *
 *     k.norm(y, x, options) ──▶ normCall() ──▶ NormCall ──▶ normOperands()    y: write, x: read, …
 *                                                       ──▶ normCost()        bytes, FLOPs
 *                                                       ──▶ bindNorm()        closure of js
 *                                                       ──▶ normEntries()     entries of wasm
 *                                                       ──▶ normDispatches()  dispatches of webgpu
 *
 * A call is checked once, by `…Call`. Its operands are listed once, by `…Operands`: the three forms
 * take them from there by name, in the order of their parameters or bindings.
 *
 * @module
 */
import type { ModuleBuilder } from "../asm/assembler.ts";
import type { Items, KernelCall } from "../asm/kernel.ts";
import type { VectorMath } from "../asm/math.ts";
import type { Segment } from "../step.ts";
import type { Weight } from "../formats/mod.ts";
import type { HostArray, Tensor } from "../tensor.ts";
import type { Shader } from "../wgsl/shader.ts";

/** A tensor or weight of a call, and its access. */
export interface Operand {
  /** Tables and matrices are weights; scratch and parts of a weight are tensors. */
  readonly of: Tensor | Weight;
  /** `write`: overwrites all rows in use; `update`: reads them, too, or keeps some. */
  readonly access: "read" | "write" | "update";
}

/** Operands of a call by name; undefined if left out. */
export type Operands = Readonly<Record<string, Operand | undefined>>;

/** A read operand, if given. */
export function reads(of: Tensor | Weight): Operand;
export function reads(of?: Tensor | Weight): Operand | undefined;
export function reads(of?: Tensor | Weight): Operand | undefined {
  return of && { of, access: "read" };
}

/** An operand whose rows in use are overwritten. */
export function writes(of: Tensor): Operand {
  return { of, access: "write" };
}

/** An operand that is read and written, or written in part. */
export function updates(of: Tensor): Operand {
  return { of, access: "update" };
}

/** Scratch of a plan, which passes results from one kernel to the next. */
export function scratchOf(of: Tensor): Operand {
  return updates(of);
}

/** The same scratch for a kernel that only reads it. */
export function readOnly({ of }: Operand): Operand {
  return reads(of);
}

/** Minimum bytes and FLOPs of one call in one step. */
export interface Cost {
  /** Kind of kernel: a profile adds up calls of one name. */
  readonly name: string;
  /**
   * Bytes of all operands, each moved once; of a table or the cache, only the rows that a step
   * touches.
   */
  readonly bytes: number;
  /** Multiplications and additions; not exp, cos etc., nor integer arithmetic. */
  readonly flops: number;
}

/** Cost of a fused kernel, which keeps `saved` bytes on chip that its parts would move. */
export function mergeCosts(costs: readonly Cost[], saved: number): Cost {
  const sum = (key: "bytes" | "flops") => costs.reduce((total, cost) => total + cost[key], 0);
  const name = costs.map((cost) => cost.name).join(" + ");
  return { name, bytes: sum("bytes") - saved, flops: sum("flops") };
}

/** A call of the typed-array backend, bound to its operands. */
export type Closure = (step: Segment) => void;

/** Numbers of an F32 tensor of the typed-array backend; the dtype was checked when recorded. */
export function f32Of(tensor: Tensor): Float32Array {
  return (tensor as HostTensor).data as Float32Array;
}

/** Numbers of an I32 tensor of the typed-array backend. */
export function i32Of(tensor: Tensor): Int32Array {
  return (tensor as HostTensor).data as Int32Array;
}

/** Numbers of a U32 tensor of the typed-array backend. */
export function u32Of(tensor: Tensor): Uint32Array {
  return (tensor as HostTensor).data as Uint32Array;
}

/** A tensor of the typed-array backend. */
export interface HostTensor extends Tensor {
  readonly data: HostArray;
}

/** A kernel, its operands and its work items; undefined operands have address 0. */
export type WasmEntry = KernelCall<Operand | undefined>;

/**
 * Precision of x in integer products with blocked weights: 16 bits or, as llama.cpp has it, 8 bits;
 * x has a scale per 32 inputs.
 */
export type Activations = "exact" | "int8";

/** Target of a pass on the CPU: the WebAssembly module that it is lowered to. */
export interface WasmTarget {
  readonly module: ModuleBuilder;
  readonly math: VectorMath;
  readonly activations: Activations;
  /**
   * Calls `define` once for all calls with equal `op` and constants, and shares the result.
   * `define` may depend only on the constants, which are plain data.
   */
  once<C, D>(op: string, constants: C, define: (constants: C) => D): D;
  /** Allocates scratch that lives as long as the plan. */
  scratch(bytes: number): Operand;
  /** Allocates thread-local scratch: `bytes` for each thread, during one kernel. */
  threadScratch(bytes: number): Operand;
}

/** One work item per row. */
export const EACH_ROW: Items = { count: 1, perRow: true };

/** A shader, the operands at its bindings, and its workgroups in a step. */
export interface GpuDispatch extends Shader {
  readonly op: string;
  /** In order of bindings; undefined leaves a gap. */
  readonly operands: readonly (Operand | undefined)[];
  /** Number of workgroups for a number of rows. */
  readonly groups: (rows: number) => number;
  /** Its factor in a step, default 1; 0 leaves the dispatch out. */
  readonly times?: (step: Segment) => number;
}

/** Target of a pass on a GPU. */
export interface GpuTarget {
  /** Whether the CPU emulates the GPU: barriers are expensive then. */
  readonly software: boolean;
  readonly subgroups: boolean;
  /** Lanes of the smallest subgroup; 1 without subgroups. */
  readonly smallestSubgroup: number;
  /** Parts of a weight, one per buffer. */
  parts(weight: Operand): readonly GpuPart[];
  /** Allocates scratch that lives as long as the plan. */
  scratch(bytes: number): Operand;
  /**
   * First number of a tensor that no kernel writes, as the host wrote it last: known when a step is
   * queued, so that it can decide which dispatches the step needs.
   */
  firstOf(operand: Operand): () => number;
  /** Scratch for partial sums, which the next call of the pass may overwrite. */
  partials(bytes: number): Operand;
}

/** Outputs first … first + count of a weight, in one buffer. */
export interface GpuPart {
  readonly first: number;
  readonly count: number;
  /** Its panels, a tensor [count, K]. */
  readonly operand: Operand;
}
