/**
 * Lowering to WASM: from the calls of a pass to entries of a program and a module of kernels.
 *
 * Every kernel takes the addresses of its operands, then rows, position, slot and length of the
 * step, then its work items begin … end − 1; what an item is depends on the operation.
 * Calls that differ only in their operands share a kernel.
 *
 * @module
 */
import { ModuleBuilder } from "../asm/assembler.ts";
import { VectorMath } from "../asm/math.ts";
import { type Call, type Forms, lower } from "../calls.ts";
import { attentionEntries } from "../ops/attention/wasm.ts";
import { type Operand, scratchOf, type WasmEntry, type WasmTarget } from "../ops/contract.ts";
import { addPositionEntries, embedEntries } from "../ops/embed.ts";
import { writeKvEntries } from "../ops/kv_cache/wasm.ts";
import { matmulEntries } from "../ops/matmul/wasm.ts";
import { normEntries } from "../ops/norm.ts";
import { sampleEntries } from "../ops/sample/wasm.ts";
import type { Tensor } from "../tensor.ts";
import type { Block } from "./memory.ts";
import type { Entry } from "./program.ts";

/** A tensor, a weight or scratch at its place in the memory. */
interface Placed {
  readonly block: Block;
}

/** What plans are made for. */
export interface LoweringOptions {
  /** Whether a product and its sum may be fused. */
  readonly relaxed: boolean;
  /** Whether threads share the memory. */
  readonly shared: boolean;
  /** Threads that run plans. */
  readonly threads: number;
  /** Pages that the memory has already. */
  readonly pages: number;
  /** Scratch that lives as long as the plan. */
  readonly allocate: (bytes: number) => Block;
}

/** Each operation's entries. */
const ENTRIES: Forms<WasmTarget, readonly WasmEntry[]> = {
  embed: embedEntries,
  addPosition: addPositionEntries,
  norm: normEntries,
  matmul: matmulEntries,
  writeKv: writeKvEntries,
  attention: attentionEntries,
  sample: sampleEntries,
};

/** Thread-local scratch, before it is known how much the kernels of a pass need. */
const THREAD_SCRATCH: Operand = scratchOf({ shape: [], dtype: "U32" });

/** A module and the entries that are lowered into it. */
export class WasmLowering implements WasmTarget {
  readonly module: ModuleBuilder;
  readonly math: VectorMath;
  readonly #options: LoweringOptions;
  /** What was defined, by operation and constants. */
  readonly #defined = new Map<string, unknown>();
  /** The most that any kernel needs of thread-local scratch. */
  #threadBytes = 0;

  constructor(options: LoweringOptions) {
    this.#options = options;
    this.module = new ModuleBuilder(options.shared, options.pages);
    this.math = new VectorMath(this.module, options.relaxed);
  }

  /** The entries of each call. Kernels run in turn, and so share thread-local scratch. */
  lower(calls: readonly Call[]): Entry[][] {
    const lowered = calls.map((call) => lower(call, ENTRIES, this));
    const local = this.#options.allocate(this.#threadBytes * this.#options.threads);
    const addressOf = (operand: Operand | undefined) => {
      if (!operand) return 0;
      return operand === THREAD_SCRATCH ? local.address : blockOf(operand).address;
    };
    return lowered.map((entries) =>
      entries.map((entry) => ({ ...entry, operands: entry.operands.map(addressOf) }))
    );
  }

  once<C, D>(op: string, constants: C, define: (constants: C) => D): D {
    const key = keyOf([op, constants]);
    const defined = this.#defined.get(key) as D ?? define(constants);
    this.#defined.set(key, defined);
    return defined;
  }

  scratch(bytes: number): Operand {
    const block = this.#options.allocate(bytes);
    const tensor: Tensor & Placed = { shape: [bytes / 4], dtype: "U32", block };
    return scratchOf(tensor);
  }

  threadScratch(bytes: number): Operand {
    this.#threadBytes = Math.max(this.#threadBytes, bytes);
    return THREAD_SCRATCH;
  }
}

function blockOf({ of }: Operand): Block {
  return (of as unknown as Placed).block;
}

/**
 * A text that is equal for equal constants alone. JSON writes −0 as 0, and NaN and infinities as
 * null, so numbers are written as strings, and strings with a quote in front of them.
 */
export function keyOf(constants: unknown): string {
  return JSON.stringify(constants, (_, value) => {
    if (typeof value === "number") return Object.is(value, -0) ? "-0" : `${value}`;
    return typeof value === "string" ? `"${value}` : value;
  });
}
