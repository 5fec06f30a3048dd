/**
 * What every kernel of this backend is: a function of addresses, of the step, and of the work items that it is to do.
 *
 * @module
 */
import type { Func, FunctionBuilder, Local, ModuleBuilder } from "./assembler.ts";

/** Addresses of the operands, then rows, position, slot, length, begin, end: all I32. */
export type Kernel = Func<readonly "i32"[], "void">;

/**
 * Work items of a run: so many, or so many for each of its rows, or for each so many keys. What an item gives does not depend on
 * who does it.
 */
export interface Items {
  readonly count: number;
  readonly perRow: boolean;
  /** Keys of the cache that `count` items are for; the last ones may have fewer. */
  readonly perKeys?: number;
}

/** A kernel with what it is called with: operands, and addresses in the end. */
export interface KernelCall<Operand> {
  readonly kernel: Kernel;
  readonly operands: readonly Operand[];
  readonly items: Items;
}

/** What a kernel is told besides its operands. */
export interface Share {
  readonly rows: Local<"i32">;
  readonly position: Local<"i32">;
  readonly slot: Local<"i32">;
  readonly length: Local<"i32">;
  /** The first work item … */
  readonly begin: Local<"i32">;
  /** … and the one behind the last. */
  readonly end: Local<"i32">;
}

/** A kernel of so many operands; one that is left out has address 0. */
export function defineKernel(
  m: ModuleBuilder,
  operands: number,
  build: (f: FunctionBuilder, operands: readonly Local<"i32">[], share: Share) => void,
): Kernel {
  const params = Array.from({ length: operands + 6 }, () => "i32" as const);
  return m.define(params, "void", (f, ...all) => {
    const [rows, position, slot, length, begin, end] = all.slice(operands);
    build(f, all.slice(0, operands), { rows, position, slot, length, begin, end });
  });
}
