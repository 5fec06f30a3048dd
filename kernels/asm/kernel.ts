/**
 * Kernel signature: addresses of the operands, the step, and a range of work items.
 *
 * @module
 */
import { call, ints } from "./assembler.ts";
import type {
  Effect,
  Func,
  FunctionBuilder,
  Int,
  Ints,
  Local,
  ModuleBuilder,
  Operand,
} from "./assembler.ts";

/** Addresses of the operands, then rows, position, slot, length, begin, end. */
export type Kernel = Func<Ints<string>>;

/**
 * Number of work items: `count`, or `count` per row, or `count` per `perKeys` cached keys. An
 * item's result does not depend on the thread that computes it.
 */
export interface Items {
  readonly count: number;
  readonly perRow: boolean;
  /** Cached keys per `count` items; the last items may have fewer. */
  readonly perKeys?: number;
}

/** A call of a kernel: operands, which become addresses, and work items. */
export interface KernelCall<Operand> {
  readonly kernel: Kernel;
  readonly operands: readonly Operand[];
  readonly items: Items;
}

/** Parameters after the operands: the step, and the work items begin … end − 1. */
const SHARE = ["rows", "position", "slot", "length", "begin", "end"] as const;
type ShareName = typeof SHARE[number];

/** Defines a kernel with named operands; an omitted operand has address 0. */
export function defineKernel<const N extends string>(
  m: ModuleBuilder,
  operands: readonly N[],
  build: (f: FunctionBuilder, params: Readonly<Record<N | ShareName, Local<Int>>>) => void,
): Kernel {
  return m.define(ints<N | ShareName>(...operands, ...SHARE), "void", build);
}

/** Calls a kernel on the items begin … end − 1. */
export function callKernel(
  { kernel, operands }: Pick<KernelCall<number>, "kernel" | "operands">,
  share: Readonly<Record<ShareName, Operand<Int>>>,
): Effect {
  const args = [...operands, ...SHARE.map((name) => share[name])];
  const names = Object.keys(kernel.params);
  return call(kernel, Object.fromEntries(names.map((name, i) => [name, args[i]])));
}
