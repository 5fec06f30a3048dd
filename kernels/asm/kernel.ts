/**
 * The signature of all kernels: a function of addresses, of the step, and of a range of work items.
 *
 * @module
 */
import { type FunctionBuilder, ints, type Local, type ModuleBuilder } from "./assembler.ts";
import type { Func } from "./assembler.ts";

/** Addresses of the operands, then rows, position, slot, length, begin, end: all I32. */
export type Kernel = Func<readonly "i32"[]>;

/**
 * Number of work items: `count`, or `count` per row, or `count` per `perKeys` cached keys. An
 * item's result does not depend on the thread that computes it.
 */
export interface Items {
  readonly count: number;
  readonly perRow: boolean;
  /** Keys of the cache that `count` items are for; the last ones may have fewer. */
  readonly perKeys?: number;
}

/** A call of a kernel: its operands, which become addresses, and its work items. */
export interface KernelCall<Operand> {
  readonly kernel: Kernel;
  readonly operands: readonly Operand[];
  readonly items: Items;
}

/** Parameters of a kernel after its operands: the step, and the work items begin … end − 1. */
const STEP = ["rows", "position", "slot", "length", "begin", "end"] as const;

/** A kernel of named operands; one that is left out has address 0. */
export function defineKernel<const N extends string>(
  m: ModuleBuilder,
  operands: readonly N[],
  build: (
    f: FunctionBuilder,
    params: Readonly<Record<N | typeof STEP[number], Local<"i32">>>,
  ) => void,
): Kernel;
export function defineKernel(
  m: ModuleBuilder,
  operands: number,
  build: (f: FunctionBuilder, operands: readonly Local<"i32">[], share: Share) => void,
): Kernel;
export function defineKernel(
  m: ModuleBuilder,
  operands: number | readonly string[],
  build: (f: FunctionBuilder, ...args: never[]) => void,
): Kernel {
  const named = typeof operands !== "number";
  const names = named ? operands : Array.from({ length: operands }, (_, i) => `operand${i}`);
  const func = m.define(ints(...names, ...STEP), "void", (f, params) => {
    const args = named ? [params] : [names.map((name) => params[name]), params];
    build(f, ...args as never[]);
  });
  return { ...func, params: Object.values(func.params) };
}
type Share = Readonly<Record<typeof STEP[number], Local<"i32">>>;
