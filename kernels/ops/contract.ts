/**
 * Contract of an operation: its operands, its cost, and what a call becomes on each backend.
 *
 *     k.norm(y, x, options) ──▶ normCall() ──▶ NormCall ──▶ normOperands()    y: write, x: read, …
 *                                                       ──▶ normCost()        bytes, operations
 *                                                       ──▶ bindNorm()        closure of js
 *                                                       ──▶ normEntries()     entries of wasm
 *                                                       ──▶ normDispatches()  dispatches of webgpu
 *
 * A call is checked where it is made, and its operands are listed in `…Operands` alone: the three
 * forms take them from there by name, each in the order of its own parameters or bindings.
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

/** What a call touches, and how. */
export interface Operand {
  /** A weight is a table or a matrix; scratch and parts of a weight are tensors. */
  readonly of: Tensor | Weight;
  /** `write`: every row in use is overwritten; `update`: read as well, or kept in part. */
  readonly access: "read" | "write" | "update";
}

/** The operands of a call by name; undefined where one was left out. */
export type Operands = Readonly<Record<string, Operand | undefined>>;

/** An operand that is read, if given. */
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

/** A tensor of a plan's own, which its kernels pass on to each other. */
export function scratchOf(of: Tensor): Operand {
  return updates(of);
}

/** Scratch for a kernel that reads it alone. */
export function readOnly({ of }: Operand): Operand {
  return reads(of);
}

/** Bytes and operations of one call in one step, at least. */
export interface Cost {
  /** The kind of kernel: calls of one name are added up. */
  readonly name: string;
  /** Operands, each moved once; of a table and of the cache only the rows that a step touches. */
  readonly bytes: number;
  /** Multiplications and additions; exp, cos and the like, and integer arithmetic, do not count. */
  readonly flops: number;
}

/** Costs of a fused kernel, which keeps `saved` bytes on chip that its parts would pass on. */
export function mergeCosts(costs: readonly Cost[], saved: number): Cost {
  const sum = (key: "bytes" | "flops") => costs.reduce((total, cost) => total + cost[key], 0);
  const name = costs.map((cost) => cost.name).join(" + ");
  return { name, bytes: sum("bytes") - saved, flops: sum("flops") };
}

/** A call of the typed-array backend, bound to its operands. */
export type Closure = (step: Segment) => void;

/** Numbers of an F32 tensor of the typed-array backend; recording has checked the dtype. */
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

/** A kernel, its operands and its work items; an absent operand has address 0. */
export type WasmEntry = KernelCall<Operand | undefined>;

/** The module that a pass is lowered to. */
export interface WasmTarget {
  readonly module: ModuleBuilder;
  readonly math: VectorMath;
  /**
   * What `define` makes of these constants, made once for all calls that have them in common.
   * Constants are plain data: a kernel that depends on anything else would be shared wrongly.
   */
  once<C, D>(op: string, constants: C, define: (constants: C) => D): D;
  /** Scratch that lives as long as the plan. */
  scratch(bytes: number): Operand;
  /** Thread-local scratch: so many bytes for each thread, for the time of one kernel. */
  threadScratch(bytes: number): Operand;
}

/** One work item per row. */
export const EACH_ROW: Items = { count: 1, perRow: true };

/** A shader, the operands at its bindings, and its workgroups in a step. */
export interface GpuDispatch extends Shader {
  readonly op: string;
  /** In order of their bindings; an absent one leaves a gap. */
  readonly operands: readonly (Operand | undefined)[];
  readonly groups: (step: Segment) => number;
}

/** The GPU that a pass is lowered to. */
export interface GpuTarget {
  /** Whether the CPU emulates the GPU: barriers are expensive then. */
  readonly software: boolean;
  readonly subgroups: boolean;
  /** A weight by the bindings that hold it. */
  parts(weight: Operand): readonly GpuPart[];
  /** Scratch that lives as long as the plan. */
  scratch(bytes: number): Operand;
}

/** Outputs first … first + count of a weight. */
export interface GpuPart {
  readonly first: number;
  readonly count: number;
  readonly operand: Operand;
}
